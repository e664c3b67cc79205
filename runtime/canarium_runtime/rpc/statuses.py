"""Kinds of failure and their gRPC status: one table."""

from grpc import StatusCode

from canarium_runtime.errors import ErrorKind

STATUS_OF_KIND: dict[ErrorKind, StatusCode] = {
    ErrorKind.MALFORMED: StatusCode.INVALID_ARGUMENT,
    ErrorKind.INVALID: StatusCode.INVALID_ARGUMENT,
    ErrorKind.NOT_FOUND: StatusCode.NOT_FOUND,
    ErrorKind.METHOD_NOT_ALLOWED: StatusCode.UNIMPLEMENTED,
    ErrorKind.UNSUPPORTED_ENCODING: StatusCode.INVALID_ARGUMENT,
    ErrorKind.BODY_TOO_LARGE: StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.BODY_TOO_SLOW: StatusCode.DEADLINE_EXCEEDED,
    ErrorKind.CLIENT_GONE: StatusCode.CANCELLED,
    ErrorKind.QUEUE_FULL: StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.NOT_READY: StatusCode.UNAVAILABLE,
    ErrorKind.STOPPING: StatusCode.UNAVAILABLE,
    ErrorKind.CONFLICT: StatusCode.FAILED_PRECONDITION,
    ErrorKind.UNAVAILABLE: StatusCode.UNAVAILABLE,
    ErrorKind.DEADLINE: StatusCode.DEADLINE_EXCEEDED,
    ErrorKind.UNAUTHENTICATED: StatusCode.UNAUTHENTICATED,
    ErrorKind.FORBIDDEN: StatusCode.PERMISSION_DENIED,
    ErrorKind.RATE_LIMITED: StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.AUTHENTICATION_UNAVAILABLE: StatusCode.UNAVAILABLE,
    ErrorKind.AUDIT_FULL: StatusCode.UNAVAILABLE,
    ErrorKind.MODEL_FAILED: StatusCode.INTERNAL,
    ErrorKind.INTERNAL: StatusCode.INTERNAL,
}
