"""`BatchQueue`: which waiting requests run together, and when. No clock, no tasks, no arrays.

The caller says what happened (`offer`, `cancel`, `expire`) and asks what to do (`next_batch`); time is an argument and
waiting is an answer. Laws, each a property test:

1. Nothing is lost, doubled or swapped: every row of an accepted item is in exactly one part, unless it was cancelled
   or expired.
2. At most `capacity` items wait; a batch has at most `max_rows` rows.
3. Items with different keys never share a batch.
4. A batch is due at once while nothing runs, so a lone request never waits. While other workers are busy, a batch that
   is not full may be held back for `max_delay_seconds` from the arrival of its first item, never longer; not at all
   while the rest of a split item waits, which may have come long before the first in line.
5. Fair: an item behind k others is begun in the first k + 1 batches. Within a key, items run in the order they came.

An item with at most `max_rows` rows is never split. A larger one runs in parts of `max_rows` and goes to the back of
the line after each, so that it cannot keep small ones waiting. Example: max_rows 32, items of 20, 20 and 70 rows give
the batches [20], [20], [32 of the 70], [next 32], [last 6]; the second 20 does not fit beside the first.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item(Generic[T]):
    """One request as the queue sees it."""

    id: int
    """Never used for another item."""
    rows: int
    """At least 1."""
    key: Hashable
    """Items with equal keys may share a batch."""
    deadline: float
    """Instant, in seconds on the caller's clock, after which nobody wants the answer."""
    payload: T
    """Not looked at."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The item waits; `position` items are ahead of it."""

    position: int


@dataclass(frozen=True, slots=True)
class QueueFull:
    """Refused: `capacity` items wait already."""

    capacity: int


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """Rows `start` to `stop` (exclusive) of an item."""

    item: Item[T]
    start: int
    stop: int
    arrived_at: float
    """When the item was offered."""

    @property
    def is_whole(self) -> bool:
        """Whether this is all of the item."""
        return self.stop - self.start == self.item.rows


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Run these parts together, in this order."""

    parts: tuple[Part[T], ...]
    rows: int


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Ask again at this instant, or when a worker is done or something is offered."""

    instant: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing waits."""


_IDLE = Idle()
_SLACK = 64


@dataclass(slots=True)
class _Waiting(Generic[T]):
    """An item in line and how many of its rows are already in batches."""

    item: Item[T]
    arrived_at: float
    taken: int = 0

    @property
    def left(self) -> int:
        return self.item.rows - self.taken


@dataclass(slots=True)
class _Line(Generic[T]):
    """The items of one key, front first."""

    items: OrderedDict[int, _Waiting[T]] = field(default_factory=OrderedDict)
    rows: int = 0


class BatchQueue(Generic[T]):
    """Items in line and the rules for taking them.

    Args:
        capacity: most items that wait.
        max_rows: most rows in a batch.
        max_delay_seconds: longest that an incomplete batch is held back while a worker is busy.
    """

    def __init__(self, *, capacity: int, max_rows: int, max_delay_seconds: float) -> None:
        self.capacity = capacity
        self.max_rows = max_rows
        self.max_delay_seconds = max_delay_seconds
        self._waiting: OrderedDict[int, _Waiting[T]] = OrderedDict()
        """The whole line, front first."""
        self._lines: dict[Hashable, _Line[T]] = {}
        """The same items by key; a key without items has no line."""
        self._deadlines: list[tuple[float, int]] = []
        """Heap of (deadline, id); entries of items that have left stay until they come up or outnumber the rest."""
        self._split = 0
        """Items in line of which some rows have been taken."""

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, item: Item[T], now: float) -> Accepted | QueueFull:
        """Put an item at the back of the line, or refuse it."""
        position = len(self._waiting)
        if position >= self.capacity:
            return QueueFull(self.capacity)
        entry = _Waiting(item, now)
        self._waiting[item.id] = entry
        line = self._lines.get(item.key)
        if line is None:
            line = self._lines[item.key] = _Line()
        line.items[item.id] = entry
        line.rows += item.rows
        if len(self._deadlines) > 2 * position + _SLACK:
            self._deadlines = [
                (e.item.deadline, i) for i, e in self._waiting.items() if i != item.id
            ]
            heapify(self._deadlines)
        heappush(self._deadlines, (item.deadline, item.id))
        return Accepted(position)

    def cancel(self, item_id: int) -> bool:
        """Take an item out of the line; False: it does not wait (any more)."""
        entry = self._waiting.pop(item_id, None)
        if entry is None:
            return False
        key = entry.item.key
        line = self._lines[key]
        del line.items[item_id]
        line.rows -= entry.left
        self._split -= entry.taken > 0
        if not line.items:
            del self._lines[key]
        return True

    def expire(self, now: float) -> tuple[Item[T], ...]:
        """Take out and return the items whose deadline has come, earliest first."""
        gone: list[Item[T]] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, item_id = heappop(self._deadlines)
            entry = self._waiting.get(item_id)
            if entry is not None:
                self.cancel(item_id)
                gone.append(entry.item)
        return tuple(gone)

    def next_deadline(self) -> float | None:
        """Earliest deadline of a waiting item; None: nothing waits."""
        while self._deadlines and self._deadlines[0][1] not in self._waiting:
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def next_batch(self, now: float, busy_workers: int = 0) -> Batch[T] | WaitUntil | Idle:
        """Take the next batch for a free worker.

        Args:
            now: the instant.
            busy_workers: how many other batches are running.
        """
        if not self._waiting:
            return _IDLE
        head = next(iter(self._waiting.values()))
        key = head.item.key
        if busy_workers and not self._split and self._lines[key].rows < self.max_rows:
            # Held back no longer than half of the time that the item has, or a short deadline would pass unserved.
            patience = min(self.max_delay_seconds, (head.item.deadline - head.arrived_at) / 2)
            due = head.arrived_at + patience
            if now < due:
                full = next(
                    (k for k, line in self._lines.items() if line.rows >= self.max_rows), None
                )
                if full is None:
                    return WaitUntil(due)
                key = full
        return self._take(key)

    def _take(self, key: Hashable) -> Batch[T]:
        line = self._lines[key]
        parts: list[Part[T]] = []
        room = self.max_rows
        while line.items and room:
            item_id, entry = next(iter(line.items.items()))
            if parts and entry.left > room:
                break
            count = min(entry.left, room)
            parts.append(Part(entry.item, entry.taken, entry.taken + count, entry.arrived_at))
            self._split += (entry.left > count) - (entry.taken > 0)
            entry.taken += count
            room -= count
            if entry.left:  # larger than a whole batch: the rest goes to the back of the line
                line.items.move_to_end(item_id)
                self._waiting.move_to_end(item_id)
            else:
                del line.items[item_id]
                del self._waiting[item_id]
        line.rows -= self.max_rows - room
        if not line.items:
            del self._lines[key]
        return Batch(tuple(parts), self.max_rows - room)
