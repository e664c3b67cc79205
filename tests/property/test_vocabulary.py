"""Durations, quantities, limits and replica counts: what is written is read back, and every bound holds."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_api.duration import (
    LONGEST,
    approximate_duration,
    format_duration,
    parse_duration,
)
from canarium_api.quantity import parse_limit, parse_quantity
from canarium_api.v1alpha1 import AutoscalingSpec
from canarium_operator.core.plan import canary_replicas

milliseconds = st.integers(0, int(LONGEST.total_seconds() * 1000))


@given(milliseconds)
def test_a_duration_that_is_written_is_read_back(count: int) -> None:
    """To the millisecond, up to the longest."""
    value = timedelta(milliseconds=count)
    assert parse_duration(format_duration(value)) == value


@given(milliseconds)
def test_a_duration_for_people_is_a_duration_too(count: int) -> None:
    """Two units at most, and never off by more than the second of them."""
    value = timedelta(milliseconds=count)
    text = approximate_duration(value)
    assert sum(character.isalpha() for character in text) <= 2
    assert abs(parse_duration(text) - value) < timedelta(days=1)


@given(st.integers(LONGEST.days + 1, 10**30), st.sampled_from(("d", "d1h")))
def test_a_duration_beyond_all_use_is_refused_with_the_bound(days: int, unit: str) -> None:
    """Its sum with a date would overflow in the middle of a rollout."""
    with pytest.raises(ValueError, match="at most 3650d"):
        parse_duration(f"{days}{unit}")


@given(st.text(alphabet="0123456789.smhd -+e", max_size=8))
def test_any_text_is_a_duration_or_refused_in_words(text: str) -> None:
    """Nothing else can come of it."""
    problem = ""
    try:
        value = parse_duration(text)
    except ValueError as error:
        problem = str(error)
    else:
        assert timedelta(0) <= value <= LONGEST
    assert problem == "" or repr(text) in problem


@given(st.integers(0, 10**9), st.sampled_from(("", "k", "M", "Ki", "Mi", "Gi")))
def test_a_quantity_is_its_number_times_its_suffix(number: int, suffix: str) -> None:
    """As Kubernetes reads it."""
    factors = {"": 1, "k": 10**3, "M": 10**6, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    assert parse_quantity(f"{number}{suffix}") == number * factors[suffix]
    assert parse_quantity(f"{number}m") == pytest.approx(number / 1000)


@given(st.floats(-1e6, 1e6).map(lambda value: round(value, 3)))
def test_a_limit_may_be_a_number_a_share_or_a_time(value: float) -> None:
    """All of them are numbers in the end."""
    assert parse_limit(value) == value
    assert parse_limit(f"{value:.3f}") == pytest.approx(value)
    assert parse_limit(f"{value:.3f}%") == pytest.approx(value / 100)


@given(st.integers(1, 1000).map(lambda number: number / 10))
def test_a_limit_in_milliseconds_is_in_seconds(value: float) -> None:
    """As Prometheus measures."""
    assert parse_limit(f"{value}ms") == pytest.approx(value / 1000)


@given(st.integers(0, 100), st.integers(1, 1000), st.integers(1, 1000))
def test_a_canary_has_pods_for_its_share(weight: int, reserved: int, most: int) -> None:
    """Never none, never fewer than its share of what stable needs, unless the maximum says so."""
    pods = canary_replicas(weight, reserved, AutoscalingSpec(min_replicas=1, max_replicas=most))
    assert 1 <= pods <= most
    assert pods >= min(math.ceil(reserved * weight / 100), most)
    if weight < 100:
        more = AutoscalingSpec(min_replicas=1, max_replicas=most)
        assert pods <= canary_replicas(weight + 1, reserved, more)
