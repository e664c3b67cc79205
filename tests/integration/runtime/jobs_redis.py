"""A real Redis for tests of jobs: unlike that of a cache, it forgets nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.processes import Service, accepts, free_port, program


@contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    """Run a Redis on the loopback; its URL."""
    port = free_port()
    options = {"port": str(port), "bind": "127.0.0.1", "save": "", "dir": str(folder)}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    server = Service(
        [program("redis-server", "redis-server"), *words], folder, lambda: accepts(port)
    )
    server.start()
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.stop()
