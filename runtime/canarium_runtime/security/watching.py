"""Files that are read again when they change. A mounted Secret changes by swapping a symlink, so contents are told
apart by what the path leads to: inode, size and time.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)
POLL_SECONDS: Final = 2.0

Signature = tuple[tuple[str, int, int, int], ...]


class ReloadError(Exception):
    """What a file holds cannot be used; the message names file, place and remedy, and nothing secret."""


def files_of(path: Path) -> list[Path]:
    """List the files that a path means: itself, or all files of a folder but hidden ones."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.iterdir() if not p.name.startswith(".") and p.is_file())


def signature(paths: list[Path]) -> Signature:
    """Tell contents apart; a file that is not there has a signature of its own."""
    found = []
    for path in (file for given in paths for file in _listed(given)):
        try:
            stat = os.stat(path)
        except OSError:
            found.append((str(path), -1, -1, -1))
        else:
            found.append((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def _listed(path: Path) -> list[Path]:
    try:
        return files_of(path)
    except OSError:
        return [path]


class Watch:
    """Reads files at first, and again when they change; what is broken leaves what was.

    Args:
        name: for logs and /health, such as `api keys`.
        paths: files and folders.
        load: reads them and puts what they hold into force; raises ReloadError or OSError.
    """

    def __init__(self, name: str, paths: list[Path], load: Callable[[], None]) -> None:
        self.name = name
        self.problem = ""
        """Why the files as they are now are not in force; "": they are."""
        self._paths = paths
        self._load = load
        self._seen: Signature | None = None

    def check(self) -> bool:
        """Look whether the files have changed, and read them then; says whether they were read.

        A broken file is tried again at each look: a pair of files may have been caught between the two.
        """
        now = signature(self._paths)
        if now == self._seen and not self.problem:
            return False
        first = self._seen is None
        changed = now != self._seen
        self._seen = now
        try:
            self._load()
        except (ReloadError, OSError) as error:
            text = (
                str(error)
                if isinstance(error, ReloadError)
                else f"{error.strerror}: {error.filename}"
            )
            if changed or text != self.problem:
                _log.error("%s: not read, what was in force stays: %s", self.name, text)
            self.problem = text
            return False
        self.problem = ""
        if not first:
            _log.info("%s: read again", self.name)
        return True

    async def run(self, seconds: float = POLL_SECONDS) -> None:
        """Look every so many seconds until cancelled; in a thread, as files may be large and disks slow."""
        while True:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.check)
