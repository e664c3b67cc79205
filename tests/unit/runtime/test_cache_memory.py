"""The memory level, and the frozen copies that it keeps."""

import gc
import tracemalloc

import numpy as np
import pytest

from canarium_runtime.caching.memory import (
    ARRAY_BYTES,
    ENTRY_BYTES,
    MemoryLevel,
    NotCacheableError,
    frozen,
    size_bytes,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def answer(value: float = 1.0, count: int = 4) -> tuple[np.ndarray, ...]:
    return frozen([np.full(count, value, np.float32)])


ONE = ENTRY_BYTES + ARRAY_BYTES + 16
"""Bytes of `answer()`."""


def test_an_answer_is_found_until_its_time_is_over() -> None:
    """After its time it is a miss, and its bytes are free again."""
    clock = Clock()
    level = MemoryLevel(100 * ONE, 60, clock)
    level.put(b"k", kept := answer())
    clock.now += 59.9
    assert level.get(b"k") is kept
    clock.now += 0.2
    assert level.get(b"k") is None
    assert (level.hits, level.misses, level.bytes, len(level)) == (1, 1, 0, 0)


def test_an_answer_with_less_time_left_goes_earlier() -> None:
    """What comes from a lower level may be used no longer than that level would."""
    clock = Clock()
    level = MemoryLevel(100 * ONE, 60, clock)
    level.put(b"k", answer(), 10)
    clock.now += 10
    assert level.get(b"k") is None


def test_the_least_recently_used_goes_first() -> None:
    """Ten fit; the eleventh drives out the one that nobody has asked for, not the oldest."""
    level = MemoryLevel(10 * ONE, 60, Clock())
    for number in range(10):
        level.put(bytes([number]), answer(number))
    assert level.get(bytes([0])) is not None
    level.put(b"new", answer())
    assert level.get(bytes([1])) is None
    assert level.get(bytes([0])) is not None
    assert (len(level), level.bytes) == (10, 10 * ONE)


def test_putting_again_replaces() -> None:
    """The same key counts once, with the later answer and a new time."""
    clock = Clock()
    level = MemoryLevel(100 * ONE, 60, clock)
    level.put(b"k", answer(1))
    clock.now += 50
    level.put(b"k", later := answer(2))
    clock.now += 50
    assert level.get(b"k") is later
    assert (len(level), level.bytes) == (1, ONE)


def test_an_answer_that_would_drive_out_too_much_is_not_kept() -> None:
    """More than an eighth of the level is dropped and counted."""
    level = MemoryLevel(10 * ONE, 60, Clock())
    level.put(b"small", answer())
    level.put(b"large", answer(count=10_000))
    assert level.get(b"large") is None
    assert level.get(b"small") is not None
    assert level.dropped == 1


def test_the_bound_is_that_of_real_memory() -> None:
    """Filled with tiny answers, of numbers and of strings, the process grows by no more than the bound."""
    bound = 4 << 20
    level = MemoryLevel(bound, 60)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(30_000):
            texts = np.array([f"label {number}", "é"], object)
            outputs = [np.array([number], np.int64), texts]
            level.put(number.to_bytes(20, "big"), frozen(outputs[: 1 + number % 2]))
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0 < len(level) < 30_000
    assert grown <= bound
    assert grown >= bound / 2, "the estimate is so high that half of the memory is never used"


def test_the_caller_can_neither_change_an_answer_nor_keep_a_batch_alive_by_it() -> None:
    """What is kept is a copy, read-only, of the view alone."""
    batch = np.zeros((1000, 4), np.float32)
    (kept,) = frozen([batch[3:4]])
    batch[3] = 9
    assert kept.tolist() == [[0, 0, 0, 0]]
    assert kept.base is None
    with pytest.raises(ValueError, match="read-only"):
        kept[0, 0] = 1


def test_elements_that_somebody_could_change_are_not_kept() -> None:
    """A list or a dictionary inside an object array is refused; strings and bytes are taken."""
    with pytest.raises(NotCacheableError):
        frozen([np.array([{"a": 1}], object)])
    assert frozen([np.array(["a", b"b"], object)])[0].tolist() == ["a", b"b"]


def test_strings_count_with_their_length() -> None:
    """A long string is as large as it is."""
    short, long = (frozen([np.array([text], object)]) for text in ("a", "a" * 10_000))
    assert size_bytes(long) - size_bytes(short) == 9_999
