"""The rules of `BatchQueue`, by example; the laws for any sequence are in tests/property."""

import pytest

from canarium_runtime.batching.policy import Batch, BatchQueue, Idle, Item, WaitUntil


def make_queue(
    *rows: int | tuple[int, str], max_rows: int = 32, now: float = 100.0
) -> BatchQueue[None]:
    queue: BatchQueue[None] = BatchQueue(capacity=100, max_rows=max_rows, max_delay_seconds=0.1)
    for number, entry in enumerate(rows):
        count, key = entry if isinstance(entry, tuple) else (entry, "k")
        queue.offer(Item(id=number, rows=count, key=key, deadline=now + 30, payload=None), now)
    return queue


def batches(queue: BatchQueue[None]) -> list[list[tuple[int, int, int]]]:
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
    queue.offer(Item(id=1, rows=1, key="k", deadline=100.05, payload=None), 100.0)
    assert queue.next_batch(100.0, busy_workers=1) == WaitUntil(pytest.approx(100.025))


def test_the_rest_of_a_cancelled_large_item_never_runs() -> None:
    """Cancelling between two parts takes the remaining rows out."""
    queue = make_queue(70, 1)
    assert isinstance(queue.next_batch(100.0), Batch)
    assert queue.cancel(0)
    assert batches(queue) == [[(1, 0, 1)]]


def test_a_cancelled_rest_takes_its_rows_along() -> None:
    """After a large item was half run and cancelled, what is left still counts to a full batch exactly."""
    queue = make_queue(70, 16)
    assert isinstance(queue.next_batch(100.0), Batch)
    queue.cancel(0)
    assert isinstance(queue.next_batch(100.0, busy_workers=1), WaitUntil)
    queue.offer(Item(id=9, rows=16, key="k", deadline=130.0, payload=None), 100.0)
    assert isinstance(queue.next_batch(100.0, busy_workers=1), Batch)


def test_a_full_batch_behind_one_that_waits_goes_first() -> None:
    """What is held back does not keep a full batch of another key."""
    batch = make_queue((1, "a"), (32, "b")).next_batch(100.0, busy_workers=1)
    assert isinstance(batch, Batch)
    assert [p.item.id for p in batch.parts] == [1]


def test_what_has_passed_is_forgotten() -> None:
    """Deadlines of items that have left do not pile up, and the next one is still known."""
    queue = make_queue(1)
    for number in range(1, 1000):
        queue.offer(Item(id=number, rows=1, key="k", deadline=200.0 + number, payload=None), 100.0)
        queue.cancel(number)
    assert len(queue._deadlines) < 100
    assert queue.next_deadline() == 130.0
    queue.cancel(0)
    assert queue.next_deadline() is None
    assert queue.expire(1e9) == ()
