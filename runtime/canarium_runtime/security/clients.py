"""The two values of authentication: what a request came with, and whom it makes of that."""

import ipaddress
import math
from dataclasses import dataclass

from canarium_api.metric_names import AuthFailure
from canarium_runtime.errors import ErrorKind, ServingError


@dataclass(slots=True, repr=False)
class Credentials:
    """What a request came with. It has no repr that tells: it holds secrets."""

    authorization: bytes = b""
    """Header `authorization`, as it came."""
    api_key: bytes = b""
    """Header `x-api-key`, as it came."""
    address: str = ""
    """Address of the peer, without its port."""
    certificate: str = ""
    """Subject of the client certificate, checked by the transport; "": none."""


class Client:
    """Somebody known.

    Args:
        name: for audit and limits; how it is known, and as whom: `key:batch`, `jwt:user-7`, `cert:CN=batch`,
            `address:10.0.0.7`. Never the secret.
        expires_at: until when it is known, seconds, monotonic.
    """

    __slots__ = ("expires_at", "name")

    def __init__(self, name: str, expires_at: float = math.inf) -> None:
        self.name = name
        self.expires_at = expires_at


class RefusedError(ServingError):
    """Credentials are missing or wrong.

    Args:
        reason: for the counter.
        message: one sentence for the client; nothing of what it sent.
        challenge: value of WWW-Authenticate.
        kind: UNAUTHENTICATED, or FORBIDDEN for good credentials that do not suffice.
    """

    def __init__(
        self,
        reason: AuthFailure,
        message: str,
        challenge: str,
        kind: ErrorKind = ErrorKind.UNAUTHENTICATED,
    ) -> None:
        super().__init__(kind, message, challenge=challenge)
        self.reason = reason


BEARER = 'Bearer realm="canarium"'


def bad_token(reason: AuthFailure, message: str) -> RefusedError:
    """Make the refusal of a token, as RFC 6750 words it."""
    challenge = f'{BEARER}, error="invalid_token", error_description="{message}"'
    return RefusedError(reason, message, challenge)


def forbidden(message: str, scopes: str = "") -> RefusedError:
    """Make the refusal of a good token that does not suffice (RFC 6750)."""
    challenge = f'{BEARER}, error="insufficient_scope", error_description="{message}"'
    if scopes:
        challenge += f', scope="{scopes}"'
    return RefusedError(AuthFailure.FORBIDDEN, message, challenge, ErrorKind.FORBIDDEN)


def network_of(address: str) -> str:
    """Give what is limited together: an IPv4 address, or the /64 of an IPv6 address, as one host has all of it."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address or "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
