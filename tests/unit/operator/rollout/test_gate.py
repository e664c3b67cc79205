"""The gate of one step: what it waits for, and until when."""

from datetime import timedelta

import pytest

from canarium_api.analysis import AnalysisSpec, MetricSpec
from canarium_api.conditions import Reason
from canarium_api.status import Check, Phase, RolloutStatus, Verdict
from canarium_operator.core.rollout import gate
from canarium_operator.core.rollout.state import TRANSITIONS, is_legal
from canarium_operator.testing.scenario import START

SPEC = AnalysisSpec(
    metrics=[MetricSpec(name="error-rate"), MetricSpec(name="latency-p95")],
    interval=timedelta(seconds=30),
    max_wait=timedelta(hours=1),
)
OPENS = START + timedelta(minutes=1)


def look(checks: list[Check], seconds: float) -> gate.GateView:
    """Look so many seconds after the pause has ended."""
    rollout = RolloutStatus(
        steps=1, weights=[100], weight=100, started_at=START, step_started_at=START, checks=checks
    )
    return gate.look(SPEC.metrics, SPEC, rollout, OPENS, OPENS + timedelta(seconds=seconds))


def check(name: str, verdict: Verdict, measured: float, message: str = "words") -> Check:
    """A check measured so many seconds after the pause has ended."""
    when = OPENS + timedelta(seconds=measured)
    return Check(name=name, verdict=verdict, measured_at=when, message=message)


def both(verdict: Verdict, measured: float) -> list[Check]:
    return [check("error-rate", Verdict.PASS, 1), check("latency-p95", verdict, measured)]


def test_a_gate_passes_when_all_checks_pass_after_the_pause() -> None:
    """Measured at its very end is after it."""
    assert look(both(Verdict.PASS, 0), 1).passes


def test_a_pass_from_within_the_pause_is_stale() -> None:
    """It must be measured again, and soon."""
    view = look(both(Verdict.PASS, -1), 1)
    assert not view.passes
    assert view.blocked_on is Reason.AWAITING_MEASUREMENT
    assert view.next_check_at == OPENS + timedelta(seconds=2)


def test_nothing_passes_during_the_pause() -> None:
    """Not even what was measured in the future, by a clock that was set back since."""
    view = look(both(Verdict.PASS, 5), -10)
    assert not view.passes
    assert view.blocked_on is Reason.AWAITING_PAUSE
    assert view.next_check_at == OPENS


def test_a_check_that_was_never_measured_is_waited_for() -> None:
    """A metric of the spec without a result is no pass."""
    view = look([check("error-rate", Verdict.PASS, 1)], 1)
    assert not view.passes
    assert view.blocked_on is Reason.AWAITING_MEASUREMENT
    assert "latency-p95: not measured yet" in view.waiting


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (Verdict.FAIL, Reason.CHECK_FAILING),
        (Verdict.ERROR, Reason.METRICS_UNAVAILABLE),
        (Verdict.NO_DATA, Reason.NO_DATA),
        (Verdict.TOO_FEW_SAMPLES, Reason.AWAITING_SAMPLES),
        (Verdict.PENDING, Reason.AWAITING_MEASUREMENT),
    ],
)
def test_each_verdict_but_pass_holds_with_its_own_reason(verdict: Verdict, reason: Reason) -> None:
    """And says until when."""
    view = look(both(verdict, 1), 10)
    assert not view.passes
    assert view.blocked_on is reason
    assert view.gives_up_at == OPENS + timedelta(hours=1)
    assert "gives up at" in view.waiting


def test_the_most_serious_verdict_is_named() -> None:
    """A failure before what is only missing."""
    checks = [check("error-rate", Verdict.NO_DATA, 1), check("latency-p95", Verdict.FAIL, 1)]
    view = look(checks, 2)
    assert view.blocked_on is Reason.CHECK_FAILING
    assert view.waiting.startswith("latency-p95: words")


def test_during_the_pause_a_check_that_holds_is_named_already() -> None:
    """So that nobody waits five minutes to learn that a query is wrong."""
    view = look(both(Verdict.ERROR, -20), -10)
    assert view.waiting.startswith("pause until")
    assert "latency-p95: words" in view.waiting


def test_a_check_that_was_not_measured_yet_is_said_to_be_so() -> None:
    """Not left as a name with nothing behind it."""
    said = "; error-rate not measured yet; latency-p95 not measured yet"
    assert look([], -10).waiting.endswith(said)


def test_the_next_look_is_when_the_next_measurement_is_due() -> None:
    """An interval after the oldest result, and never in the past."""
    assert look(both(Verdict.NO_DATA, 5), 10).next_check_at == OPENS + timedelta(seconds=31)
    assert look(both(Verdict.NO_DATA, 5), 100).next_check_at == OPENS + timedelta(seconds=100)


def test_the_table_knows_no_transition_that_is_only_a_reason_to_wait() -> None:
    """Reasons of waits are no transitions."""
    assert Reason.AWAITING_PODS not in TRANSITIONS
    assert not is_legal(Reason.AWAITING_PODS, Phase.CANARY, Phase.CANARY)


def test_an_invalid_object_may_have_been_in_any_phase() -> None:
    """Invalid hides where the rollout is."""
    assert is_legal(Reason.ROLLED_BACK, Phase.INVALID, Phase.INVALID)
    assert is_legal(Reason.ROLLOUT_STARTED, Phase.INVALID, Phase.LOADING)
    assert not is_legal(Reason.ROLLOUT_STARTED, Phase.INVALID, Phase.CANARY)
