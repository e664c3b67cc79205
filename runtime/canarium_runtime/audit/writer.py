"""The audit log's thread: formats, seals and writes what has come, a block at a time, and tries again what failed."""

import hashlib
import logging
import time
from collections.abc import Sequence
from secrets import token_hex
from typing import Any, Final

from canarium_api.audit_config import AuditOutputs, AuditSettings
from canarium_runtime.audit import chain
from canarium_runtime.audit.buffer import Buffer
from canarium_runtime.audit.records import Recorder, Row, instant, start_line
from canarium_runtime.audit.sinks import End, Sink, SinkError

_log = logging.getLogger(__name__)
BLOCK_RECORDS: Final = 512
BLOCK_BYTES: Final = 768 * 1024
"""A block takes no more records from there on."""
_SLICE: Final = 64
"""Records that are formatted before the interpreter is let go: about a tenth of a millisecond."""
_RETRY_SECONDS: Final = 1.0
HEAD_SECONDS: Final = 600.0
"""How often the newest seal is told to the ordinary log, which is kept elsewhere."""


class Writer:
    """The thread's side.

    Args:
        buffer: what is written.
        settings: what is recorded.
        sink: where to.
        key: of the chain; empty: none.
        end: where the log ended; None: it begins.
    """

    def __init__(
        self, buffer: Buffer, settings: AuditSettings, sink: Sink, key: bytes, end: End | None
    ) -> None:
        self._buffer = buffer
        self._sink = sink
        self._interval = settings.audit_flush_interval.total_seconds()
        whole = settings.audit_outputs is AuditOutputs.WHOLE
        self._most_written = settings.audit_max_output_bytes + 1 if whole else 0
        self._bytes = 0
        self._recorder = Recorder(settings.audit_outputs, settings.audit_max_output_bytes)
        self._keyed = bool(key)
        if end is None:
            self._chain = chain.Chain(token_hex(8), key)
        else:
            self._chain = chain.Chain(
                end.chain or token_hex(8), key, block=end.block, head=end.head, number=end.number
            )
        self._dropped = 0
        self._told_at = -HEAD_SECONDS
        self._told = ""
        self._unsealed = end.unsealed if end is not None else b""

    def run(self) -> None:
        """Write until told to stop, and then what is left."""
        buffer = self._buffer
        if not self._deliver(self._start()):
            return
        while True:
            buffer.wake.wait(self._interval)
            buffer.wake.clear()
            stopping = buffer.stopping.is_set()
            while buffer.rows:
                if not self._write_some():
                    return
            self._tell(final=stopping)
            if stopping:
                self._sink.close()
                return

    def _write_some(self) -> bool:
        """Write the next block; False: the end came first."""
        buffer = self._buffer
        rows = buffer.in_hand = self._next()
        if not self._deliver(self._block(rows)):
            return False
        buffer.bytes_out += self._bytes
        buffer.counts.written += len(rows)
        buffer.in_hand = ()
        if self._sink.is_full():
            self._rotate()
        return True

    def _next(self) -> list[Row]:
        """Take what one block holds."""
        waiting = self._buffer.rows
        most_output = self._most_written
        size = taken = 0
        rows: list[Row] = []
        while waiting and len(rows) < BLOCK_RECORDS and size < BLOCK_BYTES:
            row = waiting.popleft()
            rows.append(row)
            output = len(row[7])
            taken += len(row[6]) + output
            size += 512 + (output if output < most_output else 64)
        self._bytes = taken
        return rows

    def _block(self, rows: Sequence[Row]) -> bytes:
        """Make the block of these records."""
        slices = []
        number = self._chain.number + 1
        for start in range(0, len(rows), _SLICE):
            lines = self._recorder.lines(rows[start : start + _SLICE], number + start)
            # Hashing lets go of the interpreter, so requests wait for one slice at most.
            self._chain.add(lines)
            slices.append(lines)
        return b"".join((*slices, self._seal(len(rows))))

    def _seal(self, records: int) -> bytes:
        dropped, before = self._buffer.counts.dropped, self._dropped
        self._dropped = dropped
        return self._chain.seal(records, dropped - before, instant(self._buffer.wall()))

    def _start(self) -> bytes:
        """Make the block with which a server or a file begins."""
        facts: dict[str, Any] = {
            "block": self._chain.block + 1,
            "previous": self._chain.head.hex(),
            "keyed": self._keyed,
        }
        if self._unsealed:
            facts["unsealed"] = unsealed_facts(self._unsealed)
            self._unsealed = b""
        line = start_line(self._buffer.wall(), self._chain.name, **facts)
        self._chain.add(line)
        return line + self._seal(0)

    def _rotate(self) -> None:
        self._tell(final=True)
        try:
            self._sink.rotate()
        except SinkError as error:
            self._failed(error)
            return
        self._deliver(self._start())

    def _deliver(self, block: bytes) -> bool:
        """Write a block, as often as it takes; False: told to stop, and it still could not be written."""
        buffer = self._buffer
        while True:
            try:
                self._sink.write(block)
            except SinkError as error:
                self._failed(error)
                if buffer.stopping.wait(_RETRY_SECONDS):
                    return False
                continue
            if buffer.problem:
                buffer.problem = ""
                _log.info("the audit log is written again")
            buffer.head = self._chain.head.hex()
            return True

    def _failed(self, error: SinkError) -> None:
        buffer = self._buffer
        buffer.counts.failures += 1
        if str(error) != buffer.problem:
            _log.error("the audit log cannot be written: %s", error)
        buffer.problem = str(error)

    def _tell(self, *, final: bool) -> None:
        """Tell the newest seal to the ordinary log, now and then and at the end: an end that is cut off shows by it."""
        now = time.monotonic()
        head = self._buffer.head
        if head == self._told or (not final and now - self._told_at < HEAD_SECONDS):
            return
        self._told, self._told_at = head, now
        extra = {"chain": self._chain.name, "block": self._chain.block, "head": head}
        _log.info("audit head", extra=extra)


def unsealed_facts(unsealed: bytes) -> dict[str, Any]:
    """Describe lines without a seal, so that from now on they are fixed, too."""
    whole = unsealed if unsealed.endswith(b"\n") else unsealed + b"\n"
    return {"lines": whole.count(b"\n"), "sha256": hashlib.sha256(whole).hexdigest()}
