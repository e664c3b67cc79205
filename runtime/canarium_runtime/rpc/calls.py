"""What one call says besides its message, and how it ends: metadata, deadline, status."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn
from urllib.parse import unquote

import grpc
from grpc import aio

from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.rest import http
from canarium_runtime.rest.exchange import Peer, Reply
from canarium_runtime.rpc.statuses import STATUS_OF_KIND
from canarium_runtime.security import Credentials, Guard

Context = aio.ServicerContext[Any, Any]
ERROR: Final = "canarium-error-bin"
"""Trailing metadata with the JSON body that REST has for the error."""
_MAX_MESSAGE: Final = 1024
_MAX_ERROR_BYTES: Final = 4096
"""Clients refuse answers whose metadata is larger than about 8 KiB."""


class CallHead:
    """What came with a call.

    Its `head` is made of the call's metadata as REST's is of a request's headers, so that whoever looks at headers sees
    these, credentials (`authorization`, `x-api-key`) among them.
    """

    __slots__ = ("ends_at", "head", "peer", "timeout_seconds")

    def __init__(self, context: Context) -> None:
        pairs: Any = context.invocation_metadata() or ()
        self.head = http.read_head(
            (key.encode(), value if isinstance(value, bytes) else value.encode())
            for key, value in pairs
            if not key.startswith(("content-", "inference-"))
        )
        self.peer = Peer(_address(context.peer()), _certificate(context.auth_context()))
        self.timeout_seconds = context.time_remaining()
        """How long the client waits; None: it did not say."""
        seconds = self.timeout_seconds
        self.ends_at = None if seconds is None else time.monotonic() + seconds

    @property
    def request_id(self) -> str:
        """The client's id, or one of this server's own."""
        return self.head.request_id

    def credentials(self) -> Credentials:
        """What it says of who asks."""
        head, peer = self.head, self.peer
        return Credentials(head.authorization, head.api_key, peer.address, peer.certificate)

    def given_up(self) -> ServingError | None:
        """Say why a call was cancelled: its deadline; None: the client went."""
        if self.ends_at is None or time.monotonic() < self.ends_at:
            return None
        return ServingError(ErrorKind.DEADLINE, "no answer within the client's deadline")


async def admit(guard: Guard, call: CallHead) -> None:
    """Refuse a call of somebody who may not ask.

    Raises:
        ServingError: as `Guard.admit`.
    """
    credentials = call.credentials()
    if guard.admit(credentials) is None:
        await guard.admit_later(credentials)


def _address(peer: str) -> str:
    """Read an address from gRPC's `ipv4:127.0.0.1:55555` or `ipv6:%5B::1%5D:55555`."""
    kind, _, rest = unquote(peer).partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return ""
    return rest.rpartition(":")[0].strip("[]")


def _certificate(found: Mapping[str, Iterable[bytes]]) -> str:
    """Name the owner of the client's certificate as `security.tls.subject_of` does; "" for none."""
    for name in ("peer_spiffe_id", "x509_subject"):
        for value in found.get(name, ()):
            return value.decode("utf-8", "replace")
    return ""


class Trailers:
    """Metadata at the end of every answer.

    Args:
        revision: which revision answers.
    """

    def __init__(self, revision: str) -> None:
        self._revision = (http.REVISION.decode(), revision)

    def of(self, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
        """Give the metadata of one answer."""
        return (self._revision, (http.REQUEST_ID.decode(), request_id))

    async def abort(self, context: Context, reply: Reply, error: ServingError) -> NoReturn:
        """End a call with an error."""
        trailing = [*self.of(reply.request_id)]
        trailing += [(name.decode(), value.decode()) for name, value in reply.headers]
        if len(reply.body) <= _MAX_ERROR_BYTES:
            trailing.append((ERROR, reply.body))
        status = STATUS_OF_KIND.get(error.kind, grpc.StatusCode.UNKNOWN)
        await context.abort(status, error.message[:_MAX_MESSAGE], tuple(trailing))
        raise AssertionError  # pragma: no cover - abort raises
