"""A real PostgreSQL."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.services.processes import UNPRIVILEGED, Service, free_port, program

PASSWORD: Final = "correct horse"
_PLACES: Final = [str(p) for p in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]


class PostgresServer(Service):
    """PostgreSQL that does not wait for the disk, with the superuser `canarium`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        initdb = program("initdb", "postgresql", places=_PLACES)
        server = program("postgres", "postgresql", places=_PLACES)
        self._is_ready = program("pg_isready", "postgresql", places=_PLACES)
        self._psql = program("psql", "postgresql", places=_PLACES)
        self._databases = 0
        user = UNPRIVILEGED if os.getuid() == 0 else None
        password = folder / "password"
        password.write_text(PASSWORD)
        if user is not None:
            for path in (folder, password):
                os.chown(path, user, user)
        subprocess.run(
            [
                *(initdb, "--pgdata", str(folder / "data"), "--username", "canarium"),
                *("--auth", "scram-sha-256", "--pwfile", str(password)),
                *("--no-sync", "--encoding", "UTF8", "--no-locale"),
            ],
            cwd=folder,
            check=True,
            capture_output=True,
            user=user,
            group=user,
            extra_groups=[] if user is not None else None,
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(folder),
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "40",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        super().__init__(
            [server, "-D", str(folder / "data"), *words], folder, self._answers, UNPRIVILEGED
        )

    @property
    def url(self) -> str:
        """Where it is, with the password."""
        return self._url("postgres")

    def new_database(self) -> str:
        """Make an empty database; gives its URL."""
        self._databases += 1
        name = f"test{self._databases}"
        subprocess.run(
            [
                *(self._psql, "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "canarium"),
                *("-d", "postgres", "-c", f"CREATE DATABASE {name} STRATEGY FILE_COPY"),
            ],
            check=True,
            env={**os.environ, "PGPASSWORD": PASSWORD},
        )
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql://canarium:correct%20horse@127.0.0.1:{self.port}/{database}"

    def _answers(self) -> bool:
        question = [self._is_ready, "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(question, check=False).returncode == 0


@contextmanager
def running_postgresql() -> Iterator[PostgresServer]:
    """Run a PostgreSQL for the time of a test, or of several.

    Its folder is below /tmp: pytest's own may lie in one that `nobody` may not enter.
    """
    with tempfile.TemporaryDirectory(prefix="canarium-pg-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
