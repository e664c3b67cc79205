"""The body of `POST /jobs`. No IO."""

from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canarium_runtime.errors import ErrorKind, ServingError, invalid
from canarium_runtime.jobs.errors import SourceError
from canarium_runtime.jobs.record import Source
from canarium_runtime.jobs.sources import format_of

_SCHEMES: Final = ("https", "http", "file")


class Callback(BaseModel):
    """Who is told of a job's end."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, max_length=2048)


class JobRequest(BaseModel):
    """The body of `POST /jobs`: `rows` or `source`."""

    model_config = ConfigDict(extra="forbid")

    rows: list[Any] | None = Field(default=None, min_length=1)
    """Each an object from names of inputs to values, or the value itself for a model with one input."""
    source: Source | None = None
    """A file with rows."""
    callback: Callback | None = None
    """Told of the end by a signed webhook."""
    max_failed_share: float = Field(default=1.0, ge=0.0, le=1.0)
    """Share of failed rows above which the job fails."""


def parse_request(body: bytes) -> JobRequest:
    """Read the body of `POST /jobs`.

    Raises:
        ServingError: MALFORMED.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = f"the body is not valid JSON: {error}"
        raise ServingError(ErrorKind.MALFORMED, message, field="") from error
    try:
        request = JobRequest.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "body"
        message = f"{field}: {first['msg']}"
        raise ServingError(ErrorKind.MALFORMED, message, field=field) from error
    if (request.rows is None) == (request.source is None):
        message = 'body: expected either "rows" or "source"'
        raise ServingError(ErrorKind.MALFORMED, message, field="body")
    return request


def check_source(source: Source) -> None:
    """Refuse a source that no worker could read.

    Raises:
        ServingError: INVALID.
    """
    scheme, separator, _ = source.uri.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise invalid(
            "source.uri", "https://, http:// with a digest, or file:///", f"{scheme[:20]}"
        )
    if scheme == "http" and source.sha256 is None:
        message = "source.sha256: http:// proves nothing about what it delivers: set the digest, or use https://"
        raise ServingError(ErrorKind.INVALID, message, field="source.sha256")
    try:
        format_of(source)
    except SourceError as error:
        raise ServingError(ErrorKind.INVALID, str(error), field="source.format") from error
