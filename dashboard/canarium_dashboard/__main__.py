"""`canarium dashboard`: serves the page, on loopback and with the rights of a kubeconfig unless told otherwise."""

import asyncio
import contextlib
import ipaddress
import os
import secrets
import socket
import sys
import webbrowser
from datetime import UTC, datetime
from types import FrameType
from typing import Annotated, Final

import typer
import uvicorn

from canarium_dashboard.app import make_app
from canarium_dashboard.connecting import connect, context_namespace
from canarium_dashboard.desk import Desk
from canarium_dashboard.errors import DashboardError
from canarium_dashboard.prometheus import Prometheus
from canarium_dashboard.settings import DEFAULT_PORT, Settings, SignIn
from canarium_dashboard.streams import Seats

_MAX_CONNECTIONS: Final = 256
_GRACE_SECONDS: Final = 3
"""For requests under way when it is told to end."""


class Server(uvicorn.Server):
    """Ends its streams first when it is told to end: they would last for ever."""

    def __init__(self, config: uvicorn.Config, seats: Seats) -> None:
        super().__init__(config)
        self._seats = seats

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        self._seats.closing.set()
        super().handle_exit(sig, frame)


def make_server(desk: Desk, seats: Seats, host: str, port: int) -> Server:
    """Make the server of a dashboard; nothing is opened yet."""
    config = uvicorn.Config(
        make_app(desk, seats),
        host=host,
        port=port,
        log_level="warning",
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return Server(config, seats)


def dashboard(
    port: Annotated[int, typer.Option(help="Port; 0: any that is free.")] = DEFAULT_PORT,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    sign_in: Annotated[
        SignIn,
        typer.Option(
            help="kubeconfig: act with your kubeconfig's rights. token: each user brings a bearer token of their own."
        ),
    ] = SignIn.KUBECONFIG,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Another name by which browsers may call it; may be repeated."),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", help="Show this one at first.")
    ] = None,
    prometheus_url: Annotated[
        str | None,
        typer.Option(
            "--prometheus",
            help="Base URL of a Prometheus: shows how many requests the canary answers.",
        ),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    kubeconfig: Annotated[str | None, typer.Option(help="File of the kubeconfig.")] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
) -> None:
    """Show rollouts in a browser, and act on them."""
    if sign_in is SignIn.KUBECONFIG and not is_loopback(host):
        words = (
            f"--host {host} would lend the rights of your kubeconfig to the network: "
            "leave it out, or use --sign-in token"
        )
        print(f"canarium dashboard: {words}", file=sys.stderr)
        raise typer.Exit(2)
    found = Settings(
        sign_in=sign_in,
        secret=secrets.token_urlsafe(24) if sign_in is SignIn.KUBECONFIG else "",
        hosts=Settings().hosts | {name.lower() for name in allowed_host or ()},
        namespace=namespace,
    )
    try:
        asyncio.run(_serve(found, host, port, prometheus_url, kubeconfig, context, browser=browser))
    except DashboardError as error:
        print(f"canarium dashboard: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        return


def is_loopback(host: str) -> bool:
    """Tell whether nobody but this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


async def _serve(
    found: Settings,
    host: str,
    port: int,
    prometheus_url: str | None,
    kubeconfig: str | None,
    context: str | None,
    *,
    browser: bool,
) -> None:
    anonymous = found.sign_in is SignIn.TOKEN
    async with connect(kubeconfig, context, anonymous=anonymous) as api:
        desk = Desk(
            api=api,
            settings=found,
            clock=lambda: datetime.now(UTC),
            prometheus=Prometheus(prometheus_url) if prometheus_url is not None else None,
            default_namespace=context_namespace(kubeconfig, context),
        )
        seats = Seats()
        server = make_server(desk, seats, host, port)
        with contextlib.closing(bind(host, port)) as listener:
            link = _link(found, host, listener.getsockname()[1])
            print(f"canarium dashboard: {link}\nCtrl-C ends it.", flush=True)
            opening = asyncio.create_task(
                _open(server, link, wanted=browser and bool(found.secret))
            )
            await server.serve(sockets=[listener])
            opening.cancel()


def bind(host: str, port: int) -> socket.socket:
    """Take an address, and listen there.

    Raises:
        DashboardError: somebody else has it, or it is none of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen()  # from now on connections wait instead of being refused
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        msg = f"cannot listen on {host}, port {port}: {error.strerror}. Name another with --port, or --port 0 for any."
        raise DashboardError(msg) from error
    return listener


def _link(found: Settings, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    # After the #: browsers send that part to no server, and keep it out of the Referer.
    secret = f"#token={found.secret}" if found.secret else ""
    return f"http://{shown}:{port}/{secret}"


async def _open(server: Server, link: str, *, wanted: bool) -> None:
    """Open a browser once the server answers; one that draws in the terminal would only be in the way."""
    screen = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if not wanted or not (screen or sys.platform in ("darwin", "win32")):
        return
    while not server.started:  # noqa: ASYNC110 - uvicorn tells by this alone
        await asyncio.sleep(0.05)
    with contextlib.suppress(webbrowser.Error):
        await asyncio.to_thread(webbrowser.open, link)


def application(_word: str = "dashboard") -> typer.Typer:
    """Give the command as typer describes it, for shells that complete it and for the docs."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(dashboard)
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    typed = sys.argv[0] if " " in sys.argv[0] else "canarium dashboard"
    application()(prog_name=typed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
