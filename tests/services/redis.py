"""A real Redis."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.processes import Service, accepts, free_port, program


class RedisServer(Service):
    """Redis without persistence."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        server = program("redis-server", "redis-server")
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
            "dir": str(folder),
            "maxmemory": "64mb",
            "maxmemory-policy": "allkeys-lru",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        super().__init__([server, *words], folder, lambda: accepts(self.port))

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """Run a Redis for the time of a test, or of several."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
