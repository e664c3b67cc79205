"""Which paths are open to all. Predictions never are."""

from collections.abc import Collection
from typing import Final

from canarium_api.security_config import OpenPath

_METADATA: Final = frozenset({"/v2", "/v2/", "/openapi.json", "/docs", "/docs/oauth2-redirect"})


def kind_of(method: str, path: str) -> OpenPath | None:
    """Say what a request reads, of the things that can be open; None: it is protected.

    Args:
        method: of HTTP, in capitals.
        path: decoded, without the query.
    """
    if method not in {"GET", "HEAD"}:
        return None
    if path == "/metrics":
        return OpenPath.METRICS
    if path == "/health" or path.startswith(("/health/", "/v2/health/")):
        return OpenPath.HEALTH
    if path.startswith("/v2/models/"):
        return OpenPath.HEALTH if path.endswith("/ready") else OpenPath.METADATA
    return OpenPath.METADATA if path in _METADATA else None


def is_open(method: str, path: str, opened: Collection[OpenPath]) -> bool:
    """Whether a request needs no credentials."""
    return kind_of(method, path) in opened
