"""Laws of `BatchQueue`, for any sequence of offers, batches, cancellations and expiries."""

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

from canarium_runtime.batching.policy import (
    Accepted,
    Batch,
    BatchQueue,
    Idle,
    Item,
    QueueFull,
    WaitUntil,
)

CAPACITY = 6
MAX_ROWS = 8
MAX_DELAY = 10.0


def make_queue() -> BatchQueue[str]:
    return BatchQueue(capacity=CAPACITY, max_rows=MAX_ROWS, max_delay_seconds=MAX_DELAY)


class QueueMachine(RuleBasedStateMachine):
    """Drives a queue and keeps the books beside it."""

    items = Bundle("items")

    def __init__(self) -> None:
        super().__init__()
        self.queue = make_queue()
        self.now = 0.0
        self.next_id = 0
        self.waiting: dict[int, Item[str]] = {}
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
        item = Item(
            id=item_id, rows=rows, key=key, deadline=self.now + patience, payload=f"p{item_id}"
        )
        answer = self.queue.offer(item, self.now)
        if len(self.waiting) == CAPACITY:
            assert answer == QueueFull(CAPACITY)
        else:
            assert answer == Accepted(len(self.waiting))
            self.batches_allowed[item_id] = len(self.waiting) + 1
            self.waiting[item_id] = item
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
        assert self.queue.cancel(item_id) == (item_id in self.waiting)
        self.waiting.pop(item_id, None)
        assert not self.queue.cancel(item_id)

    @rule()
    def expire(self) -> None:
        """Exactly the items whose deadline has come go, earliest first."""
        gone = self.queue.expire(self.now)
        due = [i for i in self.waiting.values() if i.deadline <= self.now]
        assert sorted(i.id for i in gone) == sorted(i.id for i in due)
        assert [i.deadline for i in gone] == sorted(i.deadline for i in gone)
        for item in gone:
            del self.waiting[item.id]

    @rule(busy=st.integers(0, 2))
    def take(self, busy: int) -> None:
        """The next batch keeps all laws, and waiting has its reason."""
        rows_left = {key: self._rows_left(key) for key in "ab"}
        split = any(self.rows_given[i] for i in self.waiting)
        match self.queue.next_batch(self.now, busy):
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
                patience = min(MAX_DELAY, (first.item.deadline - first.arrived_at) / 2)
                due = self.now >= first.arrived_at + patience
                full = rows_left[str(first.item.key)] >= MAX_ROWS
                assert not busy or full or due or split, "held back while others run"
                self._check(batch, busy)

    def _rows_left(self, key: str) -> int:
        return sum(
            i.rows - len(self.rows_given[i.id]) for i in self.waiting.values() if i.key == key
        )

    def _check(self, batch: Batch[str], busy: int) -> None:
        assert 0 < batch.rows <= MAX_ROWS
        assert batch.rows == sum(p.stop - p.start for p in batch.parts)
        assert len({p.item.key for p in batch.parts}) == 1
        for part in batch.parts:
            item = self.waiting[part.item.id]
            assert item is part.item
            assert part.arrived_at == self.arrived[item.id]
            given_rows = self.rows_given[item.id]
            assert part.start == len(given_rows), "rows come in order, without gaps"
            assert part.start < part.stop <= item.rows
            assert item.rows > MAX_ROWS or part.is_whole, "what fits in a batch is not split"
            if not given_rows:
                self.begun_by_key.setdefault(str(item.key), []).append(item.id)
            given_rows.extend(range(part.start, part.stop))
            if len(given_rows) == item.rows:
                del self.waiting[item.id]
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
    def deadline_known(self) -> None:
        """The next deadline is the earliest of those that wait."""
        expected = min((i.deadline for i in self.waiting.values()), default=None)
        assert self.queue.next_deadline() == expected

    @invariant()
    def in_order(self) -> None:
        """Items of one key begin in the order in which they came."""
        for begun in self.begun_by_key.values():
            assert begun == sorted(begun)

    @precondition(lambda self: self.waiting)
    @rule()
    def drain(self) -> None:
        """With free workers, everything that waits is run to the last row."""
        while self.waiting:
            batch = self.queue.next_batch(self.now, 0)
            assert isinstance(batch, Batch)
            self._check(batch, 0)
        assert isinstance(self.queue.next_batch(self.now, 0), Idle)


def test_what_came_first_is_not_held_back_longer_because_its_rest_is_behind_others() -> None:
    """An item of three batches came first; its rest has waited while the second in line came."""
    queue = make_queue()
    queue.offer(Item(id=1, rows=2 * MAX_ROWS + 1, key="a", deadline=100, payload=""), 0.0)
    assert isinstance(queue.next_batch(0.0, 0), Batch)
    queue.offer(Item(id=2, rows=1, key="b", deadline=100, payload=""), 5.0)
    assert isinstance(queue.next_batch(5.0, 1), Batch)
    assert isinstance(queue.next_batch(5.0, 1), Batch)
    assert isinstance(queue.next_batch(5.0, 1), Batch)
    queue.offer(Item(id=3, rows=1, key="b", deadline=100, payload=""), 6.0)
    assert queue.next_batch(6.0, 1) == WaitUntil(6.0 + MAX_DELAY)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)


@given(st.integers(1, 5 * MAX_ROWS), st.floats(0, 1e6, allow_nan=False))
def test_a_lone_request_runs_at_once_whatever_its_size(rows: int, now: float) -> None:
    """With nothing running, the first batch is there at the instant of the offer."""
    queue = make_queue()
    queue.offer(Item(id=1, rows=rows, key="k", deadline=now + 1, payload=""), now)
    batch = queue.next_batch(now, 0)
    assert isinstance(batch, Batch)
    assert batch.rows == min(rows, MAX_ROWS)


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=2000))
def test_memory_stays_bounded_when_requests_come_and_go(moves: list[tuple[int, bool]]) -> None:
    """What the queue keeps is in proportion to what waits, not to what has passed."""
    queue = make_queue()
    for number, (rows, cancelled) in enumerate(moves):
        queue.offer(Item(id=number, rows=rows, key="k", deadline=1e9, payload=""), 0.0)
        if cancelled:
            queue.cancel(number)
        elif len(queue) == CAPACITY:
            queue.next_batch(0.0, 0)
    assert len(queue._deadlines) <= 2 * CAPACITY + 66
    assert len(queue._lines) <= 1
