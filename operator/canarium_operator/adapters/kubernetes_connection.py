"""How the operator finds its cluster: as a pod by its service account, elsewhere by a kubeconfig."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit
from weakref import WeakSet

import aiohttp
import yaml
from kubernetes.aio import client, config
from kubernetes.aio.client.rest import RESTClientObject

from canarium_operator.errors import ClusterError

USER_AGENT = "canarium-operator"
OnRequest = Callable[[str, str], None]
"""Told of each request: its verb as Kubernetes names it, and the resource (`deployments/scale`)."""


_CLOSING_TURNS: Final = 20
"""Turns of the event loop that a TLS connection may take to close, once the system has ended it; it takes four."""


class _Sockets:
    """The sockets of a client, so that none outlives it.

    A request that is cancelled ends its TLS connection with a farewell that the server has 30 s to answer. aiohttp has
    forgotten such a connection by then, so that closing the client alone would leave it behind.
    """

    def __init__(self) -> None:
        self._open: WeakSet[socket.socket] = WeakSet()

    def make(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Make a socket for a connection."""
        family, kind, protocol, _, _ = address
        made = socket.socket(family=family, type=kind, proto=protocol)
        self._open.add(made)
        return made

    async def close(self) -> None:
        """End all connections that are still there, and wait until they are closed."""
        for left in self._open:
            with suppress(OSError):  # closed already
                left.shutdown(socket.SHUT_RDWR)
        for _ in range(_CLOSING_TURNS):
            if all(left.fileno() == -1 for left in self._open):
                return
            await asyncio.sleep(0)


class _Transport(RESTClientObject):  # type: ignore[misc]  # the package has no types
    """The connections of a client, made with sockets that are known."""

    def __init__(self, configuration: client.Configuration, sockets: _Sockets) -> None:
        super().__init__(configuration)
        self._sockets = sockets

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            limit=self.maxsize, ssl=self.ssl_context, socket_factory=self._sockets.make
        )


class _Client(client.ApiClient):  # type: ignore[misc]  # the package has no types
    """A client that tells of its requests."""

    on_request: OnRequest | None = None

    async def call_api(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        if self.on_request is not None:
            self.on_request(*request_of(method, url))
        return await super().call_api(method, url, *args, **options)


def request_of(method: str, url: str) -> tuple[str, str]:
    """Name the verb and the resource of a request."""
    parts = urlsplit(url)
    path = parts.path.strip("/").split("/")
    path = path[2:] if path[0] == "api" else path[3:]
    if len(path) > 2 and path[0] == "namespaces":
        path = path[2:]
    plural, name, sub = (*path, "", "", "")[:3]
    verb = {"GET": "get", "POST": "create", "PUT": "update"}.get(method, method.lower())
    if verb == "get" and not name:
        verb = "watch" if parse_qs(parts.query).get("watch") == ["true"] else "list"
    return verb, f"{plural}/{sub}" if sub else plural


@asynccontextmanager
async def connect(
    kubeconfig: str | None = None,
    context: str | None = None,
    on_request: OnRequest | None = None,
) -> AsyncIterator[client.ApiClient]:
    """Open a client, and close it in the end; nothing is sent yet.

    Args:
        kubeconfig: file to use. None: the service account of the pod this runs in, else $KUBECONFIG or ~/.kube/config.
        context: context of the kubeconfig; None: its current one.
        on_request: told of each request.

    Raises:
        ClusterError: there is no configuration, or it cannot be read.
    """
    configuration = client.Configuration()
    in_cluster = kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ
    try:
        if in_cluster:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(
                config_file=kubeconfig,
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
        sockets = _Sockets()
        api = _Client(configuration)
        api.rest_client = _Transport(configuration, sockets)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError) as error:
        where = (
            "the pod's service account"
            if in_cluster
            else (kubeconfig or "$KUBECONFIG or ~/.kube/config")
        )
        msg = f"no usable access to a cluster in {where}: {error}. Name a kubeconfig with --kubeconfig FILE."
        raise ClusterError(msg) from error
    api.user_agent = USER_AGENT
    api.on_request = on_request
    try:
        async with api:
            yield api
    finally:
        await sockets.close()
