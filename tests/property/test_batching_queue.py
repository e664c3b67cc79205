"""Laws of `BatchQueue`, for any sequence of offers, batches, cancellations and expiries."""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from canarium_runtime.batching.pacing import Pace
from canarium_runtime.batching.policy import (
    HIGH,
    LOW,
    NORMAL,
    PRIORITY_SECONDS,
    Batch,
    BatchQueue,
    Idle,
    Item,
    QueueFull,
    TooLate,
    WaitUntil,
)

CAPACITY = 6
MAX_ROWS = 8
MAX_DELAY = 10.0


@dataclass(slots=True, kw_only=True, eq=False)
class Named(Item):
    """An item and its number."""

    id: int


def make_queue(preferred: Sequence[int] = ()) -> BatchQueue[Named]:
    return BatchQueue(
        capacity=CAPACITY,
        max_rows=MAX_ROWS,
        max_delay_seconds=MAX_DELAY,
        preferred_rows=preferred,
    )


def item(number: int, rows: int, key: str, deadline: float, priority: int = NORMAL) -> Named:
    return Named(id=number, rows=rows, key=key, deadline=deadline, priority=priority)


class QueueMachine(RuleBasedStateMachine):
    """Drives a queue and keeps the books beside it."""

    items = Bundle("items")

    def __init__(self) -> None:
        super().__init__()
        self.queue = make_queue()
        self.now = 0.0
        self.next_id = 0
        self.offered: dict[int, Named] = {}
        self.waiting: dict[int, Named] = {}
        self.arrived: dict[int, float] = {}
        self.rows_given: dict[int, list[int]] = {}
        self.batches_allowed: dict[int, int] = {}
        self.begun_by_key: dict[str, list[int]] = {}

    @rule(
        target=items,
        rows=st.integers(1, MAX_ROWS) | st.integers(MAX_ROWS, 3 * MAX_ROWS),
        key=st.sampled_from("ab"),
        patience=st.floats(0.1, 50, allow_nan=False),
    )
    def offer(self, rows: int, key: str, patience: float) -> int:
        """An item is taken unless as many wait as may."""
        item_id, self.next_id = self.next_id, self.next_id + 1
        one = self.offered[item_id] = item(item_id, rows, key, self.now + patience)
        answer = self.queue.offer(one, self.now)
        if len(self.waiting) == CAPACITY:
            assert answer == QueueFull(CAPACITY)
        else:
            assert answer is None
            self.batches_allowed[item_id] = len(self.waiting) + 1
            self.waiting[item_id] = one
            self.arrived[item_id] = self.now
            self.rows_given[item_id] = []
        return item_id

    @rule(seconds=st.floats(0, MAX_DELAY * 1.5, allow_nan=False))
    def pass_time(self, seconds: float) -> None:
        """Time goes by."""
        self.now += seconds

    @rule(item_id=consumes(items))
    def cancel(self, item_id: int) -> None:
        """A waiting item can be cancelled, once."""
        one = self.offered[item_id]
        assert self.queue.cancel(one) == (item_id in self.waiting)
        self.waiting.pop(item_id, None)
        assert not self.queue.cancel(one)

    @rule()
    def expire(self) -> None:
        """Exactly the items whose deadline has come go, earliest first."""
        gone = self.queue.expire(self.now)
        due = [i for i in self.waiting.values() if i.deadline <= self.now]
        assert sorted(i.id for i in gone) == sorted(i.id for i in due)
        assert [i.deadline for i in gone] == sorted(i.deadline for i in gone)
        for one in gone:
            del self.waiting[one.id]

    @rule(busy=st.integers(0, 2))
    def take(self, busy: int) -> None:
        """The next batch keeps all laws, and waiting has its reason."""
        rows_left = {key: self._rows_left(key) for key in "ab"}
        split = any(self.rows_given[i] for i in self.waiting)
        answer = self.queue.next_batch(self.now, busy)
        self._forget_expired()
        match answer:
            case Idle():
                assert not self.waiting
            case WaitUntil(instant):
                assert busy > 0, "a lone request never waits"
                assert self.now < instant <= min(self.arrived[i] for i in self.waiting) + MAX_DELAY
                assert all(self._rows_left(key) < MAX_ROWS for key in "ab"), (
                    "a full batch never waits"
                )
            case Batch() as batch:
                first = batch.parts[0]
                arrived = first.item.arrived_at
                due = self.now >= arrived + min(MAX_DELAY, (first.item.deadline - arrived) / 2)
                full = rows_left[str(first.item.key)] >= MAX_ROWS
                assert not busy or full or due or split, "held back while others run"
                self._check(batch, busy)

    def _forget_expired(self) -> None:
        """Items whose deadline came may leave when a batch is taken; those that did are in no batch."""
        for item_id, one in [*self.waiting.items()]:
            if one.deadline <= self.now and not one.waiting and one.taken < one.rows:
                del self.waiting[item_id]

    def _rows_left(self, key: str) -> int:
        return sum(
            i.rows - len(self.rows_given[i.id]) for i in self.waiting.values() if i.key == key
        )

    def _check(self, batch: Batch[Named], busy: int) -> None:
        assert 0 < batch.rows <= MAX_ROWS
        assert batch.rows == sum(p.stop - p.start for p in batch.parts)
        assert len({p.item.key for p in batch.parts}) == 1
        for part in batch.parts:
            one = self.waiting[part.item.id]
            assert one is part.item
            assert one.deadline > self.now, "what nobody waits for is not run"
            assert one.arrived_at == self.arrived[one.id]
            given_rows = self.rows_given[one.id]
            assert part.start == len(given_rows), "rows come in order, without gaps"
            assert part.start < part.stop <= one.rows
            assert one.rows > MAX_ROWS or part.is_whole, "what fits in a batch is not split"
            if not given_rows:
                self.begun_by_key.setdefault(str(one.key), []).append(one.id)
            given_rows.extend(range(part.start, part.stop))
            if len(given_rows) == one.rows:
                del self.waiting[one.id]
        if busy == 0:  # only then does the front of the line decide alone
            for item_id in self.waiting:
                if not self.rows_given[item_id]:
                    self.batches_allowed[item_id] -= 1
                    assert self.batches_allowed[item_id] > 0, (
                        "begun within as many batches as were ahead, plus one"
                    )

    @invariant()
    def bounded(self) -> None:
        """Never more than the capacity, and the books agree."""
        assert len(self.queue) == len(self.waiting) <= CAPACITY

    @invariant()
    def in_order(self) -> None:
        """Items of one key begin in the order in which they came."""
        for begun in self.begun_by_key.values():
            assert begun == sorted(begun)

    @precondition(lambda self: self.waiting)
    @rule()
    def drain(self) -> None:
        """With free workers, everything that waits is run to the last row."""
        while isinstance(batch := self.queue.next_batch(self.now, 0), Batch):
            self._forget_expired()
            self._check(batch, 0)
        self._forget_expired()
        assert not self.waiting
        assert isinstance(self.queue.next_batch(self.now, 0), Idle)


def test_what_came_first_is_not_held_back_longer_because_its_rest_is_behind_others() -> None:
    """An item of three batches came first; its rest has waited while the second in line came."""
    queue = make_queue()
    queue.offer(item(1, 2 * MAX_ROWS + 1, "a", 100), 0.0)
    assert isinstance(queue.next_batch(0.0, 0), Batch)
    queue.offer(item(2, 1, "b", 100), 5.0)
    assert isinstance(queue.next_batch(5.0, 1), Batch)
    assert isinstance(queue.next_batch(5.0, 1), Batch)
    assert isinstance(queue.next_batch(5.0, 1), Batch)
    queue.offer(item(3, 1, "b", 100), 6.0)
    assert queue.next_batch(6.0, 1) == WaitUntil(6.0 + MAX_DELAY)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)


@given(st.integers(1, 5 * MAX_ROWS), st.floats(0, 1e6, allow_nan=False))
def test_a_lone_request_runs_at_once_whatever_its_size(rows: int, now: float) -> None:
    """With nothing running, the first batch is there at the instant of the offer."""
    queue = make_queue()
    queue.offer(item(1, rows, "k", now + 1), now)
    batch = queue.next_batch(now, 0)
    assert isinstance(batch, Batch)
    assert batch.rows == min(rows, MAX_ROWS)


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=2000))
def test_memory_stays_bounded_when_requests_come_and_go(moves: list[tuple[int, bool]]) -> None:
    """What the queue keeps is in proportion to what waits, not to what has passed."""
    queue = make_queue()
    for number, (rows, cancelled) in enumerate(moves):
        one = item(number, rows, "k", 1e9)
        queue.offer(one, 0.0)
        if cancelled:
            queue.cancel(one)
        elif len(queue) == CAPACITY:
            queue.next_batch(0.0, 0)
        assert sum(len(line.items) for line in queue._lines.values()) <= 2 * CAPACITY + 65
    assert len(queue._lines) <= 1


@given(
    st.lists(
        st.tuples(st.sampled_from([HIGH, NORMAL, LOW]), st.floats(0, 0.5)), min_size=1, max_size=40
    )
)
def test_a_priority_is_a_head_start_and_never_more(moves: list[tuple[int, float]]) -> None:
    """With batches of one: each begins by when it came, plus a second for each step of its priority."""
    queue: BatchQueue[Named] = BatchQueue(capacity=100, max_rows=1, max_delay_seconds=0)
    now = 0.0
    offered = []
    for number, (priority, pause) in enumerate(moves):
        now += pause
        offered.append(item(number, 1, "k", 1e9, priority))
        assert queue.offer(offered[-1], now) is None
    expected = sorted(offered, key=lambda i: (i.arrived_at + PRIORITY_SECONDS * i.priority, i.id))
    begun = []
    while isinstance(batch := queue.next_batch(now, 0), Batch):
        begun.append(batch.parts[0].item)
    assert begun == expected


@given(st.lists(st.integers(1, MAX_ROWS), min_size=1, max_size=CAPACITY))
def test_preferred_sizes_are_taken_where_the_rows_fill_them(rows: list[int]) -> None:
    """No batch has more rows than the largest preferred size that waits, unless one item alone is larger."""
    queue = make_queue(preferred=(2, 4))
    for number, count in enumerate(rows):
        queue.offer(item(number, count, "k", 1e9), 0.0)
    left = sum(rows)
    while isinstance(batch := queue.next_batch(0.0, 0), Batch):
        room = 4 if left >= 4 else 2 if left >= 2 else MAX_ROWS
        assert batch.rows <= max(room, batch.parts[0].item.rows)
        left -= batch.rows
    assert left == 0


@given(
    st.integers(1, MAX_ROWS - 1),
    st.lists(st.tuples(st.integers(1, MAX_ROWS), st.floats(1e-4, 1.0)), max_size=20),
    st.floats(0, 5),
)
def test_an_idle_server_waits_only_right_after_an_answer_and_never_long(
    rows: int, runs: list[tuple[int, float]], later: float
) -> None:
    """Whatever was measured: the wait ends within the most delay, and there is none once its moment is over."""
    queue = make_queue()
    now = 0.0
    for run_rows, seconds in runs:
        now += seconds
        queue.finished(run_rows, seconds, now)
        queue.pace.seen += run_rows
    now += later
    queue.offer(item(1, rows, "k", now + 1000), now)
    answer = queue.next_batch(now, 0)
    longest = max((s for _, s in runs), default=0.0)
    if isinstance(answer, WaitUntil):
        assert now < answer.instant <= now + MAX_DELAY
        assert later < longest
        assert isinstance(queue.next_batch(answer.instant, 0), Batch)
    else:
        assert isinstance(answer, Batch)


@given(st.integers(1, 100), st.floats(1e-3, 10), st.floats(0.1, 100))
def test_who_would_come_too_late_is_told_at_once(
    waiting: int, run_seconds: float, patience: float
) -> None:
    """World: full batches in line; event: one more; world: refused exactly if its time is up before its turn."""
    queue: BatchQueue[Named] = BatchQueue(capacity=1000, max_rows=4, max_delay_seconds=0)
    queue.finished(4, run_seconds, 0.0)
    for number in range(waiting):
        assert queue.offer(item(number, 4, "k", 1e9), 0.0) is None
    answer = queue.offer(item(1000, 1, "k", patience), 0.0)
    assert isinstance(answer, TooLate) == (waiting * run_seconds > patience)


def test_a_pace_that_knows_nothing_never_waits() -> None:
    """Before anything was measured, a batch is due at once."""
    assert Pace(1.0).worth_waiting_until(1, 8, 0.0) == 0.0
