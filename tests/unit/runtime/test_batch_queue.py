"""The rules of `BatchQueue`, by example; the laws for any sequence are in tests/property."""

from dataclasses import dataclass

import pytest

from canarium_runtime.batching.policy import Batch, BatchQueue, Idle, Item, TooLate, WaitUntil


@dataclass(slots=True, kw_only=True, eq=False)
class Named(Item):
    """An item and its number."""

    id: int


def make_queue(
    *rows: int | tuple[int, str], max_rows: int = 32, now: float = 100.0
) -> BatchQueue[Named]:
    queue: BatchQueue[Named] = BatchQueue(capacity=100, max_rows=max_rows, max_delay_seconds=0.1)
    for number, entry in enumerate(rows):
        count, key = entry if isinstance(entry, tuple) else (entry, "k")
        queue.offer(Named(id=number, rows=count, key=key, deadline=now + 30), now)
    return queue


def batches(queue: BatchQueue[Named]) -> list[list[tuple[int, int, int]]]:
    """All batches until the queue is empty, as (id, start, stop) of each part."""
    result = []
    while isinstance(batch := queue.next_batch(100.0), Batch):
        result.append([(p.item.id, p.start, p.stop) for p in batch.parts])
    return result


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([1, 1, 1], [[(0, 0, 1), (1, 0, 1), (2, 0, 1)]], id="what waits runs together"),
        pytest.param(
            [16, 16, 1], [[(0, 0, 16), (1, 0, 16)], [(2, 0, 1)]], id="up to the most rows"
        ),
        pytest.param(
            [20, 20, 70],
            [[(0, 0, 20)], [(1, 0, 20)], [(2, 0, 32)], [(2, 32, 64)], [(2, 64, 70)]],
            id="the example of the module",
        ),
        pytest.param(
            [70, 5],
            [[(0, 0, 32)], [(1, 0, 5)], [(0, 32, 64)], [(0, 64, 70)]],
            id="a large one lets others pass after each part",
        ),
        pytest.param(
            [70, 30],
            [[(0, 0, 32)], [(1, 0, 30)], [(0, 32, 64)], [(0, 64, 70)]],
            id="never split if it fits",
        ),
        pytest.param(
            [(1, "a"), (1, "b"), (1, "a")],
            [[(0, 0, 1), (2, 0, 1)], [(1, 0, 1)]],
            id="keys never share a batch",
        ),
    ],
)
def test_rows_are_taken_in_batches(
    rows: list[int], expected: list[list[tuple[int, int, int]]]
) -> None:
    """World: items in line; event: batches until empty; world: these parts."""
    assert batches(make_queue(*rows)) == expected


@pytest.mark.parametrize(
    ("rows", "busy", "now", "expected"),
    [
        pytest.param([1], 0, 100.0, Batch, id="nothing runs: at once"),
        pytest.param([1], 1, 100.0, 100.1, id="another worker is busy: until the delay is over"),
        pytest.param([1], 1, 100.1, Batch, id="the delay is over"),
        pytest.param([32], 1, 100.0, Batch, id="full: at once"),
        pytest.param([16, 16], 1, 100.0, Batch, id="full together: at once"),
        pytest.param([16, 15], 1, 100.0, 100.1, id="one row short"),
        pytest.param(
            [(1, "a"), (32, "b")], 1, 100.0, Batch, id="a full batch behind one that waits"
        ),
        pytest.param([], 1, 100.0, Idle, id="nothing waits"),
    ],
)
def test_a_partial_batch_waits_only_while_others_run(
    rows: list[int], busy: int, now: float, expected: float | type
) -> None:
    """World: items and busy workers; event: a worker is free; world: a batch, or when to ask again."""
    answer = make_queue(*rows).next_batch(now, busy)
    if isinstance(expected, float):
        assert answer == WaitUntil(pytest.approx(expected))
    else:
        assert isinstance(answer, expected)


def test_a_short_deadline_shortens_the_wait() -> None:
    """An item whose time is nearly up is not held back until it is too late."""
    queue = make_queue()
    queue.offer(Named(id=1, rows=1, key="k", deadline=100.05), 100.0)
    assert queue.next_batch(100.0, busy_workers=1) == WaitUntil(pytest.approx(100.025))


def test_the_rest_of_a_cancelled_large_item_never_runs() -> None:
    """Cancelling between two parts takes the remaining rows out."""
    queue = make_queue(70, 1)
    batch = queue.next_batch(100.0)
    assert isinstance(batch, Batch)
    assert queue.cancel(batch.parts[0].item)
    assert batches(queue) == [[(1, 0, 1)]]


def test_a_cancelled_rest_takes_its_rows_along() -> None:
    """After a large item was half run and cancelled, what is left still counts to a full batch exactly."""
    queue = make_queue(70, 16)
    batch = queue.next_batch(100.0)
    assert isinstance(batch, Batch)
    queue.cancel(batch.parts[0].item)
    assert isinstance(queue.next_batch(100.0, busy_workers=1), WaitUntil)
    queue.offer(Named(id=9, rows=16, key="k", deadline=130.0), 100.0)
    assert isinstance(queue.next_batch(100.0, busy_workers=1), Batch)


def test_a_full_batch_behind_one_that_waits_goes_first() -> None:
    """What is held back does not keep a full batch of another key."""
    batch = make_queue((1, "a"), (32, "b")).next_batch(100.0, busy_workers=1)
    assert isinstance(batch, Batch)
    assert [p.item.id for p in batch.parts] == [1]


def test_clients_that_come_back_at_once_are_waited_for_where_it_pays() -> None:
    """World: halves that take turns, and a run of both costs little more; event: an answer; world: a short wait."""
    queue = make_queue(max_rows=8)
    now = 100.0
    queue.finished(8, 0.011, now)
    for turn in range(30):
        queue.finished(4, 0.010, now)
        queue.pace.seen += 4  # the others' half waits already, this half comes back at once
        now += 0.1 + turn
    for number in range(4):
        queue.offer(Named(id=number, rows=1, key="k", deadline=now + 30), now - 0.005)
    queue.finished(4, 0.010, now)
    answer = queue.next_batch(now)
    assert answer == WaitUntil(pytest.approx(now + 0.004))
    for number in range(4):
        queue.offer(Named(id=9 + number, rows=1, key="k", deadline=now + 30), now + 0.001)
    full = queue.next_batch(now + 0.001)
    assert isinstance(full, Batch)
    assert full.rows == 8


@pytest.mark.parametrize(
    "fuller_seconds",
    [pytest.param(0.020, id="a fuller run costs as much a row"), pytest.param(0.1, id="or more")],
)
def test_nobody_is_waited_for_where_a_fuller_batch_saves_nothing(fuller_seconds: float) -> None:
    """The same halves, but rows cost the same in any batch."""
    queue = make_queue(max_rows=8)
    now = 100.0
    queue.finished(8, fuller_seconds, now)
    for turn in range(30):
        queue.finished(4, 0.010, now)
        queue.pace.seen += 4
        now += 0.1 + turn
    queue.finished(4, 0.010, now)
    queue.offer(Named(id=1, rows=4, key="k", deadline=now + 30), now)
    assert isinstance(queue.next_batch(now), Batch)


def test_one_run_that_was_held_up_refuses_nobody() -> None:
    """A process that was stopped in the middle of a run (a paused machine) is as quick as before when it goes on."""
    queue = make_queue(max_rows=4)
    now = 100.0
    for _ in range(20):
        queue.finished(4, 0.010, now)
    queue.finished(4, 300.0, now)
    for number in range(50):
        assert queue.offer(Named(id=number, rows=1, key="k", deadline=now + 30), now) is None


def test_a_model_that_has_become_slower_is_believed_after_some_runs() -> None:
    """Each run may raise what is expected only so much, and all of them together do."""
    queue = make_queue(max_rows=4)
    now = 100.0
    queue.finished(4, 0.010, now)
    for _ in range(40):
        queue.finished(4, 20.0, now)
    for number in range(8):
        assert queue.offer(Named(id=number, rows=1, key="k", deadline=now + 1e9), now) is None
    refused = queue.offer(Named(id=9, rows=1, key="k", deadline=now + 30), now)
    assert isinstance(refused, TooLate)
