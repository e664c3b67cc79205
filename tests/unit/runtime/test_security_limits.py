"""Rates: the bucket's promise, and the bounded set of buckets."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_runtime.security.limits import Bucket, Buckets, Limit

LIMIT = Limit(rate=2.0, burst=3)


def test_the_worked_example() -> None:
    """World: 2 a second, burst 3, at second 10; events: four requests."""
    bucket = Bucket(LIMIT)
    assert [bucket.take(10.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(10.5) == 0.0
    assert bucket.take(10.5) == 0.5
    assert not bucket.rests(11.9)
    assert bucket.rests(12.0)


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 50),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=120),
)
def test_no_span_of_time_lets_in_more_than_burst_and_rate_allow(
    rate: float, burst: int, gaps: list[float]
) -> None:
    """For any limit, any requests and any span: at most burst + rate * t."""
    bucket = Bucket(Limit(rate=rate, burst=burst))
    now = 1000.0
    admitted = []
    for gap in gaps:
        now += gap
        if bucket.take(now) == 0.0:
            admitted.append(now)
    for first, begin in enumerate(admitted):
        for last in range(first, len(admitted)):
            span = admitted[last] - begin
            assert last - first + 1 <= burst + rate * span + 1e-6


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 50),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=120),
)
def test_who_waits_as_long_as_told_is_let_in(rate: float, burst: int, gaps: list[float]) -> None:
    """The time of Retry-After is enough, and a client that keeps to its rate is never refused."""
    bucket = Bucket(Limit(rate=rate, burst=burst))
    now = 1000.0
    for gap in gaps:
        now += gap
        wait = bucket.take(now)
        if wait > 0.0:
            now += wait + 1e-9
            assert bucket.take(now) == 0.0
    steady = Bucket(Limit(rate=rate, burst=burst))
    assert all(steady.take(1000.0 + n / rate + n * 1e-9) == 0.0 for n in range(200))


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        pytest.param(1, Limit(rate=2.0, burst=3), id="alone"),
        pytest.param(2, Limit(rate=1.0, burst=1), id="half of the burst, rounded down"),
        pytest.param(10, Limit(rate=0.2, burst=1), id="a burst of at least 1"),
    ],
)
def test_a_share_is_an_equal_part(servers: int, expected: Limit) -> None:
    assert LIMIT.shared_by(servers) == expected


def buckets(most: int, own: dict[str, Limit] | None = None) -> Buckets[Bucket]:
    return Buckets(LIMIT, own or {}, most, lambda _, limit: Bucket(limit))


def test_clients_with_a_limit_of_their_own_have_it() -> None:
    """World: burst 3, for one client 1."""
    found = buckets(10, {"key:slow": Limit(rate=1.0, burst=1)})
    slow, other = found.of("key:slow", 0.0), found.of("key:other", 0.0)
    assert slow is not None
    assert other is not None
    assert [slow.take(0.0), slow.take(0.0)] == [0.0, 1.0]
    assert [other.take(0.0), other.take(0.0)] == [0.0, 0.0]


def test_without_a_default_only_the_named_are_limited() -> None:
    found = Buckets(None, {"key:slow": LIMIT}, 10, lambda _, limit: Bucket(limit))
    assert found.of("key:other", 0.0) is None
    assert found.of("key:slow", 0.0) is not None


def test_clients_that_rest_are_forgotten_first() -> None:
    """World: room for two, the older one busy; event: a third; the busy one keeps what it owes."""
    found = buckets(2)
    busy, rested = found.of("busy", 0.0), found.of("rested", 0.0)
    assert busy is not None
    assert rested is not None
    while busy.take(100.0) == 0.0:
        pass
    rested.take(0.0)
    assert found.of("third", 100.0) is not None
    assert len(found) == 2
    assert found.of("busy", 100.0) is busy


def test_the_number_of_clients_is_bounded_though_all_are_busy() -> None:
    found = buckets(3)
    for number in range(50):
        bucket = found.of(f"address:{number}", 100.0)
        assert bucket is not None
        bucket.take(100.0)
    assert len(found) == 3


def test_a_fresh_bucket_is_full() -> None:
    assert Bucket(LIMIT).rests(-math.inf)
