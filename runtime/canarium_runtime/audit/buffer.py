"""Where records wait for the writer: the event loop's side of the audit log.

Bounded by number and by bytes. The two sides share counters without a lock: each is written by one side only, and a
deque takes one end each.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from canarium_api.audit_config import AuditOnFull, AuditSettings, AuditSink
from canarium_runtime.audit.counts import AuditCounts
from canarium_runtime.audit.records import Row
from canarium_runtime.errors import ErrorKind, ServingError

WAKE_RECORDS: Final = 1024
"""With so many waiting, the writer is woken before its time."""


class Buffer:
    """Rows that wait.

    Args:
        settings: bounds, and what happens at them.
        counts: where what is left out is counted.
        headroom: rows that may still come after `check` has let in the last request.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        settings: AuditSettings,
        counts: AuditCounts,
        headroom: int,
        wall: Callable[[], float],
    ) -> None:
        self.enabled = settings.audit_sink is not AuditSink.NONE
        """Whether anything is recorded; else `record` does nothing."""
        self.counts = counts
        self.problem = ""
        """Why the last attempt to write failed; "": it did not."""
        self.head = ""
        """The newest seal, hex."""
        self.rows: deque[Row] = deque()
        self.in_hand: Sequence[Row] = ()
        """What the writer is writing."""
        self.bytes_out = 0
        """Bytes of bodies and answers that were written or given up; the writer's."""
        self.wake = threading.Event()
        self.stopping = threading.Event()
        self.wall = wall
        self._bytes_in = 0
        self._refuses = settings.audit_on_full is AuditOnFull.REFUSE
        self._most = settings.audit_buffer_records if self.enabled else 0
        self._most_checked = max(1, self._most - headroom)
        self._most_bytes = settings.audit_buffer_bytes
        counts.waiting = self.waiting
        counts.oldest_at = self._oldest_at

    def check(self) -> None:
        """Refuse a request that could not be recorded, where such are to be refused. Call before it is served.

        Raises:
            ServingError: AUDIT_FULL.
        """
        if not self._refuses:
            return
        if self.enabled and (
            len(self.rows) >= self._most_checked
            or self._bytes_in - self.bytes_out >= self._most_bytes
        ):
            message = "the audit log cannot take more at the moment, and nothing is answered unrecorded: try again"
            raise ServingError(ErrorKind.AUDIT_FULL, message, retry_after_seconds=1)

    def record(
        self,
        client: str,
        request_id: str,
        status: str,
        model: str,
        body: bytes,
        output: bytes,
        seconds: float,
        is_json: bool = True,
    ) -> None:
        """Note a prediction. Never waits, never raises. Call on the event loop.

        Args:
            client: `Client.name`.
            request_id: of the request.
            status: a `PredictionStatus`.
            model: from `records.model_fragment`.
            body: what came.
            output: the encoded answer, of a failure too.
            seconds: from arrival to answer.
            is_json: whether `output` is JSON.
        """
        waiting = len(self.rows)
        size = self._bytes_in + len(body) + len(output)
        # One that is larger than the bound by itself is taken while nothing else waits.
        if waiting >= self._most or (size - self.bytes_out > self._most_bytes and waiting):
            if self.enabled:
                self.counts.dropped += 1
            return
        self._bytes_in = size
        self.rows.append(
            (self.wall(), seconds, client, request_id, status, model, body, output, is_json)
        )
        if waiting == WAKE_RECORDS:
            self.wake.set()

    def waiting(self) -> int:
        """Rows that are not written."""
        return len(self.rows) + len(self.in_hand)

    def _oldest_at(self) -> float | None:
        if hand := self.in_hand:
            return hand[0][0]
        try:
            return self.rows[0][0]
        except IndexError:
            return None
