"""The client of the API server, against a server that has stopped talking."""

import asyncio
import contextlib
import gc
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
import yaml

from canarium_operator.adapters.kubernetes_connection import connect


class SilentServer:
    """Takes one request over TLS, and says nothing more: no answer, and no farewell when the client leaves."""

    def __init__(self, authority: trustme.CA) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.asked, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        accepted, _ = self._listener.accept()
        with self._context.wrap_socket(accepted, server_side=True) as secured:
            secured.recv(65536)
            self.asked.set()
            self._over.wait()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._listener.close()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[SilentServer]:
    server = SilentServer(authority)
    yield server
    server.close()


@pytest.fixture
def kubeconfig(server: SilentServer, authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    host, port = server.address
    cluster = {
        "server": f"https://{host}:{port}",
        "certificate-authority": str(tmp_path / "ca.pem"),
    }
    path = tmp_path / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "here", "cluster": cluster}],
                "users": [{"name": "me", "user": {}}],
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            }
        )
    )
    return str(path)


def open_sockets(address: tuple[str, int]) -> list[socket.socket]:
    """Find this process's open sockets to an address."""
    found = []
    for candidate in gc.get_objects():
        # By its type: asking some objects of other libraries for their class warns.
        if issubclass(type(candidate), socket.socket) and candidate.fileno() != -1:
            with contextlib.suppress(OSError):
                if candidate.getpeername() == address:
                    found.append(candidate)
    return found


async def test_no_connection_outlives_the_client(server: SilentServer, kubeconfig: str) -> None:
    """Also not that of a request which was cancelled, whose TLS farewell the server does not answer."""
    async with connect(kubeconfig) as api:
        serialized = await api.param_serialize("GET", "/api/v1/pods", auth_settings=[])
        asking = asyncio.create_task(api.call_api(*serialized))
        await asyncio.to_thread(server.asked.wait)
        assert open_sockets(server.address)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
    assert not open_sockets(server.address)
