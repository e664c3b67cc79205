"""Everything that can go wrong, by who is wrong.

    ServingError          one request; `kind` says which way, rest/errors.py gives the kind its HTTP status
      QueueFullError      the queue is at its bound
    LoadError             the server cannot serve its model at all; it leaves with this in the termination log

Libraries' own errors are translated where they arise (`raise ... from error`), so callers meet these only.
"""

from enum import StrEnum

from canarium_api.runtime_config import LoadFailure


class ErrorKind(StrEnum):
    """Ways in which one request can fail. The value is the answer's `code`."""

    MALFORMED = "malformed_request"
    """Not JSON, or not the shape of the protocol."""
    INVALID = "invalid_input"
    """Well formed, but does not fit the model."""
    NOT_FOUND = "not_found"
    """No such model, version or path."""
    METHOD_NOT_ALLOWED = "method_not_allowed"
    """The path exists, the method does not."""
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    """A compressed or binary body, which this server does not read."""
    BODY_TOO_LARGE = "body_too_large"
    """More bytes than the limit."""
    BODY_TOO_SLOW = "body_too_slow"
    """The body did not arrive within the request timeout."""
    CLIENT_GONE = "client_gone"
    """The client closed the connection before its body was complete."""
    QUEUE_FULL = "queue_full"
    """Too much waits already."""
    NOT_READY = "not_ready"
    """The model is still loading or warming up."""
    STOPPING = "stopping"
    """The server is about to leave."""
    CONFLICT = "conflict"
    """What is asked for does not fit the state of the thing: results of a job that runs, say."""
    UNAVAILABLE = "dependency_unavailable"
    """Something that this server needs for it does not answer."""
    DEADLINE = "deadline_exceeded"
    """No answer within the request timeout."""
    UNAUTHENTICATED = "unauthenticated"
    """No credentials, or wrong ones."""
    FORBIDDEN = "forbidden"
    """Good credentials, which do not allow this."""
    RATE_LIMITED = "rate_limited"
    """The client asks more often than it may."""
    AUTHENTICATION_UNAVAILABLE = "authentication_unavailable"
    """The issuer's signing keys could not be had yet, so no token can be checked."""
    AUDIT_FULL = "audit_full"
    """The audit log cannot take more, and nothing may go unrecorded."""
    MODEL_FAILED = "model_failed"
    """The model raised an error on this input."""
    INTERNAL = "internal_error"
    """A mistake of this server."""


class ServingError(Exception):
    """One request cannot be answered.

    Args:
        kind: which way.
        message: one sentence for the client; no internals.
        field: path of the offending field, such as `inputs[0].data[3]`.
        expected: what that field should hold.
        got: what it holds.
        retry_after_seconds: when trying again makes sense.
        challenge: value of the header WWW-Authenticate.

    Attributes:
        client_id: the id that the client gave its request, where a decoder had read it already.
    """

    client_id: str | None = None

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        field: str | None = None,
        expected: str | None = None,
        got: str | None = None,
        retry_after_seconds: int | None = None,
        challenge: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field
        self.expected = expected
        self.got = got
        self.retry_after_seconds = retry_after_seconds
        self.challenge = challenge


class QueueFullError(ServingError):
    """The queue holds as many requests as it may."""

    def __init__(self, capacity: int) -> None:
        super().__init__(
            ErrorKind.QUEUE_FULL,
            f"{capacity} requests are waiting already, which is the limit; try again",
            retry_after_seconds=1,
        )


class LoadError(Exception):
    """The model cannot be served.

    Args:
        reason: CamelCase, one of those that `LoadFailure.reason` names.
        message: one sentence with the remedy; no secrets.
        permanent: trying again with the same revision cannot help.
    """

    def __init__(self, reason: str, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.failure = LoadFailure(reason=reason, message=message, permanent=permanent)


def invalid(
    field: str, expected: str, got: str, *, kind: ErrorKind = ErrorKind.INVALID
) -> ServingError:
    """Make the error for one field of a request; the message is `field: expected X, got Y`."""
    return ServingError(
        kind, f"{field}: expected {expected}, got {got}", field=field, expected=expected, got=got
    )
