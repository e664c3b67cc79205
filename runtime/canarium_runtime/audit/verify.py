"""Reads an audit log and finds what was done to it. No secrets are needed, but for a chain with a key its key.

What it finds: any byte changed, removed, added or moved. What it cannot find by itself: that the end was cut off behind
a seal; for that, somebody must have kept a later seal (`head`) elsewhere, which the log must then hold. A log whose
beginning is elsewhere is checked from the seal that it follows (`after`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from canarium_runtime.audit import chain

MAX_BLOCK_BYTES: Final = 64 * 1024 * 1024
"""A block that is larger is none of ours."""
_START: Final = b'{"audit":"start"'
_OURS: Final = b'{"audit":"'


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}"


class BrokenError(Exception):
    """The log is not as it was written; the message names the first place and says in what way."""


@dataclass(slots=True)
class Report:
    """What a log without fault holds."""

    records: int = 0
    blocks: int = 0
    dropped: int = 0
    """Records that the server itself left out, as its buffer was full."""
    chains: int = 0
    head: str = ""
    notices: list[str] = field(default_factory=list)
    """What an auditor should know, though nothing was tampered with."""


@dataclass(slots=True)
class _State:
    """How far a chain was followed."""

    name: str
    head: bytes
    block: int
    number: int


def verify_files(
    paths: Iterable[Path],
    *,
    key: bytes = b"",
    head: str = "",
    after: str = "",
    among_logs: bool = False,
) -> Report:
    """Check files, in the order in which they were written.

    Args:
        paths: oldest first.
        key: of the chain; empty: it has none.
        head: a seal that was kept elsewhere, hex: the log must hold it; "": none was.
        after: seal that the first file follows, hex; "": the log must begin in it.
        among_logs: pass over lines that are no audit lines, and take several chains, each from its beginning.

    Raises:
        BrokenError: the log is broken.
        OSError: a file cannot be read.
    """
    return verify(_lines(paths), key=key, head=head, after=after, among_logs=among_logs)


def verify(
    lines: Iterable[tuple[Place, bytes]],
    *,
    key: bytes = b"",
    head: str = "",
    after: str = "",
    among_logs: bool = False,
) -> Report:
    """As `verify_files`, of lines with their line ends."""
    checker = _Checker(key, head, after, among_logs=among_logs)
    for place, line in lines:
        if among_logs and not line.startswith(_OURS):
            continue
        checker.take(place, line)
    return checker.finish()


class _Checker:
    def __init__(self, key: bytes, head: str, after: str, *, among_logs: bool) -> None:
        self._key = key
        self._missing = head
        self._after = bytes.fromhex(after) if after else b""
        self._many = among_logs
        self._report = Report()
        self._states: dict[str, _State] = {}
        self._block: list[bytes] = []
        self._begins: Place | None = None
        self._odd: Place | None = None
        self._size = 0
        self._last: _State | None = None

    def take(self, place: Place, line: bytes) -> None:
        """Take the next line."""
        self._begins = self._begins or place
        seal = chain.parse(line) if line.startswith(chain.MARK) else None
        if seal is None:
            if line.startswith(chain.MARK):
                # Changed, or torn by a crash; the seal behind it tells.
                self._odd = self._odd or place
            self._size += len(line)
            if self._size > MAX_BLOCK_BYTES:
                msg = f"{place}: no seal within {MAX_BLOCK_BYTES >> 20} MiB"
                raise BrokenError(msg)
            self._block.append(line)
            return
        try:
            self._sealed(place, seal, self._block)
        except BrokenError as error:
            raise self._rather_odd() or error from None
        self._block = []
        self._begins = self._odd = None
        self._size = 0

    def finish(self) -> Report:
        """Look at the end."""
        if self._block:
            if odd := self._rather_odd():
                raise odd
            msg = (
                f"{self._begins}: {len(self._block)} lines at the end have no seal: they were added, or their seal was "
                "removed, or the server crashed while it wrote them"
            )
            raise BrokenError(msg)
        report = self._report
        if self._last is None:
            msg = "there is no audit log in it"
            raise BrokenError(msg)
        report.head = self._last.head.hex()
        if self._missing:
            msg = (
                f"the log ends with block {self._last.block} and does not hold the seal {self._missing[:16]}... that "
                "was kept: its end is missing, or the whole was written anew"
            )
            raise BrokenError(msg)
        report.chains = len(self._states)
        return report

    def _rather_odd(self) -> BrokenError | None:
        """Blame a sealing line that is none, where there was one: what follows from it says less."""
        if self._odd is None:
            return None
        return BrokenError(f"{self._odd}: the sealing line is not as it was written")

    def _sealed(self, place: Place, seal: Any, lines: list[bytes]) -> None:
        name = seal["chain"].decode()
        state = self._states.get(name) or self._begun(place, seal, name)
        if int(seal["block"]) != state.block + 1:
            msg = (
                f"{self._begins}: block {state.block + 1} should begin here, and block {seal['block'].decode()} does: "
                "blocks were removed, added or moved"
            )
            raise BrokenError(msg)
        counted = self._matching(place, seal, state, lines)
        records = sum(1 for line in counted if not line.startswith(_START))
        if int(seal["first"]) != state.number + 1 or int(seal["last"]) != state.number + records:
            msg = f"{place}: the block does not go on from record {state.number}"
            raise BrokenError(msg)
        state.block += 1
        state.number += records
        wanted = seal["seal"].decode()
        state.head = bytes.fromhex(wanted)
        self._last = state
        if self._missing == wanted:
            self._missing = ""
        self._report.blocks += 1
        self._report.records += records
        self._report.dropped += int(seal["dropped"])

    def _begun(self, place: Place, seal: Any, name: str) -> _State:
        """Begin with a chain: at its first block, or after the seal that is known."""
        block, first = int(seal["block"]), int(seal["first"])
        if self._states and not self._many:
            msg = (
                f"{self._begins}: another log begins here ({name}); where several servers write one stream, use "
                "--among-logs"
            )
            raise BrokenError(msg)
        if block == 1:
            state = _State(name, chain.GENESIS, 0, 0)
        elif self._after:
            state = _State(name, self._after, block - 1, first - 1)
            self._report.notices.append(
                f"checked from block {block} on: blocks 1 to {block - 1} are elsewhere"
            )
        else:
            msg = (
                f"{place}: the log begins with block {block}: blocks 1 to {block - 1} are missing; if they are in "
                "files that are kept elsewhere, give those too, or their last seal by --after"
            )
            raise BrokenError(msg)
        self._states[name] = state
        return state

    def _matching(self, place: Place, seal: Any, state: _State, lines: list[bytes]) -> list[bytes]:
        """Give the lines that the seal is for: all, or those behind what a crash has left without a seal."""
        wanted = seal["seal"].decode()
        for skipped in (0, *(_left_by_crash(lines))):
            counted = lines[skipped:]
            found = chain.new_hash(self._key, state.head)
            found.update(b"".join(counted))
            found.update(seal["head"])
            if found.digest().hex() == wanted:
                if skipped:
                    self._report.notices.append(
                        f"{self._begins}: {skipped} lines have no seal of their own, as the server crashed while it "
                        "wrote them; they prove nothing"
                    )
                return counted
        msg = (
            f"{self._begins}: block {state.block + 1} (to line {place.line}) is not as it was written: a line of it "
            "was changed, removed, added or moved"
        )
        if not self._key and any(b'"keyed":true' in line for line in lines[:1]):
            msg += "; or give the key of the chain (--key-file)"
        raise BrokenError(msg)


def _left_by_crash(lines: list[bytes]) -> Iterator[int]:
    """Find how many lines at the start of a block the start line behind them declares as left by a crash."""
    for index, line in enumerate(lines):
        if not index or not line.startswith(_START):
            continue
        try:
            left = json.loads(line).get("unsealed")
            declared = (left["lines"], left["sha256"])
        except (ValueError, TypeError, KeyError):
            continue
        if declared == (index, hashlib.sha256(b"".join(lines[:index])).hexdigest()):
            yield index


def _lines(paths: Iterable[Path]) -> Iterator[tuple[Place, bytes]]:
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield Place(str(path), number), line
