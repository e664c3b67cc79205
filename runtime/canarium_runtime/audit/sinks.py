"""Where an audit log goes. A sink takes whole blocks, or raises SinkError and has taken nothing of it."""

import contextlib
import fcntl
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from canarium_api.audit_config import AuditFsync
from canarium_runtime.audit import chain

_CHUNK: Final = 1024 * 1024
_MOST_UNSEALED: Final = 64 * 1024 * 1024
"""Bytes from the end of a file in which its last seal must be."""


class SinkError(Exception):
    """A block was not written; the message says why. It is to be tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where a log ended that is to go on."""

    chain: str
    """Its name; "": it has none yet."""
    block: int
    head: bytes
    number: int
    unsealed: bytes = b""
    """What stands behind the last seal, as a crash came between."""

    @property
    def is_torn(self) -> bool:
        """Whether the last line has no end."""
        return bool(self.unsealed) and not self.unsealed.endswith(b"\n")


class Sink(Protocol):
    """Takes blocks, in their order. Used by one thread."""

    @property
    def key_per_start(self) -> bool:
        """Whether each start of the server begins a chain of its own, as the sink cannot be read back."""

    def open(self) -> End | None:
        """Be ready to write; gives where the log ended, or None where there is none.

        Raises:
            SinkError: it cannot be used.
        """

    def write(self, block: bytes) -> None:
        """Write one block, whole or not at all.

        Raises:
            SinkError: not at all.
        """

    def is_full(self) -> bool:
        """Whether a new file should be begun; then `rotate` is called."""

    def rotate(self) -> None:
        """Begin a new file."""

    def close(self) -> None:
        """Part."""


class StdoutSink:
    """Standard output, among the logs."""

    key_per_start = True

    def open(self) -> End | None:
        """Nothing can be read back."""
        return None

    def write(self, block: bytes) -> None:
        """Write a block between two lines of the logs."""
        try:
            # The logs' handler writes through the same object, whose lock keeps lines whole.
            sys.stdout.write(block.decode("utf-8", "backslashreplace"))
            sys.stdout.flush()
        except (OSError, ValueError) as error:
            msg = f"standard output: {error}"
            raise SinkError(msg) from error

    def is_full(self) -> bool:
        """Never."""
        return False

    def rotate(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class FileSink:
    """A file that is begun anew when it is large: `audit.jsonl`, and full ones as `audit.jsonl.000001` and so on.

    Args:
        path: the current file; `{host}` is replaced by this machine's name.
        max_bytes: size from which on it is full.
        keep: full files that are kept; 0: all.
        fsync: when to force it to the disk.
        clock: seconds, monotonic.
    """

    key_per_start = False

    def __init__(
        self,
        path: str,
        max_bytes: int,
        keep: int = 0,
        fsync: AuditFsync = AuditFsync.EVERY_SECOND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path.replace("{host}", socket.gethostname()))
        self._max_bytes = max_bytes
        self._keep = keep
        self._fsync = fsync
        self._clock = clock
        self._synced_at = -1.0
        self._fd = -1
        self._size = 0

    def open(self) -> End | None:
        """Open the file for this process alone, and look for the end of what is there."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
            end = self._find_end()
            if end is not None and end.is_torn:
                os.write(self._fd, b"\n")
                self._size += 1
        except OSError as error:
            raise _failed(self.path, error) from error
        return end

    def write(self, block: bytes) -> None:
        """Append a block; of one that does not fit, nothing stays."""
        try:
            if self._is_gone():
                self._open()
            try:
                rest = memoryview(block)
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
                self._sync()
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self._size)
                raise
            self._size += len(block)
        except OSError as error:
            raise _failed(self.path, error) from error

    def is_full(self) -> bool:
        """Whether it has its size."""
        return self._size >= self._max_bytes

    def rotate(self) -> None:
        """Put the full file aside and begin a new one."""
        full = self._full_files()
        last = int(full[-1].name.rpartition(".")[2]) if full else 0
        try:
            os.fsync(self._fd)
            self.path.rename(self.path.with_name(f"{self.path.name}.{last + 1:06d}"))
            self._open()
            if self._keep:
                for old in self._full_files()[: -self._keep]:
                    old.unlink()
        except OSError as error:
            raise _failed(self.path, error) from error

    def close(self) -> None:
        """Force it to the disk."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _find_end(self) -> End | None:
        """Find the end of the log: in this file, or in the last full one where a crash came right after a rotation."""
        if (end := end_of(self._fd)) is not None:
            return end
        here = os.pread(self._fd, _MOST_UNSEALED, 0)
        if full := self._full_files():
            with full[-1].open("rb") as file:
                end = end_of(file.fileno())
        if end is not None:
            return replace(end, unsealed=end.unsealed + here)
        return End(chain="", block=0, head=chain.GENESIS, number=0, unsealed=here) if here else None

    def _open(self) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            msg = f"{self.path}: another process writes it; give each server a file of its own ({{host}})"
            raise SinkError(msg) from error
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._size = os.fstat(fd).st_size

    def _is_gone(self) -> bool:
        """Whether somebody has moved or deleted the file."""
        try:
            return os.stat(self.path).st_ino != os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return True

    def _sync(self) -> None:
        now = self._clock()
        due = now - self._synced_at >= 1.0
        if self._fsync is AuditFsync.ALWAYS or (self._fsync is AuditFsync.EVERY_SECOND and due):
            os.fdatasync(self._fd)
            self._synced_at = now

    def _full_files(self) -> list[Path]:
        pattern = re.compile(re.escape(self.path.name) + r"\.\d{6,}")
        files = [p for p in self.path.parent.iterdir() if pattern.fullmatch(p.name)]
        return sorted(files, key=lambda p: int(p.name.rpartition(".")[2]))


def end_of(fd: int) -> End | None:
    """Find the last seal of a file, from its end; None where it has none."""
    at = os.fstat(fd).st_size
    tail = b""
    while at > 0 and len(tail) < _MOST_UNSEALED:
        start = max(0, at - _CHUNK)
        tail = os.pread(fd, at - start, start) + tail
        at = start
        before = len(tail)
        while (place := tail.rfind(chain.MARK, 0, before)) >= 0:
            line, newline, rest = tail[place:].partition(b"\n")
            begins = tail[place - 1] == ord(b"\n") if place > 0 else at == 0
            if begins and (seal := chain.parse(line + newline)) is not None:
                return End(
                    chain=seal["chain"].decode(),
                    block=int(seal["block"]),
                    head=bytes.fromhex(seal["seal"].decode()),
                    number=int(seal["last"]),
                    unsealed=rest,
                )
            before = place
    return None


def _failed(path: Path, error: OSError) -> SinkError:
    return SinkError(f"{path}: {error.strerror or error}")
