"""Answers of two sides to pairs of the same request.

Rules: an answer waits for the other side's under the same id, for one window. An id that comes twice on one side, or
with two bodies, is ambiguous: whatever came under it is not compared, for what would be compared might be answers to
two requests. An id stays known for a window after its pair was made, so that a repetition is seen.

Everything is bounded by count and by bytes; the oldest leave first. No IO and no clock: `now` comes in, and never goes
back.
"""

from collections import Counter
from dataclasses import dataclass

from canarium_api.metric_names import ShadowSide, ShadowUnpaired
from canarium_runtime.shadow.records import Answer

MAX_IDS = 50_000
"""Most ids that are remembered."""
MAX_BYTES = 64 * 1024 * 1024
"""Most bytes of answers that wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two answers to one request."""

    stable: Answer
    shadow: Answer


@dataclass(slots=True)
class _Entry:
    ends: float
    side: ShadowSide
    answer: Answer | None
    """None: the id is spent."""


class Pairing:
    """See the module.

    Args:
        window_seconds: how long an answer waits.
        max_ids: most ids that are remembered.
        max_bytes: most bytes of answers that wait.
    """

    def __init__(
        self, window_seconds: float, *, max_ids: int = MAX_IDS, max_bytes: int = MAX_BYTES
    ) -> None:
        self.unpaired: Counter[tuple[ShadowSide, ShadowUnpaired]] = Counter()
        """Answers that are not compared, since the beginning."""
        self._window = window_seconds
        self._max_ids = max_ids
        self._max_bytes = max_bytes
        # In the order in which they end: `now` never goes back, and the window is the same for all.
        self._entries: dict[str, _Entry] = {}
        self._bytes = 0

    @property
    def ids(self) -> int:
        """Ids that are remembered."""
        return len(self._entries)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the answers that wait."""
        return self._bytes

    def offer(self, side: ShadowSide, answer: Answer, now: float) -> Pair | None:
        """Take one answer; gives the pair that it completes."""
        self.expire(now)
        entry = self._entries.pop(answer.id, None)
        if entry is None:
            self._keep(answer.id, _Entry(now + self._window, side, answer))
            return None
        other = self._take(entry)
        self._keep(answer.id, _Entry(now + self._window, side, None))
        if other is None:
            self._count(side, ShadowUnpaired.AMBIGUOUS)
            return None
        if entry.side is side or _bodies_differ(answer, other):
            self._count(side, ShadowUnpaired.AMBIGUOUS)
            self._count(entry.side, ShadowUnpaired.AMBIGUOUS)
            return None
        if side is ShadowSide.STABLE:
            return Pair(stable=answer, shadow=other)
        return Pair(stable=other, shadow=answer)

    def expire(self, now: float) -> None:
        """Forget what is older than a window."""
        while self._entries:
            oldest = next(iter(self._entries))
            if self._entries[oldest].ends > now:
                return
            self._drop(oldest, ShadowUnpaired.EXPIRED)

    def _keep(self, request_id: str, entry: _Entry) -> None:
        self._entries[request_id] = entry
        if entry.answer is not None:
            self._bytes += entry.answer.size_bytes
        while len(self._entries) > self._max_ids or self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)), ShadowUnpaired.EVICTED)

    def _drop(self, request_id: str, reason: ShadowUnpaired) -> None:
        entry = self._entries.pop(request_id)
        if self._take(entry) is not None:
            self._count(entry.side, reason)

    def _take(self, entry: _Entry) -> Answer | None:
        if entry.answer is not None:
            self._bytes -= entry.answer.size_bytes
        return entry.answer

    def _count(self, side: ShadowSide, reason: ShadowUnpaired) -> None:
        self.unpaired[side, reason] += 1


def _bodies_differ(one: Answer, other: Answer) -> bool:
    """Whether the requests cannot have been the same. A body that was not read says nothing."""
    return one.body is not None and other.body is not None and one.body != other.body
