"""One download for all processes of a server.

Whoever comes first takes a lock beside the target and downloads; the others wait, and then read what is there. A file
that is there counts only if a process of this very server fetched it (a note beside it says so): with a URI whose
content changes, a process that is started again must not serve another model than its siblings.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VARIABLE: Final = "CANARIUM_SERVER_RUN"
"""Environment variable by which a parent tells its processes that they belong together; empty: one process."""
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file that was fetched by a process of this server."""

    sha256: str
    size_bytes: int


@contextmanager
def turn(target: Path, wait: Callable[[float], None]) -> Iterator[None]:
    """Hold the lock of a target; the operating system takes it from a process that dies.

    Args:
        target: the file that is to be made.
        wait: waits so many seconds, and raises when the server stops.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                wait(_POLL_SECONDS)
        yield


def note(target: Path, fetched: Fetched) -> None:
    """Note that this server fetched the target."""
    entry = {"run": run(), "sha256": fetched.sha256, "size_bytes": fetched.size_bytes}
    _note_of(target).write_text(json.dumps(entry))


def find(target: Path) -> Fetched | None:
    """Give what another process of this server fetched; None: nothing, or the file is not that any more."""
    try:
        entry = json.loads(_note_of(target).read_text())
        if entry["run"] != run():
            return None
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, KeyError):
        return None
    return (
        Fetched(sha256=digest, size_bytes=entry["size_bytes"])
        if digest == entry["sha256"]
        else None
    )


def run() -> str:
    """Which server this process belongs to; empty: it is the only process of its server."""
    return os.environ.get(VARIABLE, "")


def _note_of(target: Path) -> Path:
    return target.with_suffix(".fetched")
