"""Pages from statuses that the operator's own engine has made."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from canarium_api.analysis import MetricSpec
from canarium_api.status import Check, ModelDeploymentStatus, Verdict
from canarium_dashboard.history import CheckPoint
from canarium_dashboard.views import checks, steps
from canarium_dashboard.views.detail import Detail, Known, detail_of
from canarium_dashboard.views.health import Health
from canarium_dashboard.views.listing import list_of
from canarium_dashboard.views.steps import State
from canarium_operator.testing.scenario import START, Scenario, Traffic, make_spec

APPROVED = {
    "canary": {
        "steps": [{"weight": 10, "pause": "1m", "approval": True}, {"weight": 50, "pause": "1m"}]
    },
    "analysis": {"interval": "30s", "minSamples": 100},
}


def served() -> Scenario:
    """The first version serves."""
    return Scenario().settle()


def canary(**parts: Any) -> Scenario:
    """The second one is a canary at its first step."""
    return served().change(make_spec("2", **parts)).settle()


def failed() -> Scenario:
    """The second one was taken back at its first step."""
    scenario = canary()
    assert scenario.status.canary is not None
    bad = scenario.serves(scenario.status.canary.revision, Traffic(error_rate=0.2))
    return bad.later(30).settle().later(60).settle()


def page(scenario: Scenario, **known: Any) -> Detail:
    """Make the page of a scenario."""
    spec = scenario.spec.to_manifest()
    basis = Known(
        namespace="ml",
        name="fraud",
        generation=scenario.generation,
        spec=spec,
        status=scenario.status,
        now=scenario.now,
        may_act=True,
    )
    return detail_of(replace(basis, **known))


def verbs(found: Detail) -> list[str]:
    """Name the buttons."""
    return [offer.verb for offer in found.offers]


@pytest.mark.parametrize(
    ("scenario", "health"),
    [
        (Scenario(), Health.UNKNOWN),
        (served(), Health.HEALTHY),
        (served().change(make_spec("2")), Health.PROGRESSING),
        (canary(), Health.PROGRESSING),
        (canary(rollout=APPROVED).later(70).settle(), Health.WAITING),
        (failed(), Health.DEGRADED),
        (replace(served(), problem="the spec is wrong").settle(), Health.DEGRADED),
        (served().pods(served().wanted.name, 0).step(), Health.DEGRADED),
    ],
    ids=[
        "not seen",
        "serves",
        "spec not seen yet",
        "canary",
        "awaits approval",
        "taken back",
        "invalid",
        "lost all its pods",
    ],
)
def test_health_says_who_has_to_act(scenario: Scenario, health: Health) -> None:
    """What kstatus calls Failed needs attention, what waits for a person waits, and Ready is healthy."""
    assert page(scenario).health is health


def test_a_list_begins_with_what_needs_somebody() -> None:
    """Then by namespace and name."""
    found = [("a", served()), ("b", failed()), ("c", canary()), ("d", served())]
    view = list_of([(("ml", name), s.generation, s.status) for name, s in found], START)
    assert [row.name for row in view.rows] == ["b", "c", "a", "d"]
    assert view.counts == {"degraded": 1, "progressing": 1, "healthy": 2}
    rolling = view.rows[1]
    assert (rolling.weight, rolling.step, rolling.weights) == (10, 1, [10, 50, 100])


def test_a_status_of_an_older_spec_says_so() -> None:
    """Nobody may take the old message for one about the new spec."""
    found = page(served().change(make_spec("2")))
    assert found.message.startswith("the operator has not seen the present spec yet; before: ")


def test_steps_say_what_has_passed_and_until_when_the_present_one_lasts() -> None:
    """The pause ends a minute after the route was seen to carry the weight."""
    scenario = canary()
    row = page(scenario).steps
    assert [(s.title, s.state) for s in row] == [
        ("10%", State.CURRENT),
        ("50%", State.COMING),
        ("100%", State.COMING),
    ]
    assert row[0].until == scenario.now + timedelta(minutes=1)
    later = page(scenario.later(61).settle())
    assert [s.state for s in later.steps] == [State.PASSED, State.CURRENT, State.COMING]


def test_steps_of_special_kinds_have_names() -> None:
    """A preview and a shadow carry no weight that would tell of them."""
    blue = {"blueGreen": {"beforeSwitch": {"pause": "1m"}}}
    shadow = {"shadow": {"pause": "1m"}, "canary": {"steps": [{"weight": 100}]}}
    titles = [[s.title for s in page(canary(rollout=r)).steps] for r in (blue, shadow)]
    assert titles == [["preview", "100%"], ["shadow", "100%"]]


def test_a_failed_rollout_shows_where_and_why() -> None:
    """Steps, the checks as they stood, and what to do."""
    found = page(failed())
    assert [s.state for s in found.steps] == [State.FAILED, State.SKIPPED, State.SKIPPED]
    assert found.failure is not None
    assert found.failure.reason == "AnalysisFailed"
    assert found.failure.message.startswith("error-rate: 20% against stable's 0.1%")
    assert "serves" in found.failure.then
    assert [c.verdict for c in found.checks if c.name == "error-rate"] == [Verdict.FAIL]
    assert len(next(c for c in found.checks if c.name == "error-rate").points) == 1
    assert found.checks_words.startswith("As they stood when it was taken back")
    assert [r.role for r in found.revisions] == ["stable", "failed"]


def test_steps_that_were_edited_since_are_not_shown_as_those_that_failed() -> None:
    """Nothing is drawn that was not so."""
    scenario = failed()
    edited = {"canary": {"steps": [{"weight": 33, "pause": "1m"}]}}
    changed = scenario.change(make_spec("2", rollout=edited))
    assert steps.steps_of_failed(scenario.status, changed.spec) == []
    assert len(steps.steps_of_failed(scenario.status, scenario.spec)) == 3


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        (served(), []),
        (canary(), ["pause", "skip", "promote", "abort"]),
        (canary(rollout=APPROVED), ["approve", "pause", "skip", "promote", "abort"]),
        (
            replace(canary(), commands={"pause": "alice 1"}).settle(),
            ["resume", "skip", "promote", "abort"],
        ),
        (replace(canary(), commands={"promote": "alice 1"}).step(), ["pause", "abort"]),
        (failed(), ["retry"]),
    ],
    ids=["nothing under way", "canary", "needs approval", "paused", "promoted by hand", "failed"],
)
def test_only_what_the_operator_would_carry_out_is_offered(
    scenario: Scenario, expected: list[str]
) -> None:
    """Each offer is tried on the engine: none is refused."""
    found = page(scenario)
    assert verbs(found) == expected
    for offer in found.offers:
        value = f"alice 2 revision={offer.revision}" + (f" step={offer.step}" if offer.step else "")
        after = replace(scenario, commands={**scenario.commands, offer.verb: value}).step()
        assert after.status.actions[-1:] != scenario.status.actions[-1:], offer.verb


def test_an_approval_that_was_given_is_not_asked_again() -> None:
    """The step says so instead."""
    scenario = replace(canary(rollout=APPROVED), commands={"approve": "alice 1"}).settle()
    found = page(scenario)
    assert "approve" not in verbs(found)
    assert found.steps[0].approved
    assert [deed.by for deed in found.deeds] == ["alice"]


def test_revisions_have_digest_pods_inputs_and_lineage() -> None:
    """The canary is to take over from stable; stable says since when it serves."""
    scenario = canary()
    new, old = page(scenario).revisions
    assert (new.role, old.role) == ("canary", "stable")
    assert new.pods == "1 of 1 ready" or new.pods is not None
    assert new.lineage == f"to take over from {old.label}"
    assert old.lineage is not None
    assert old.lineage.startswith("serves since 2026-01-01")
    assert new.inputs == "input FP32[?,4]"
    assert new.source == "https://models/fraud/2.onnx"
    assert old.source is None, "the spec does not name it any more"


def point(name: str, **values: float) -> CheckPoint:
    """Make one measurement."""
    return CheckPoint(
        name=name, revision="r", step=1, at=START, value=0.003, **{"baseline": 0.001, **values}
    )


@pytest.mark.parametrize(
    ("name", "metric", "band"),
    [
        ("error-rate", {}, (0.0015, 0.005)),
        ("latency-p95", {}, (0.0010005, 0.001004)),
        ("accuracy", {"higherIsBetter": True, "mean": True}, (-0.003, 0.0005)),
    ],
    ids=["a share is a difference", "latency is a ratio", "worse is lower"],
)
def test_the_band_is_the_interval_of_the_effect_beside_stable(
    name: str, metric: dict[str, Any], band: tuple[float, float]
) -> None:
    """0.0005 to 0.004 worse than 0.001."""
    if metric.pop("mean", False):
        metric["mean"] = {"sum": "a", "sumOfSquares": "b", "count": "c"}
    spec = MetricSpec.from_manifest({"name": name, **metric})
    check = Check(name=name, verdict=Verdict.PASS, value=0.003, baseline=0.001)
    (found,) = checks.view_of(check, spec, [point(name, low=0.0005, high=0.004)]).points
    assert (found.low, found.high) == pytest.approx(band)


@pytest.mark.parametrize(
    ("metric", "lines"),
    [
        ({"name": "error-rate"}, [("stable + 1%", 0.02, True)]),
        ({"name": "error-rate", "max": "5%"}, [("max 5%", 0.05, True)]),
        ({"name": "latency-p95", "maxRatio": 1.5}, [("1.5 times stable", 0.015, True)]),
        ({"name": "latency-p95"}, [("stable + 25%", 0.0125, True)]),
        ({"name": "mine", "query": "q", "min": 0.9}, [("min 0.9", 0.9, False)]),
        ({"name": "mine", "query": "q", "maxIncrease": 2}, [("stable + 2", 2.01, True)]),
    ],
)
def test_limits_are_lines(metric: dict[str, Any], lines: list[tuple[str, float, bool]]) -> None:
    """Those that are beside stable's value move with it."""
    spec = MetricSpec.from_manifest(metric)
    check = Check(name=spec.name, verdict=Verdict.PASS, value=0.01, baseline=0.01)
    found = checks.view_of(check, spec, []).limits
    assert [(x.words, pytest.approx(x.value), x.above) for x in found] == lines


def test_evidence_says_how_much_more_is_needed() -> None:
    """For this step, and for the last one."""
    check = Check(
        name="error-rate",
        verdict=Verdict.TOO_FEW_SAMPLES,
        samples=40,
        needed=100,
        total_samples=1240,
        total_needed=14450,
    )
    assert [e.words for e in checks.view_of(check, None, []).evidence] == [
        "40 of 100 requests in this step: 60 more needed",
        "1\u202f240 of 14\u202f450 requests over all steps, for the last one: 13\u202f210 more needed",
    ]


def test_a_check_that_was_never_measured_draws_nothing() -> None:
    """And says so."""
    view = checks.view_of(Check(name="error-rate", verdict=Verdict.NO_DATA), None, [])
    assert (view.points, view.value, view.tone) == ([], None, "wait")
    assert view.alternative == "error-rate: no measurement was watched yet"


def test_a_spec_and_a_status_of_another_time_are_no_error() -> None:
    """A newer CRD may hold what this version does not know."""
    status = ModelDeploymentStatus.from_manifest({"phase": "Promoted", "observedGeneration": 3})
    found = page(served(), spec={"model": 5}, status=status, generation=3)
    assert found.phase == "Promoted"


def test_events_are_listed_latest_first() -> None:
    """Those of one second by the number of their transition."""
    told = [
        {"lastTimestamp": "2026-01-01T12:00:01Z", "reason": r, "metadata": {"name": f"fraud.0.{n}"}}
        for n, r in (("000001", "A"), ("000003", "C"), ("000002", "B"))
    ]
    late = {"eventTime": "2026-01-01T12:00:02.5Z", "reason": "D", "type": "Warning"}
    found = page(served(), events=[*told, late]).events
    assert [(e.reason, e.warning) for e in found] == [
        ("D", True),
        ("C", False),
        ("B", False),
        ("A", False),
    ]
