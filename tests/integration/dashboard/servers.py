"""A dashboard that runs in this process, on a loop and a port of its own, against an API server on loopback."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from tests.services.api_server import ApiServer

from canarium_dashboard.__main__ import Server, bind, make_server
from canarium_dashboard.connecting import connect
from canarium_dashboard.desk import Desk
from canarium_dashboard.prometheus import Prometheus
from canarium_dashboard.settings import Settings, SignIn
from canarium_dashboard.streams import Seats

SECRET = "a-secret-of-the-tests"
TOKEN = "token-of-alice"


@dataclass
class Dashboard:
    """A running one."""

    url: str
    desk: Desk
    seats: Seats
    loop: asyncio.AbstractEventLoop
    server: Server

    def wait_seen(self, key: tuple[str, str], version: str, seconds: float = 10) -> None:
        """Wait until its own watch has seen a version of an object."""

        def version_seen() -> bool:
            for running in list(self.desk.watchers._running.values()):
                body = running.watcher.objects.get(key)
                if body is not None and int(body["metadata"]["resourceVersion"]) >= int(version):
                    return True
            return False

        wait_until(f"version {version} of {key} is seen", version_seen, seconds)


def wait_until(what: str, is_so: Callable[[], bool], seconds: float = 10) -> None:
    """Look until something is the case."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.005)


@contextlib.contextmanager
def running_dashboard(
    api: ApiServer,
    folder: Path,
    *,
    sign_in: SignIn = SignIn.KUBECONFIG,
    token: str = TOKEN,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    namespace: str | None = None,
    prometheus: str | None = None,
    **settings: Any,
) -> Iterator[Dashboard]:
    """Run one for the time of a test."""
    config = folder / "kubeconfig"
    config.write_text(yaml.safe_dump(api.kubeconfig(token)))
    found = Settings(sign_in=sign_in, secret=SECRET, namespace=namespace, **settings)
    started: list[Dashboard] = []
    failed: list[BaseException] = []
    ready = threading.Event()

    async def main() -> None:
        anonymous = sign_in is SignIn.TOKEN
        async with connect(str(config), None, anonymous=anonymous) as client:
            source = Prometheus(prometheus) if prometheus is not None else None
            desk = Desk(api=client, settings=found, clock=clock, prometheus=source)
            seats = Seats()
            server = make_server(desk, seats, "127.0.0.1", 0)
            with contextlib.closing(bind("127.0.0.1", 0)) as listener:
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                started.append(Dashboard(url, desk, seats, asyncio.get_running_loop(), server))
                ready.set()
                # `serve` would take this process's signals, which only a main thread may.
                await server._serve([listener])

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - shown by the test that waits
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=run, name="dashboard")
    thread.start()
    ready.wait(20)
    assert not failed, failed
    dashboard = started[0]
    wait_until("the dashboard serves", lambda: dashboard.server.started or bool(failed))
    try:
        yield dashboard
    finally:
        dashboard.loop.call_soon_threadsafe(dashboard.seats.closing.set)
        dashboard.server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the dashboard does not end"
        assert not failed, failed
