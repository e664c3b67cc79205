"""From what the Kubernetes API answers to our own errors; nothing of the client library gets past this module's
callers.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import aiohttp
from kubernetes.aio.client.exceptions import OpenApiException
from kubernetes.aio.config import ConfigException

from canarium_operator.errors import (
    ClusterError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RejectedError,
    TransientClusterError,
)

_MAX_MESSAGE: Final = 1000
"""Characters: a refusal by a schema can quote a whole object."""
_RBAC: Final = re.compile(r'User "[^"]*" cannot \w+ resource')
"""403 has three senses that need different answers; RBAC's is the one that is always worded so."""
_UNTYPABLE: Final = "failed to create typed patch object"
"""An applied object with an unknown field or a wrong type: the API server answers 500, but no retry can help."""


def error_of(action: str, status: int, headers: Mapping[str, str], body: bytes) -> ClusterError:
    """Translate an answer that is not a success.

    Args:
        action: what was tried, for the message: `apply Deployment ml/fraud-1`.
        status: HTTP status.
        headers: of the answer.
        body: of the answer; a `metav1.Status` as a rule, but proxies and absent APIs answer plain text.
    """
    detail = _status_object(body)
    reason = str(detail.get("reason", ""))
    text = " ".join(str(detail.get("message") or body.decode(errors="replace")).split())[
        :_MAX_MESSAGE
    ]
    message = f"{action}: {status} {text}"
    if status in (404, 410):
        return NotFoundError(message)
    if status == 409:
        return ConflictError(message)
    if status == 401 or (status == 403 and _RBAC.search(text)):
        return ForbiddenError(
            f"{message} (the operator's service account needs the ClusterRole of manifests/)"
        )
    if status == 403 and "is being terminated" in text:
        return TransientClusterError(message)  # until the namespace has taken the object along
    if _UNTYPABLE in text or (400 <= status < 500 and status not in (408, 425, 429)):
        return RejectedError(f"{message} ({reason})" if reason and reason not in text else message)
    return TransientClusterError(message, _retry_after(headers, detail))


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Turn every way in which a call can fail to get an answer into a TransientClusterError."""
    try:
        yield
    except TimeoutError as error:
        msg = f"{action}: the API server did not answer in time"
        raise TransientClusterError(msg) from error
    except (aiohttp.ClientError, OpenApiException, ConfigException, OSError, ValueError) as error:
        # ValueError: an answer that is no JSON, such as a proxy's page.
        msg = f"{action}: {type(error).__name__}: {error}"[:_MAX_MESSAGE]
        raise TransientClusterError(msg) from error


def _status_object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _retry_after(headers: Mapping[str, str], detail: dict[str, Any]) -> float | None:
    """Seconds that the API server asks to wait, from the header or from the Status."""
    candidates = (
        headers.get("Retry-After"),
        (detail.get("details") or {}).get("retryAfterSeconds"),
    )
    for candidate in candidates:
        try:
            seconds = float(candidate)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue  # absent, or a date, which API servers do not send
        if 0 <= seconds < float("inf"):
            return seconds
    return None
