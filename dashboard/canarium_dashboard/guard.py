"""What every request must pass before anything else looks at it, and what every answer says to the browser.

The page keeps its token in the memory of its tab and sends it as a header; there are no cookies. So a foreign page
cannot act for a user: its requests lack the token, and a header of that kind needs a leave across origins that nobody
gives. The Host check keeps out a foreign page whose own name was made to lead here (DNS rebinding), and the checks of
Origin and of the page's own header keep out what a browser might add credentials to by itself, such as a proxy's login.
Pure.
"""

import hmac
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from canarium_dashboard.errors import BadRequestError, ForbiddenError, SignedOutError

PAGE_HEADER: Final = "x-canarium-dashboard"
"""Every request for data carries it; a form or an image of a foreign page cannot."""
_BEARER: Final = re.compile(r"^Bearer ([A-Za-z0-9._~+/=:-]{1,8192})$")
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def check_host(host: str, allowed: frozenset[str]) -> None:
    """Refuse a request for another name than one of ours.

    Raises:
        ForbiddenError: the header Host names another server.
    """
    if name_of(host) not in allowed:
        msg = (
            "this server is not called by that name: open it by the address that it told when it started, or allow the "
            "name with --allowed-host"
        )
        raise ForbiddenError(msg)


def name_of(host: str) -> str:
    """Take the port off: `localhost:8765` is `localhost`, `[::1]:8765` is `[::1]`."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def check_page(headers: Mapping[str, str]) -> None:
    """Refuse a request for data that one of our own pages would not make.

    Raises:
        ForbiddenError: it comes from another origin, or lacks the page's header.
    """
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        msg = "the request comes from another page"
        raise ForbiddenError(msg)
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        msg = "the request comes from another site"
        raise ForbiddenError(msg)
    if PAGE_HEADER not in headers:
        msg = f"the header {PAGE_HEADER} is missing"
        raise ForbiddenError(msg)


def token_of(headers: Mapping[str, str]) -> str:
    """Read the bearer token.

    Raises:
        SignedOutError: there is none.
        BadRequestError: it is none.
    """
    sent = headers.get("authorization")
    if not sent:
        msg = "sign in first"
        raise SignedOutError(msg)
    match = _BEARER.match(sent)
    if match is None:
        msg = "the header Authorization is no bearer token"
        raise BadRequestError(msg)
    return match[1]


def check_secret(token: str, secret: str) -> None:
    """Refuse a token that is not the one told at the start.

    Raises:
        SignedOutError: it is another.
    """
    if not secret or not hmac.compare_digest(token.encode(), secret.encode()):
        msg = "that is not the token of this dashboard: take the link that it told when it started"
        raise SignedOutError(msg)
