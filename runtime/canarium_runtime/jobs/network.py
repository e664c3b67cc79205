"""Requests to addresses that clients name: to public ones, and to networks that the settings allow, only.

A client who may name a URL could else make a pod ask whatever the pod can reach: the cluster's own services, the
metadata of the cloud's machine. So the name is resolved here, every address that it has must be allowed, and the
connection goes to the address that was looked at: a name that answers differently the next time gains nothing.
Redirects are requests of their own and are looked at, too.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from canarium_runtime.jobs.errors import UnreachableError
from canarium_runtime.repository import redact

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
"""From host and port to addresses."""
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


class ForbiddenAddressError(UnreachableError):
    """The address may not be reached; trying again cannot help."""


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet, and stands for no other that is not."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is not None:
            return is_public(inner)
        if any(address in network for network in _NAT64):
            return False
    return address.is_global and not address.is_multicast


def _resolve(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in found]


@dataclass(frozen=True, kw_only=True)
class AddressRules:
    """Which addresses may be reached.

    Args:
        private_networks: allowed although they are not public.
        resolve: replaces the name service in tests; may block.
    """

    private_networks: Sequence[Network] = ()
    resolve: Resolve = field(default=_resolve)

    def check(self, url: httpx.URL) -> str:
        """Give the address to connect to. Blocks.

        Raises:
            ForbiddenAddressError: one of the host's addresses is not allowed.
            httpx.ConnectError: the host has none, or the name service does not answer.
        """
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = [
                ipaddress.ip_address(a.partition("%")[0]) for a in self._resolved(url, port)
            ]
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{url.host} cannot be resolved") from error
        for address in addresses:
            listed = any(address in network for network in self.private_networks)
            if not listed and not is_public(address):
                msg = (
                    f"{url.host} is at an address that is not public, which is not allowed: use a public host, or "
                    "let CANARIUM_JOBS_PRIVATE_NETWORKS name its network"
                )
                raise ForbiddenAddressError(msg)
            if not listed and url.scheme != "https":
                msg = f"{redact(str(url))} is not https://, which is allowed within CANARIUM_JOBS_PRIVATE_NETWORKS only"
                raise ForbiddenAddressError(msg)
        if not addresses:
            raise httpx.ConnectError(f"{url.host} cannot be resolved")
        return str(addresses[0])

    def _resolved(self, url: httpx.URL, port: int) -> Sequence[str]:
        try:
            ipaddress.ip_address(url.host)
        except ValueError:
            return self.resolve(url.host, port)
        return [url.host]


def _pinned(request: httpx.Request, address: str) -> dict[str, Any]:
    """Turn a request to a name into one to an address; the name stays in `Host` and in the TLS handshake."""
    return {
        "method": request.method,
        "url": request.url.copy_with(host=address),
        "headers": request.headers,
        "stream": request.stream,
        "extensions": {**request.extensions, "sni_hostname": request.url.host},
    }


class GuardedTransport(httpx.BaseTransport):
    """A transport that holds to rules."""

    def __init__(self, rules: AddressRules, *, allow_http: bool = False) -> None:
        self._rules = rules
        self._allow_http = allow_http
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, if its host may be reached."""
        url = request.url
        # With a digest, what comes is proven, and the transport need not be.
        judged = url.copy_with(scheme="https") if self._allow_http else url
        port = url.port or (443 if url.scheme == "https" else 80)
        address = self._rules.check(judged.copy_with(port=port))
        return self._inner.handle_request(httpx.Request(**_pinned(request, address)))

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


class GuardedAsyncTransport(httpx.AsyncBaseTransport):
    """The same for asyncio."""

    def __init__(self, rules: AddressRules) -> None:
        self._rules = rules
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, if its host may be reached."""
        address = await asyncio.to_thread(self._rules.check, request.url)
        return await self._inner.handle_async_request(httpx.Request(**_pinned(request, address)))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()
