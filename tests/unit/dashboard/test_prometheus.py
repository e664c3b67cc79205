"""Shares of requests from range queries: bounds, gaps and nonsense."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_dashboard.errors import UnreachableError
from canarium_dashboard.prometheus import MAX_POINTS, parse, shares, step_of, table_of

STEP = timedelta(seconds=30)


def series(revision: str, status: str, *values: tuple[float, str]) -> dict[str, object]:
    """Make one series of an answer."""
    return {"metric": {"revision": revision, "status": status}, "values": [list(v) for v in values]}


def test_the_share_is_of_all_requests_of_both_revisions() -> None:
    """30 of 300 requests in 30 s: a share of 0.1, at 10 requests a second."""
    found = shares(
        table_of(
            [
                series("new", "success", (60, "28")),
                series("new", "error", (60, "2")),
                series("old", "success", (60, "270"), (90, "0")),
            ]
        ),
        "new",
        STEP,
    )
    assert [(p.share, p.per_second) for p in found] == [(pytest.approx(0.1), pytest.approx(10))]


def test_where_nobody_was_answered_there_is_no_share() -> None:
    """NaN and what is below zero are no requests either."""
    assert (
        shares(table_of([series("new", "success", (1, "NaN"), (2, "0"), (3, "-1"))]), "new", STEP)
        == []
    )


@given(st.integers(0, 60 * 86400))
def test_a_curve_never_has_more_points_than_it_may(seconds: int) -> None:
    """However long a rollout lasts."""
    step = step_of(timedelta(seconds=seconds))
    assert seconds / step.total_seconds() <= MAX_POINTS
    assert step >= STEP
    assert step.microseconds == 0


@pytest.mark.parametrize(
    "content",
    [
        b"<html>",
        b"[]",
        b'{"data": {"result": [{"values": []}]}}',
        json.dumps({"data": {"result": [{"metric": {}, "values": [[1, "x"]]}]}}).encode(),
    ],
)
def test_an_answer_of_something_else_is_an_error(content: bytes) -> None:
    """It is told, and never drawn."""
    with pytest.raises(UnreachableError, match="no Prometheus"):
        parse(content)
