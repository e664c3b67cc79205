"""A bounded cache of things that are expensive to make, keyed by what they are made from.

An entry is a folder that appears in one step when it is complete, so an interrupted build leaves
nothing that looks finished. Of each kind only the latest entries are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from canarium_devcluster import cluster

KEEP = 2  # of each kind: the current one and the one before, for switching branches
UNUSED_SECONDS = 60 * 24 * 3600
_KEY_CHARACTERS = 16


class Cache:
    """Folders named KIND/KEY below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, kind: str, key: str) -> Path | None:
        """A complete entry, marked as used just now, or None."""
        path = self.root / kind / key
        if not path.is_dir():
            return None
        os.utime(path)
        return path

    def get_or_make(self, kind: str, key: str, fill: Callable[[Path], None]) -> Path:
        """The entry; ``fill`` is called with an empty folder when there is none."""
        (self.root / kind).mkdir(parents=True, exist_ok=True)
        with cluster.locked(self.root / kind / ".lock", patience_seconds=3600):
            found = self.get(kind, key)
            if found is not None:
                return found
            temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=self.root / kind))
            try:
                fill(temporary)
                temporary.chmod(0o755)
                temporary.rename(self.root / kind / key)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            self._prune(kind)
            self._forget_unused()
            return self.root / kind / key

    def _prune(self, kind: str) -> None:
        entries = sorted((self.root / kind).iterdir(), key=lambda p: p.stat().st_mtime)
        complete = [p for p in entries if not p.name.startswith(".")]
        abandoned = [p for p in entries if p.name.startswith(".new-")]
        for path in [*complete[:-KEEP], *abandoned]:
            shutil.rmtree(path, ignore_errors=True)

    def _forget_unused(self) -> None:
        """Kinds that nobody makes any more would stay for ever otherwise."""
        oldest = time.time() - UNUSED_SECONDS
        for path in self.root.glob("*/[!.]*"):
            if path.is_dir() and path.stat().st_mtime < oldest:
                shutil.rmtree(path, ignore_errors=True)

    def last_seconds(self, what: str) -> float | None:
        """How long ``what`` took last time."""
        return self._durations().get(what)

    def remember_seconds(self, what: str, seconds: float) -> None:
        """Keep the duration for the next time's announcement."""
        self.root.mkdir(parents=True, exist_ok=True)
        cluster.write_json(self._file, {**self._durations(), what: round(seconds, 1)})

    @property
    def _file(self) -> Path:
        return self.root / "durations.json"

    def _durations(self) -> dict[str, float]:
        try:
            return dict(json.loads(self._file.read_text()))
        except (OSError, ValueError):
            return {}


def key_of(parts: Iterable[str | bytes]) -> str:
    """A key from strings; lengths keep ("ab", "c") and ("a", "bc") apart."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:_KEY_CHARACTERS]


def tree_parts(roots: Iterable[Path], base: Path, ignore: tuple[str, ...] = ()) -> list[bytes]:
    """Relative names and contents of all files below ``roots``: never times, never absolute paths."""
    parts = []
    for root in roots:
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
        for file in files:
            name = file.relative_to(base).as_posix()
            if "__pycache__" in file.parts or name.endswith(ignore or ("\0",)):
                continue
            parts += [name.encode(), file.read_bytes()]
    return parts
