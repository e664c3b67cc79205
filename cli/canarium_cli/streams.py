"""Answers of the API server that come bit by bit: watches and logs, cut into lines."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from urllib3.exceptions import HTTPError

from canarium_cli.access_errors import AccessError

READING: Final = "canarium-reading"
"""Name of the threads that read."""
_JOIN_SECONDS: Final = 3.0
"""How long a thread may take to end once its reads are ended."""
_MAX_LINE: Final = 4 * 1024 * 1024
"""Bytes of one line that are kept; an object is at most 1.5 MiB."""


class Open:
    """Answers that threads read, so that another thread can end them.

    A thread that sits in a read when the program ends makes the interpreter abort: who started threads ends and joins
    them.
    """

    def __init__(self) -> None:
        self._answers: set[Any] = set()
        self._threads: list[threading.Thread] = []
        self.ended = threading.Event()

    def start(self, job: Callable[[], None]) -> None:
        """Run a job in a thread that `end` waits for."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=job, name=READING, daemon=True)
        self._threads.append(thread)
        thread.start()

    def add(self, answer: Any) -> None:
        """Take an answer in; when all is ended already, it ends at once."""
        self._answers.add(answer)
        if self.ended.is_set():
            _shut(answer)

    def remove(self, answer: Any) -> None:
        """Let go of an answer that was read."""
        self._answers.discard(answer)

    def end(self) -> None:
        """End all reads, and wait for their threads, a few seconds at most."""
        self.ended.set()
        for answer in list(self._answers):
            _shut(answer)
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)


def _shut(answer: Any) -> None:
    with contextlib.suppress(ValueError, RuntimeError, OSError):  # it has ended by itself
        answer.shutdown()


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
