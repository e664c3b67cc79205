"""The report: nothing passes that was not seen."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from canarium_demo.report import Report, make_report, shortcomings, weights_problem
from canarium_demo.tally import Answer, Tally
from canarium_demo.world import World

PLAN = [10, 25, 50, 100]
GOOD_REPORT = Report(
    promoted=["v2"],
    rolled_back=["v3"],
    requests=2001,
    failed_requests=9,
    failed_requests_on_stable=0,
    seconds=120.0,
    operator_restarts=1,
    weights_seen=[10, 25, 50, 100, 10],
)
ROLLOUTS = {"v2": PLAN, "v3": [10]}


def test_a_demo_that_kept_its_promises_lacks_nothing() -> None:
    assert shortcomings(GOOD_REPORT, ROLLOUTS, PLAN) == []


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (replace(GOOD_REPORT, promoted=[]), "Promoted were none, not v2 alone."),
        (replace(GOOD_REPORT, promoted=["v2", "v3"]), "Promoted were v2 and v3, not v2 alone."),
        (replace(GOOD_REPORT, rolled_back=[]), "Taken back were none, not v3 alone."),
        (replace(GOOD_REPORT, requests=2000), "Only 2000 requests"),
        (replace(GOOD_REPORT, failed_requests_on_stable=1), "1 requests failed that v3 did not"),
        (replace(GOOD_REPORT, operator_restarts=0), "The operator was not seen to restart."),
    ],
)
def test_each_broken_promise_is_named(report: Report, words: str) -> None:
    (sentence,) = shortcomings(report, ROLLOUTS, PLAN)
    assert words in sentence


def test_a_good_version_must_be_seen_at_each_step() -> None:
    """A step that nobody saw may have been skipped."""
    assert shortcomings(GOOD_REPORT, {"v2": [10, 25, 50], "v3": [10]}, PLAN) == [
        "v2 was seen at [10, 25, 50], not at each of [10, 25, 50, 100]."
    ]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([10, 25, 50, 100], None),
        ([10], None),
        ([], None),
        ([10, 20], "the weight 20 is none of the steps [10, 25, 50, 100]"),
        ([10, 50], "the weight 50 came before step 2 (25%) was seen"),
        ([25], "the weight 25 came before step 1 (10%) was seen"),
        ([10, 25, 10], "the weight went back to 10"),
    ],
)
def test_weights_follow_the_plan(weights: list[int], words: str | None) -> None:
    assert weights_problem(weights, PLAN) == words


def test_failures_that_the_bad_version_did_not_cause_are_told_apart() -> None:
    """One of each: its own failure, the gateway's, and a good answer."""
    world, tally = World(name="digits", versions={"aaaa": "v2", "bbbb": "v3"}), Tally()
    for revision, status in (("bbbb", 500), ("", 502), ("aaaa", 200)):
        tally.add(Answer(at=0, seconds=0, status=status, revision=revision))
    report = make_report(world, tally, 1.25)
    assert (report.requests, report.failed_requests, report.failed_requests_on_stable) == (3, 2, 1)


def test_the_file_has_exactly_the_promised_keys(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    GOOD_REPORT.write(path)
    assert json.loads(path.read_text()) == {
        "promoted": ["v2"],
        "rolled_back": ["v3"],
        "requests": 2001,
        "failed_requests": 9,
        "failed_requests_on_stable": 0,
        "seconds": 120.0,
        "operator_restarts": 1,
        "weights_seen": [10, 25, 50, 100, 10],
    }
