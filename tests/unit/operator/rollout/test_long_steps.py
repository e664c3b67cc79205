"""Checks of steps that last for days, and of checks that do not begin together: alpha holds for the whole rollout."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from canarium_api.analysis import AnalysisSpec, MetricSpec
from canarium_api.evidence import Evidence
from canarium_api.metric_names import REVISION_LABEL, STATUS_LABEL
from canarium_api.status import Check, Verdict
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.rollout import analysis
from canarium_operator.core.rollout.queries import (
    MAX_WINDOW,
    MIN_WINDOW,
    Query,
    Series,
    Subject,
    Vector,
    window,
)
from canarium_operator.core.statistics import evidence, proportions

SINCE = datetime(2026, 3, 2, tzinfo=UTC)
SUBJECT = Subject(
    ref=ObjectRef(namespace="shop", name="fraud"),
    canary="fraud-2",
    stable="fraud-1",
    evidence_since=SINCE,
    stable_has_traffic=True,
)
ERRORS = MetricSpec(name="error-rate")
LIMITED = MetricSpec.model_validate({"name": "error-rate", "max": 0.05})
SPEC = AnalysisSpec.model_validate({"metrics": [{"name": "error-rate"}], "minSamples": 50})


def answer(query: Query, canary_failed: float) -> Vector:
    """Answer 1000 requests a side, of which 5 of stable failed."""
    return tuple(
        Series(labels={REVISION_LABEL: revision, STATUS_LABEL: status}, value=value)
        for revision, failed in (("fraud-2", canary_failed), ("fraud-1", 5.0))
        for status, value in (("error", failed), ("success", 1000.0 - failed))
        if revision in query.revisions
    )


def look(check: Check, hours: float, canary_failed: float) -> Check:
    """Measure a check so many hours after the step began."""
    now = SINCE + timedelta(hours=hours)
    asked = analysis.queries(ERRORS, SUBJECT, now)
    readings = {query: answer(query, canary_failed) for query in asked}
    return analysis.assess(ERRORS, SPEC, SUBJECT, readings, check, now)


@pytest.mark.parametrize(
    ("elapsed", "expected"),
    [
        (timedelta(0), MIN_WINDOW),
        (timedelta(minutes=5), timedelta(minutes=5)),
        (MAX_WINDOW, MAX_WINDOW),
        (MAX_WINDOW + timedelta(hours=1), timedelta(hours=1)),
        (2 * MAX_WINDOW, MAX_WINDOW),
        (timedelta(days=1), timedelta(hours=4, minutes=30)),
        (timedelta(days=7), timedelta(hours=5, minutes=30)),
    ],
)
def test_a_sequential_test_counts_a_long_step_part_by_part(
    elapsed: timedelta, expected: timedelta
) -> None:
    """The end of a part belongs to it, and no pause of whole days ends just when a part begins."""
    assert window(ERRORS, SUBJECT, SINCE + elapsed) == expected


@pytest.mark.parametrize(
    ("metric", "subject"),
    [(LIMITED, SUBJECT), (ERRORS, replace(SUBJECT, stable_has_traffic=False))],
)
def test_fixed_limits_and_tests_against_the_past_look_at_the_latest_hours(
    metric: MetricSpec, subject: Subject
) -> None:
    """A limit asks how the canary does now; stable's past cannot be told twice."""
    assert window(metric, subject, SINCE + MAX_WINDOW + timedelta(hours=1)) == MAX_WINDOW


def test_the_next_part_carries_evidence_and_requests_on() -> None:
    """As a new step does, but once: further looks into the same part change nothing."""
    first = look(Check(name="error-rate", verdict=Verdict.PENDING), 6, canary_failed=14)
    assert first.evidence is not None
    carried = evidence.next_step(first.evidence)
    second = look(look(first, 7, canary_failed=14), 8, canary_failed=14)
    assert second.evidence == carried.model_copy(update={"log": first.evidence.log})
    assert (second.samples, second.total_samples) == (1000, 2000)
    assert evidence.p_value(second.evidence) < evidence.p_value(first.evidence)


def test_a_failed_query_at_the_beginning_of_a_part_loses_no_evidence() -> None:
    """The part begins all the same."""
    first = look(Check(name="error-rate", verdict=Verdict.PENDING), 6, canary_failed=14)
    assert first.evidence is not None
    now = SINCE + timedelta(hours=7)
    empty = dict.fromkeys(analysis.queries(ERRORS, SUBJECT, now), ())
    missing = analysis.assess(ERRORS, SPEC, SUBJECT, empty, first, now)
    assert missing.evidence == evidence.next_step(first.evidence)
    assert look(missing, 8, canary_failed=14).total_samples == 2000


def week(random: np.random.Generator, rates: np.ndarray, per_part: int = 2000) -> float:
    """Give the smallest p-value at any look during parts with these canary rates; stable's is 2 %."""
    state, least = Evidence(), 1.0
    for rate in rates:
        canary = random.binomial(per_part // 10, rate, 10).cumsum().tolist()
        stable = random.binomial(per_part // 10, 0.02, 10).cumsum().tolist()
        for n, (k, ks) in enumerate(zip(canary, stable, strict=True), start=1):
            trials = n * per_part / 10
            log = proportions.log_e_value(k, trials, ks, trials)
            state = state.model_copy(update={"log": log})
            least = min(least, evidence.p_value(state))
        state = evidence.next_step(state)
    return least


def test_a_week_of_looks_at_a_good_canary_is_wrong_with_chance_alpha_at_most() -> None:
    """200 weeks of 26 parts, ten looks each; seeded."""
    random = np.random.default_rng(31)
    wrong = sum(week(random, np.full(26, 0.02)) <= 0.05 for _ in range(200))
    assert wrong / 200 <= 0.05


def test_harm_that_begins_on_the_last_day_is_found() -> None:
    """Twice the errors in the last four of 26 parts; seeded."""
    random = np.random.default_rng(37)
    rates = np.concatenate([np.full(22, 0.02), np.full(4, 0.04)])
    found = sum(week(random, rates) <= 0.05 for _ in range(50))
    assert found / 50 >= 0.9


def test_a_check_that_begins_later_has_its_part_of_alpha_from_the_start() -> None:
    """A p of 0.04 in one of two checks is 0.08, whether or not the other one was measured yet."""
    metrics = [{"name": "error-rate"}, {"name": "latency-p95", "initialDelay": "10m"}]
    spec = AnalysisSpec.model_validate({"metrics": metrics})
    known = {metric.name: metric for metric in spec.metrics}
    errors = Check(
        name="error-rate",
        verdict=Verdict.PASS,
        measured_at=SINCE,
        effect=0.05,
        evidence=Evidence(log=math.log(2 / 0.04 - 1)),
    )
    [judged] = analysis.judge([errors], known, spec, last_step=False)
    assert judged.p_value == pytest.approx(0.08)
    assert judged.verdict is Verdict.PASS
