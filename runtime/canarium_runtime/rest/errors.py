"""Kinds of failure and their HTTP status: one table."""

from typing import Any

import orjson

from canarium_runtime.errors import ErrorKind, ServingError

STATUS_OF_KIND: dict[ErrorKind, int] = {
    ErrorKind.MALFORMED: 400,
    ErrorKind.INVALID: 422,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.METHOD_NOT_ALLOWED: 405,
    ErrorKind.UNSUPPORTED_ENCODING: 415,
    ErrorKind.BODY_TOO_LARGE: 413,
    ErrorKind.BODY_TOO_SLOW: 408,
    ErrorKind.CLIENT_GONE: 400,
    ErrorKind.QUEUE_FULL: 429,
    ErrorKind.NOT_READY: 503,
    ErrorKind.STOPPING: 503,
    ErrorKind.CONFLICT: 409,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.DEADLINE: 504,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.RATE_LIMITED: 429,
    ErrorKind.AUTHENTICATION_UNAVAILABLE: 503,
    ErrorKind.AUDIT_FULL: 503,
    ErrorKind.MODEL_FAILED: 500,
    ErrorKind.INTERNAL: 500,
}


def error_body(error: ServingError, request_id: str) -> bytes:
    """Write the answer's body: `error` for people, the rest for programs. Never a stack trace."""
    body: dict[str, Any] = {
        "error": error.message,
        "code": error.kind.value,
        "request_id": request_id,
    }
    for name in ("field", "expected", "got"):
        if (value := getattr(error, name)) is not None:
            body[name] = value
    return orjson.dumps(body)


def error_headers(error: ServingError) -> list[tuple[bytes, bytes]]:
    """Headers that belong to a failure: when to come again, how to authenticate."""
    headers = []
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_seconds))
    if error.challenge is not None:
        headers.append((b"www-authenticate", error.challenge.encode("ascii", "replace")))
    return headers
