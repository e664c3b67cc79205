"""Answers of the API server that come bit by bit: watches and logs, cut into lines."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from urllib3.exceptions import HTTPError

from canarium_cli.access_errors import AccessError

_MAX_LINE: Final = 4 * 1024 * 1024
"""Bytes of one line that are kept; an object is at most 1.5 MiB."""


def event_time(event: Mapping[str, Any]) -> str:
    """Give when an Event happened last, as text that sorts."""
    meta = event.get("metadata") or {}
    return str(
        event.get("lastTimestamp") or event.get("eventTime") or meta.get("creationTimestamp") or ""
    )


def log_lines(answer: Any) -> Iterator[str]:
    """Read the lines of a log.

    Raises:
        AccessError: the connection ended in the middle.
    """
    try:
        for line in lines(answer):
            yield line.decode(errors="replace")
    except (HTTPError, OSError, ValueError) as error:
        msg = f"the log ended: {error}"
        raise AccessError(msg) from error


def lines(answer: Any) -> Iterator[bytes]:
    """Cut a stream into lines as they come."""
    rest = b""
    for chunk in answer.stream(amt=None, decode_content=True):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line)
        if len(rest) > _MAX_LINE:
            raise ValueError("a line that does not end")
    if rest:
        yield rest
