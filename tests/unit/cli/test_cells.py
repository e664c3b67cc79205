"""Single words of tables: bars, sparklines, shares of evidence."""

import itertools
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_cli.rendering import cells

NUMBERS = st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), max_size=80)


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([0, 1, 2, 3], "▁▃▆█"),
        ([5, 5, 5], "▄▄▄"),
        ([0.001, 0.002], "▁█"),
        ([], ""),
        ([math.nan], ""),
        ([3, math.nan, 1], "█▁"),
    ],
)
def test_a_sparkline_spans_what_there_is(values: list[float], drawn: str) -> None:
    """The lowest lies on the ground, whatever it is."""
    assert cells.sparkline(values, 20) == drawn


@given(NUMBERS, st.integers(1, 40))
def test_a_sparkline_is_never_too_wide_and_keeps_the_order(values: list[float], width: int) -> None:
    """Of the latest values; a higher one is never drawn lower."""
    drawn = cells.sparkline(values, width)
    shown = [v for v in values[-width:] if not math.isnan(v)]
    assert len(drawn) == len(shown)
    for (a, x), (b, y) in itertools.pairwise(zip(shown, drawn, strict=True)):
        assert not a < b or x <= y
        assert not a > b or x >= y


@given(st.floats(-1, 2), st.integers(1, 40))
def test_a_bar_has_its_width_and_what_is_not_nothing_shows(share: float, width: int) -> None:
    """One percent of the users is not none."""
    drawn = cells.bar(share, width)
    assert len(drawn) == width
    assert ("█" in drawn) == (share > 0)


@pytest.mark.parametrize(
    ("seen", "needed", "words"),
    [(None, None, ""), (None, 100, "0/100"), (40, 100, "40/100"), (40, None, "40"), (0, 100, "0/100")],
)  # fmt: skip
def test_evidence_is_of_what_is_needed(seen: int | None, needed: int | None, words: str) -> None:
    """None yet is not the same as none needed."""
    assert cells.evidence(seen, needed) == words


def test_instants_have_their_date_where_it_is_another() -> None:
    """A history spans days."""
    now = datetime(2026, 1, 2, 9, tzinfo=UTC)
    assert cells.clock(datetime(2026, 1, 2, 8, 30, tzinfo=UTC), now) == "08:30:00Z"
    assert cells.clock("2026-01-01T12:00:00Z", now) == "2026-01-01 12:00:00Z"
    assert cells.clock("garbage", now) == ""
    assert cells.clock(None, now) == ""


def test_effects_are_in_the_unit_of_their_check() -> None:
    """A ratio for latency, a difference for shares."""
    assert cells.effect("error-rate", [0.144, 0.251], 0.199) == "+19.9% (+14.4% to +25.1%)"
    assert cells.effect("latency-p95", [-0.4, 1.5], 0.1) == "+10% (-40% to +2.5 times)"
    assert cells.effect("error-rate", None, None) == ""
