"""`BatchQueue`: which waiting requests run together, and when. No clock, no tasks, no arrays.

The caller says what happened (`offer`, `cancel`, `expire`, `finished`) and asks what to do (`next_batch`); time is an
argument and waiting is an answer. Laws, each a property test:

1. Nothing is lost, doubled or swapped: every row of an accepted item is in exactly one part, unless it was cancelled
   or expired. An item whose deadline has come is never in a batch.
2. At most `capacity` items wait; a batch has at most `max_rows` rows.
3. Items with different keys never share a batch.
4. A batch is due at once while nothing runs, so a lone request never waits, but for one case: clients that were just
   answered ask again at once, and a fuller batch pays (pacing.py). While other workers are busy, a batch that is not
   full may be held back, not at all while the rest of a split item waits, which may have come long before the first in
   line. Neither wait is longer than `max_delay_seconds` from the arrival of the first item.
5. Fair: among items of one priority, one behind k others is begun in the first k + 1 batches, and within a key they run
   in the order they came. A priority is a head start of `PRIORITY_SECONDS`, so that nothing starves.

An item with at most `max_rows` rows is never split. A larger one runs in parts of `max_rows` and goes to the back of
the line after each, so that it cannot keep small ones waiting. Example: max_rows 32, items of 20, 20 and 70 rows give
the batches [20], [20], [32 of the 70], [next 32], [last 6]; the second 20 does not fit beside the first.
"""

from bisect import insort
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from canarium_runtime.batching.pacing import Pace

PRIORITY_SECONDS = 1.0
"""An item passes those of the next lower priority that came up to so long before it."""
HIGH, NORMAL, LOW = 0, 1, 2
_SLACK = 64


@dataclass(slots=True, kw_only=True, eq=False)
class Item:
    """One request as the queue sees it; callers add what they need. What stands below `priority` is the queue's own."""

    rows: int
    """At least 1."""
    key: Hashable
    """Items with equal keys may share a batch."""
    deadline: float
    """Instant, in seconds on the caller's clock, after which nobody wants the answer."""
    priority: int = NORMAL
    """HIGH, NORMAL or LOW."""

    arrived_at: float = 0.0
    order: tuple[float, int] = (0.0, 0)
    """Place in line: when it came, by its priority, and a number that no two items share."""
    taken: int = 0
    """Rows that are in batches already."""
    waiting: bool = False


T = TypeVar("T", bound=Item)


def _order(item: Item) -> tuple[float, int]:
    return item.order


@dataclass(frozen=True, slots=True)
class QueueFull:
    """The item was refused: so many wait already."""

    capacity: int


@dataclass(frozen=True, slots=True)
class TooLate:
    """The item was refused: with what is ahead of it, it would be begun after its deadline."""

    seconds: float
    """How long it would wait."""


@dataclass(slots=True)
class Part(Generic[T]):
    """Rows `start` to `stop` of an item."""

    item: T
    start: int
    stop: int

    @property
    def is_whole(self) -> bool:
        """Whether the item was not split."""
        return self.stop - self.start == self.item.rows


@dataclass(slots=True)
class Batch(Generic[T]):
    """What to run now, in order."""

    parts: list[Part[T]]
    rows: int


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Ask again at this instant, or when a worker is done or something is offered."""

    instant: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing waits."""


_IDLE = Idle()


@dataclass(slots=True)
class _Line(Generic[T]):
    """The items of one key in their order, with those that have left since and were not met yet."""

    items: deque[T] = field(default_factory=deque)
    count: int = 0
    """Items that wait."""
    rows: int = 0
    """Rows that wait."""

    def front(self) -> T:
        """First item that waits; only of a line that has one."""
        items = self.items
        while not items[0].waiting:
            items.popleft()
        return items[0]

    def tidy(self) -> None:
        """Forget those that have left, when they outnumber the rest."""
        if len(self.items) > 2 * self.count + _SLACK:
            self.items = deque(i for i in self.items if i.waiting)


class BatchQueue(Generic[T]):
    """Items in line and the rules for taking them.

    Args:
        capacity: most items that wait.
        max_rows: most rows in a batch.
        max_delay_seconds: longest that an incomplete batch is held back.
        preferred_rows: sizes of batches that the model runs best, rising, at most `max_rows`; a batch that is taken
            has the largest of them that the rows in line fill, if any.
        workers: batches that run at the same time.
    """

    def __init__(
        self,
        *,
        capacity: int,
        max_rows: int,
        max_delay_seconds: float,
        preferred_rows: Sequence[int] = (),
        workers: int = 1,
    ) -> None:
        self.capacity = capacity
        self.max_rows = max_rows
        self.max_delay_seconds = max_delay_seconds
        self.preferred_rows = tuple(preferred_rows)
        self.pace = Pace(max_delay_seconds)
        self._workers = workers
        self._lines: dict[Hashable, _Line[T]] = {}
        """A key for which nothing waits has no line."""
        self._count = 0
        self._rows = 0
        self._numbers = 0
        self._split = 0
        """Items in line of which some rows have been taken."""

    def __len__(self) -> int:
        return self._count

    def offer(self, item: T, now: float) -> QueueFull | TooLate | None:
        """Put an item in line, or refuse it; None: it waits."""
        if self._count >= self.capacity:
            return QueueFull(self.capacity)
        if self._rows >= self.max_rows:
            wait = self.pace.seconds_for(self._rows, self.max_rows) / self._workers
            if now + wait > item.deadline:
                return TooLate(wait)
        item.arrived_at = now
        item.waiting = True
        line = self._lines.get(item.key)
        if line is None:
            line = self._lines[item.key] = _Line()
        self._enqueue(line, item, now)
        line.count += 1
        line.rows += item.rows
        self._count += 1
        self._rows += item.rows
        if now <= self.pace.ends:
            self.pace.seen += item.rows
        return None

    def cancel(self, item: T) -> bool:
        """Take an item out of the line; False: it does not wait (any more)."""
        if not item.waiting:
            return False
        line = self._lines[item.key]
        self._leave(line, item)
        left = item.rows - item.taken
        line.rows -= left
        self._rows -= left
        self._split -= item.taken > 0
        line.tidy()
        if not line.count:
            del self._lines[item.key]
        return True

    def expire(self, now: float) -> tuple[T, ...]:
        """Take out and return the items whose deadline has come, earliest first."""
        gone = [i for i in self._waiting() if i.deadline <= now]
        for item in gone:
            self.cancel(item)
        return tuple(sorted(gone, key=lambda i: i.deadline))

    def finished(self, rows: int, seconds: float, now: float) -> None:
        """Note that a batch was run and answered: what comes next is judged by it."""
        self.pace.finished(rows, seconds, now)

    def has_full_batch(self) -> bool:
        """Whether a full batch waits, which could be made ready behind those that run."""
        return self._rows >= self.max_rows and self._full_key() is not None

    def next_batch(self, now: float, busy_workers: int = 0) -> Batch[T] | WaitUntil | Idle:
        """Take the next batch for a free worker.

        Args:
            now: the instant.
            busy_workers: how many other batches are running.
        """
        while self._count:
            key, line = self._first()
            if line.rows < self.max_rows and not self._split:
                head = line.front()
                until = self._held_until(line, head, now, busy_workers)
                if until > now:
                    full = self._full_key()
                    if full is None:
                        return WaitUntil(until)
                    key, line = full, self._lines[full]
            batch = self._take(key, line, now)
            if batch.parts:
                return batch
        return _IDLE

    def _held_until(self, line: _Line[T], head: T, now: float, busy_workers: int) -> float:
        """Until when an incomplete batch is held back; the past: not at all."""
        if busy_workers:
            # No longer than half of the time that the item has, or a short deadline would pass unserved.
            patience = (head.deadline - head.arrived_at) / 2
            return head.arrived_at + min(self.max_delay_seconds, patience)
        latest = min(head.arrived_at + self.max_delay_seconds, head.deadline)
        return min(self.pace.worth_waiting_until(line.rows, self.max_rows, now), latest)

    def _first(self) -> tuple[Hashable, _Line[T]]:
        """Give the line whose first item is first of all."""
        lines = self._lines
        if len(lines) == 1:
            return next(iter(lines.items()))
        return min(lines.items(), key=lambda entry: entry[1].front().order)

    def _full_key(self) -> Hashable | None:
        return next((k for k, line in self._lines.items() if line.rows >= self.max_rows), None)

    def _room(self, rows: int) -> int:
        """How many rows the next batch may have, of so many that wait."""
        return max((p for p in self.preferred_rows if p <= rows), default=self.max_rows)

    def _take(self, key: Hashable, line: _Line[T], now: float) -> Batch[T]:
        parts: list[Part[T]] = []
        room = self._room(line.rows) if self.preferred_rows else self.max_rows
        rows = 0
        while line.count:
            item = line.front()
            if item.deadline <= now:
                self.cancel(item)
                continue
            left = item.rows - item.taken
            if left > room - rows:
                if parts:
                    break
                room = min(left, self.max_rows)  # what is preferred is no reason to split
            count = min(left, room - rows)
            start = item.taken
            parts.append(Part(item, start, start + count))
            rows += count
            line.items.popleft()
            self._split += (left > count) - (start > 0)
            item.taken = start + count
            if left > count:  # larger than a whole batch: the rest goes to the back of the line
                self._enqueue(line, item, now)
            else:
                self._leave(line, item)
            if rows >= room:
                break
        line.rows -= rows
        self._rows -= rows
        if not line.count:
            self._lines.pop(key, None)
        return Batch(parts, rows)

    def _enqueue(self, line: _Line[T], item: T, now: float) -> None:
        self._numbers += 1
        order = item.order = (now + PRIORITY_SECONDS * item.priority, self._numbers)
        items = line.items
        if not items or items[-1].order < order:
            items.append(item)
        else:
            insort(items, item, key=_order)

    def _leave(self, line: _Line[T], item: T) -> None:
        item.waiting = False
        line.count -= 1
        self._count -= 1

    def _waiting(self) -> Iterator[T]:
        return (i for line in [*self._lines.values()] for i in [*line.items] if i.waiting)
