"""Counting answers: whose fault each failure was, and how each revision does now."""

import pytest

from canarium_demo.tally import UNANSWERED, WINDOW_SECONDS, Answer, Tally, quantile

STABLE, BAD = "aaaa", "bbbb"


def answer(
    revision: str,
    status: int = 200,
    *,
    at: float = 0.0,
    seconds: float = 0.01,
    correct: bool | None = None,
) -> Answer:
    return Answer(at=at, seconds=seconds, status=status, revision=revision, correct=correct)


def tally_of(*answers: Answer) -> Tally:
    tally = Tally()
    for one in answers:
        tally.add(one)
    return tally


@pytest.mark.parametrize("status", [500, 504])
def test_the_failures_of_a_model_are_its_own(status: int) -> None:
    """It failed on the input, or was too slow."""
    tally = tally_of(answer(BAD, status), answer(STABLE))
    assert (tally.failed, tally.failed_by([BAD])) == (1, 1)


@pytest.mark.parametrize(
    ("revision", "status"),
    [
        ("", 502),
        ("", 503),
        ("", 404),
        ("", UNANSWERED),
        (STABLE, 500),
        (BAD, 503),
        (BAD, 429),
        (BAD, UNANSWERED),
    ],
)
def test_every_other_failure_is_not_the_bad_canarys(revision: str, status: int) -> None:
    """Gateway, connection, another revision, or a server that was starting, stopping or full."""
    tally = tally_of(answer(revision, status))
    assert (tally.failed, tally.failed_by([BAD])) == (1, 0)


def test_failures_that_no_model_explains_are_kept_in_words() -> None:
    """They are what one wants to read when the demo fails."""
    tally = tally_of(answer(BAD, 500), answer("", 502))
    assert list(tally.notes) == ["502 gateway: "]


def test_accuracy_counts_good_answers_only() -> None:
    """A failure has no digit in it."""
    tally = tally_of(
        answer(STABLE, correct=True), answer(STABLE, correct=False), answer(STABLE, 500)
    )
    assert tally.accuracy(STABLE) == 0.5
    assert tally.accuracy("never") is None
    assert (tally.requests_of(STABLE), tally.failed_of(STABLE)) == (3, 1)


def test_the_recent_look_forgets_what_is_older_than_its_window() -> None:
    """Shares, rates and latencies are of the last seconds."""
    now = 100.0
    tally = tally_of(
        answer(STABLE, at=now - WINDOW_SECONDS - 1, seconds=9.0),
        answer(STABLE, at=now - 2, seconds=0.010),
        answer(STABLE, at=now - 1, seconds=0.030),
        answer(BAD, 500, at=now - 1, seconds=0.020),
        answer(BAD, at=now, seconds=0.020),
    )
    stable, bad = tally.recent(STABLE, now), tally.recent(BAD, now)
    assert (stable.requests, stable.share, stable.error_rate) == (2, 0.5, 0.0)
    assert (stable.p50, stable.p95) == (0.010, 0.030)
    assert bad.error_rate == 0.5
    assert tally.recent("never", now).p95 is None


def test_the_quantile_is_a_value_that_was_seen() -> None:
    """Of 1, 2, 3, 4 the 0.5 quantile is 2 and the 0.95 quantile is 4."""
    assert quantile([1, 2, 3, 4], 0.5) == 2
    assert quantile([1, 2, 3, 4], 0.95) == 4
    assert quantile([], 0.5) is None
