"""Shadows: who gets copies of requests, what is asked of the answers, and what a gateway that cannot copy does."""

from dataclasses import replace
from typing import Any

import pytest

from canarium_api.conditions import ConditionType, Reason
from canarium_api.shadow import FLIP_RATE, MISMATCH_RATE, PSI, RANK_CORRELATION
from canarium_api.status import Check, Phase, Verdict
from canarium_operator.core.diff import Delete, diff
from canarium_operator.core.mirroring import unsupported
from canarium_operator.core.observation import GatewayClass
from canarium_operator.core.observing import observe, read_gateway_class
from canarium_operator.core.plan import Plan, make_plan
from canarium_operator.core.resources import comparer, route
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.rollout.queries import Query, Reading, Series
from canarium_operator.core.rollout.state import is_legal
from canarium_operator.core.validation import validate
from canarium_operator.testing.scenario import REF, Scenario, make_spec

TRAEFIK = GatewayClass(name="traefik", features=frozenset({"HTTPRoute", "HTTPRouteMethodMatching"}))
MIRRORS = GatewayClass(name="any", features=frozenset({"HTTPRouteRequestMirror"}))
SHADOW = {"pause": "2m"}


def spec_of(version: str = "2", *, shadow: Any = SHADOW, **rollout: Any) -> Any:
    """Build the spec of a rollout with a shadow, before a canary of 10, 50 and 100 %."""
    base = make_spec().rollout.to_manifest()
    parts = {"canary": base["canary"], "analysis": base["analysis"], **rollout}
    if shadow is not None:
        parts["shadow"] = shadow
    return make_spec(version, rollout={k: v for k, v in parts.items() if v is not None})


def compared(
    scenario: Scenario,
    *,
    pairs: float = 2000,
    flips: float = 0.0,
    mismatches: float = 0.0,
    psi: float | None = 0.01,
    correlation: float | None = 1.0,
) -> Scenario:
    """Set what the comparer has counted."""
    values = {
        (FLIP_RATE, "events"): pairs * flips,
        (FLIP_RATE, "trials"): pairs,
        (MISMATCH_RATE, "events"): pairs * mismatches,
        (MISMATCH_RATE, "trials"): pairs,
        (PSI, "query"): psi,
        (RANK_CORRELATION, "query"): correlation,
    }

    def answer(query: Query) -> Reading:
        if (query.metric, query.part) in values:
            value = values[query.metric, query.part]
            return (Series(value=value),) if value is not None else ()
        return replace(scenario, metrics=None)._answer(query)

    return replace(scenario, metrics=answer)


def shadowed(spec: Any = None, *, served: Any = None) -> Scenario:
    """Bring version 2 to where it gets copies."""
    spec = spec if spec is not None else spec_of()
    stable = Scenario(spec=served if served is not None else spec_of("1")).settle()
    scenario = compared(stable.change(spec), pairs=0, psi=None, correlation=None).settle()
    rollout = scenario.status.rollout
    assert rollout is not None
    assert rollout.step_started_at is not None
    assert rollout.step == 1
    return scenario


def plan_of(scenario: Scenario) -> Plan:
    return make_plan(
        REF, scenario.spec, scenario.status, scenario.observed, scenario.given().wanted
    )


def check(scenario: Scenario, name: str) -> Check:
    assert scenario.status.rollout is not None
    return next(c for c in scenario.status.rollout.checks if c.name == name)


def test_a_shadow_comes_before_the_steps_of_any_strategy() -> None:
    """The shadow's step has no weight, and pods for what is copied."""
    scenario = shadowed(spec_of(shadow={"percent": 50, **SHADOW}))
    rollout = scenario.status.rollout
    assert rollout is not None
    assert rollout.weights == [0, 10, 50, 100]
    assert (rollout.strategy, rollout.weight) == ("canary", 0)
    assert scenario.status.stable is not None
    assert scenario.status.stable.weight == 100
    colours = shadowed(spec_of(canary=None, blueGreen={}))
    assert colours.status.rollout is not None
    assert colours.status.rollout.weights == [0, 0, 100]
    alone = shadowed(spec_of(canary=None))
    assert alone.status.rollout is not None
    assert alone.status.rollout.weights == [0, 1, 5, 10, 25, 50, 100]


def test_copies_go_to_the_shadow_while_stable_answers_everybody() -> None:
    """The route has one mirror, and the share is named only where it is a share."""
    plan = plan_of(shadowed())
    made = route.make_route(plan, plan.weights or {})
    (rule,) = made["spec"]["rules"]
    (mirror,) = rule["filters"]
    assert mirror["type"] == "RequestMirror"
    assert "percent" not in mirror["requestMirror"]
    (canary,) = route.mirrored_by(made)
    assert route.weights_of(made) == plan.weights
    assert canary not in (plan.weights or {})
    assert canary in route.reached_by(made)
    half = plan_of(shadowed(spec_of(shadow={"percent": 50})))
    made = route.make_route(half, half.weights or {})
    assert route.mirrored_by(made) == {canary: 50}


def test_nothing_is_copied_before_the_pods_are_ready_nor_after_the_step() -> None:
    """Copies begin with the prepared step and end with its last moment; so does the comparer, which comes earlier."""
    stable = Scenario(spec=spec_of("1")).settle()
    starting = stable.change(spec_of()).step().act(ready=False).step()
    plan = plan_of(starting)
    assert plan.mirror is None
    assert plan.comparer is not None
    passed = compared(shadowed()).later(120).settle()
    assert passed.status.rollout is not None
    assert passed.status.rollout.step == 2
    plan = plan_of(passed)
    assert (plan.mirror, plan.comparer) == (None, None)


def test_the_comparer_is_removed_after_the_step_and_never_taken_for_a_server() -> None:
    """All its objects carry its label; none is a revision's."""
    plan = plan_of(shadowed())
    children = [
        {**child, "metadata": {**child["metadata"], "uid": "u"}} for child in desired_children(plan)
    ]
    mine = [child for child in children if comparer.is_of_comparer(child)]
    kinds = sorted(child["kind"] for child in mine)
    assert kinds == ["ConfigMap", "Deployment", "Service", "Service"]
    deployment = next(child for child in mine if child["kind"] == "Deployment")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**deployment["spec"]["template"]["metadata"], "name": "c", "namespace": "ml"},
        "status": {"phase": "Running"},
    }
    seen = observe([*children, pod], plan.spec)
    assert sum(w.replicas for w in seen.workloads.values()) == 0
    assert seen.strays == frozenset()
    changes = diff(replace(plan, comparer=None), [], children)
    gone = {c.manifest["metadata"]["name"] for c in changes if isinstance(c, Delete)}
    assert gone == {child["metadata"]["name"] for child in mine}


def test_names_of_the_comparers_objects_are_no_longer_than_a_service_may_be() -> None:
    """The longest name of a ModelDeployment is 52 characters, that of a Service 63."""
    plan = plan_of(shadowed())
    assert plan.comparer is not None
    ref = replace(REF, name="n" * 52)
    for child in comparer.make_comparer(ref, plan.comparer):
        assert len(child["metadata"]["name"]) <= 63


def test_equal_answers_let_the_rollout_go_on() -> None:
    """Pause over, pairs enough: the step passes, and the first user's request may come."""
    scenario = compared(shadowed()).later(120).settle()
    assert scenario.status.rollout is not None
    assert (scenario.status.rollout.step, scenario.status.rollout.weight) == (2, 10)
    last = scenario.status.rollout.checks
    assert all(not c.name.startswith("shadow") for c in last if c.measured_at is not None)


@pytest.mark.parametrize(
    ("counted", "name"),
    [({"flips": 0.2}, FLIP_RATE), ({"psi": 0.6}, PSI)],
)
def test_other_answers_take_the_canary_back_before_a_user_sees_one(
    counted: dict[str, Any], name: str
) -> None:
    """The weight was never above 0; the failure names the check."""
    scenario = compared(shadowed(), **counted).later(30).settle()
    assert scenario.status.canary is None
    (failure,) = scenario.status.failed_revisions
    assert failure.reason == Reason.ANALYSIS_FAILED
    assert name in failure.message


def test_a_rate_is_held_against_its_limit_by_a_confidence_sequence() -> None:
    """Six flips of a hundred pairs prove nothing about a limit of 5 %: neither pass nor fail."""
    scenario = compared(shadowed(), pairs=100, flips=0.06).later(120).settle()
    found = check(scenario, FLIP_RATE)
    assert found.verdict is Verdict.TOO_FEW_SAMPLES
    assert "not clear of the limit of 5%" in found.message
    assert scenario.decision is not None
    assert scenario.decision.blocked_on == Reason.AWAITING_SAMPLES
    many = compared(scenario, pairs=100_000, flips=0.06).later(30).step()
    assert many.status.canary is None
    few = compared(scenario, pairs=2000, flips=0.03).later(30).step()
    assert check(few, FLIP_RATE).verdict is Verdict.PASS
    low, high = check(few, FLIP_RATE).interval or (0, 1)
    assert low < 0.03 < high <= 0.05


def test_mismatches_are_shown_and_decide_only_where_they_are_asked_for() -> None:
    """A retrained model answers with other numbers: that alone is no fault."""
    by_default = compared(shadowed(), mismatches=0.9).later(30).step()
    found = check(by_default, MISMATCH_RATE)
    assert found.dry_run
    assert by_default.status.canary is not None
    metrics = [{"name": MISMATCH_RATE, "max": "2%"}, {"name": RANK_CORRELATION}]
    asked = spec_of(analysis={"interval": "30s", "minSamples": 100, "metrics": metrics})
    refused = compared(shadowed(asked), mismatches=0.9).later(30).step()
    assert refused.status.canary is None
    turned = compared(shadowed(asked), correlation=0.2).later(30).step()
    assert turned.status.canary is None


def test_a_silent_comparer_holds_the_step_and_says_where_to_look() -> None:
    """Missing evidence never passes; users notice nothing."""
    scenario = shadowed()
    silent = replace(scenario, metrics=_silent(scenario)).later(120).settle()
    assert silent.status.rollout is not None
    assert silent.status.rollout.step == 1
    assert "comparer" in silent.status.message
    assert silent.status.rollout.blocked_on == Reason.NO_DATA


def _silent(scenario: Scenario) -> Any:
    def answer(query: Query) -> Reading:
        return () if query.metric else replace(scenario, metrics=None)._answer(query)

    return answer


def test_a_shadow_whose_pods_are_gone_gets_no_copies() -> None:
    """The step starts over when one is back."""
    scenario = shadowed()
    (canary,) = scenario.observed.route.mirrored if scenario.observed.route else ()
    lost = scenario.pods(canary, 0).step()
    assert lost.status.last_transition is not None
    assert lost.status.last_transition.reason == Reason.CAPACITY_LOST
    assert plan_of(lost).mirror is None


def test_an_approval_ends_the_step_where_one_is_asked_for() -> None:
    """Evidence first, then somebody's consent."""
    scenario = compared(shadowed(spec_of(shadow={"pause": "0s", "approval": True}))).later(30)
    waits = scenario.settle()
    assert waits.status.phase is Phase.PAUSED
    approved = replace(waits, commands={"approve": "me 1"}).settle()
    assert approved.status.rollout is not None
    assert approved.status.rollout.step == 2


def test_a_gateway_that_cannot_copy_is_refused_before_anything_starts() -> None:
    """Stalled with the class's name and the remedy; stable serves; a gateway that can lets it go on."""
    stable = Scenario(spec=spec_of("1")).settle()
    observed = replace(stable.observed, gateway_class=TRAEFIK)
    scenario = replace(stable, observed=observed).change(spec_of()).settle()
    assert scenario.status.canary is None
    stalled = [c for c in scenario.status.conditions if c.type is ConditionType.STALLED]
    assert [c.reason for c in stalled] == [Reason.MIRROR_UNSUPPORTED]
    assert "traefik" in scenario.status.message
    assert "HTTPRouteRequestMirror" in scenario.status.message
    first = replace(stable, observed=observed).change(spec_of()).step().status
    assert first.last_transition is not None
    reason = Reason(first.last_transition.reason)
    assert is_legal(reason, stable.status.phase, first.phase)
    better = replace(scenario, observed=replace(scenario.observed, gateway_class=MIRRORS))
    assert compared(better).settle().status.canary is not None


def test_a_gateway_that_cannot_copy_gets_no_mirror_in_the_middle_either() -> None:
    """The spec moves to another gateway during the shadow: the copies end at once, and it says why."""
    scenario = shadowed()
    observed = replace(scenario.observed, gateway_class=TRAEFIK)
    moved = replace(scenario, observed=observed).step().step()
    assert plan_of(moved).mirror is None
    assert moved.decision is not None
    assert moved.decision.blocked_on == Reason.MIRROR_UNSUPPORTED
    assert any(c.type is ConditionType.STALLED for c in moved.status.conditions)
    later = compared(shadowed()).later(120).settle()
    at_weights = replace(later, observed=replace(later.observed, gateway_class=TRAEFIK)).step()
    assert all(c.type is not ConditionType.STALLED for c in at_weights.status.conditions)


def test_a_class_without_a_list_of_features_is_given_the_benefit_of_the_doubt() -> None:
    """Some controllers that can copy requests publish none."""
    assert unsupported(spec_of(), None) is None
    assert unsupported(spec_of(), GatewayClass(name="envoy", features=frozenset())) is None
    half = spec_of(shadow={"percent": 50})
    assert "HTTPRouteRequestPercentageMirror" in (unsupported(half, MIRRORS) or "")
    assert unsupported(spec_of(), MIRRORS) is None


@pytest.mark.parametrize(
    "listed", [["HTTPRouteRequestMirror"], [{"name": "HTTPRouteRequestMirror"}]]
)
def test_features_are_read_in_both_shapes(listed: list[Any]) -> None:
    """Names before the Gateway API 1.2, objects since."""
    manifest = {"metadata": {"name": "any"}, "status": {"supportedFeatures": listed}}
    assert read_gateway_class(manifest) == MIRRORS
    assert read_gateway_class({"metadata": {"name": "any"}}).features == frozenset()


def test_editing_the_steps_never_passes_a_shadow_over() -> None:
    """In the shadow's step, a preview that is added after it is not gone to at once."""
    edited = shadowed().change(spec_of(canary=None, blueGreen={})).step()
    assert edited.status.rollout is not None
    assert (edited.status.rollout.weights, edited.status.rollout.step) == ([0, 0, 100], 1)
    at_ten = compared(_at_ten())
    added = at_ten.change(spec_of()).step()
    assert added.status.rollout is not None
    assert (added.status.rollout.step, added.status.rollout.weight) == (2, 10)


def _at_ten() -> Scenario:
    stable = Scenario(spec=spec_of("1", shadow=None)).settle()
    scenario = stable.change(spec_of(shadow=None)).settle()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.weight == 10
    return scenario


def test_going_back_needs_no_shadow() -> None:
    """A revision that was good goes back at once, on any gateway."""
    scenario = Scenario(spec=spec_of("1")).settle()
    scenario = compared(scenario.change(spec_of())).settle()
    for _ in range(8):
        scenario = scenario.later(130).settle()
    assert scenario.status.phase is Phase.PROMOTED
    observed = replace(scenario.observed, gateway_class=TRAEFIK)
    back = replace(scenario, observed=observed).change(spec_of("1")).settle()
    assert back.status.rollout is None or back.status.rollout.strategy == "direct"
    assert back.status.stable is not None
    assert back.status.stable.model_version == "1"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (
            make_spec(rollout={"analysis": {"metrics": [{"name": FLIP_RATE}]}}),
            "spec.rollout.analysis.metrics[0].name",
        ),
        (
            make_spec(
                rollout={
                    "shadow": {},
                    "analysis": {"metrics": [{"name": FLIP_RATE, "maxIncrease": 1}]},
                }
            ),
            "spec.rollout.analysis.metrics[0].maxIncrease",
        ),
        (make_spec(rollout={"shadow": {"metrics": ["no-such"]}}), "spec.rollout.shadow.metrics"),
        (make_spec(rollout={"shadow": {}}, traffic={}), "spec.rollout.shadow"),
    ],
)
def test_a_shadow_that_cannot_be_is_refused_with_the_field(spec: Any, field: str) -> None:
    """Each problem names where it is."""
    assert field in [problem.field for problem in validate(spec)]
