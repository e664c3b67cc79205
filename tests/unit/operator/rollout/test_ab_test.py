"""A/B tests: who gets which version, what is counted, how it ends."""

from dataclasses import replace
from typing import Any

import pytest

from canarium_api.conditions import Reason
from canarium_api.experiment import GoalVerdict
from canarium_api.status import Phase
from canarium_operator.core.diff import Delete, diff
from canarium_operator.core.observing import observe
from canarium_operator.core.plan import Plan, make_plan
from canarium_operator.core.resources import route, router
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.rollout.experiment import PART
from canarium_operator.core.rollout.queries import Query, QueryFailure, Reading, Series
from canarium_operator.core.validation import validate
from canarium_operator.testing.scenario import REF, Scenario, Traffic, make_spec

ORDERS = {
    "name": "orders",
    "proportion": {
        "events": 'sum(increase(orders_total{revision="{{revision}}"}[{{window}}]))',
        "trials": 'sum(increase(visits_total{revision="{{revision}}"}[{{window}}]))',
    },
    "higherIsBetter": True,
    "minEffect": "1%",
}
STICKY = {"sticky": {"header": "x-user-id"}, "share": 40}
HEADER = {"header": {"name": "x-group", "value": "b"}}
COOKIE = {"cookie": {"name": "group", "value": "b"}}


def spec_of(version: str = "2", **test: Any) -> Any:
    """Build the spec of a test of one version."""
    body = {"goals": ["orders"], "minDuration": "0s", "maxDuration": "10h", **STICKY, **test}
    if "header" in test or "cookie" in test:
        del body["sticky"]
    rollout = {
        "abTest": body,
        "analysis": {
            "interval": "30s",
            "minSamples": 100,
            "metrics": [{"name": "error-rate", "minEffect": "5%"}, ORDERS],
        },
    }
    return make_spec(version, rollout=rollout)


def orders(scenario: Scenario, a: float, b: float, visits: float = 10_000) -> Scenario:
    """Let a share of the visitors of each version order something."""
    canary = scenario.wanted.name

    def answer(query: Query) -> Reading:
        if not query.metric:
            quiet = replace(scenario, metrics=None)
            return quiet._answer(query)
        if query.part == "trials":
            return (Series(value=visits),)
        return (Series(value=visits * (b if query.revisions == (canary,) else a)),)

    return replace(scenario, metrics=answer)


def running(**test: Any) -> Scenario:
    """Bring a test of version 2 to where users get it."""
    stable = Scenario(spec=spec_of("1", **test)).settle()
    scenario = orders(stable.change(spec_of("2", **test)), 0.04, 0.04, visits=200).settle()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.step_started_at is not None
    return scenario


def plan_of(scenario: Scenario) -> Plan:
    return make_plan(
        REF, scenario.spec, scenario.status, scenario.observed, scenario.given().wanted
    )


def test_users_of_a_sticky_test_are_led_through_the_router() -> None:
    """The route leads everything to the router, and tells it the split; it is read back as weights."""
    scenario = running()
    plan = plan_of(scenario)
    assert plan.split is not None
    made = route.make_route(plan, plan.weights or {})
    (rule,) = made["spec"]["rules"]
    assert [b["name"] for b in rule["backendRefs"]] == ["fraud-router"]
    stable, canary = scenario.status.stable, scenario.status.canary
    assert stable is not None
    assert canary is not None
    assert route.weights_of(made) == {stable.revision: 60, canary.revision: 40}
    assert route.reached_by(made) == {stable.revision, canary.revision}
    assert route.is_by_router(made)
    assert (scenario.status.phase, canary.weight) == (Phase.CANARY, 40)


@pytest.mark.parametrize("test", [HEADER, COOKIE])
def test_a_header_or_cookie_leads_to_the_new_version_and_all_else_to_stable(
    test: dict[str, Any],
) -> None:
    """No weight moves, and no router is made."""
    scenario = running(**test)
    plan = plan_of(scenario)
    stable, canary = scenario.status.stable, scenario.status.canary
    assert stable is not None
    assert canary is not None
    assert plan.router is None
    made = route.make_route(plan, plan.weights or {})
    assert route.weights_of(made) == {stable.revision: 100}
    assert route.reached_by(made) == {stable.revision, canary.revision}
    assert len(made["spec"]["rules"]) == 2


def test_no_user_is_led_to_a_router_that_is_not_ready() -> None:
    """The route waits for the router's pods; when all are lost, it goes around them."""
    stable = Scenario(spec=spec_of("1")).settle()
    scenario = orders(stable.change(spec_of("2")), 0.04, 0.04).step().act()
    scenario = replace(scenario, observed=replace(scenario.observed, router_ready=1)).step()
    assert scenario.decision is not None
    assert scenario.decision.blocked_on is Reason.AWAITING_PODS
    assert "1 of 2 pods of the router" in scenario.status.message
    lost = running()
    lost = replace(lost, observed=replace(lost.observed, router_ready=0)).step()
    assert lost.status.last_transition is not None
    assert lost.status.last_transition.reason == Reason.CAPACITY_LOST
    assert plan_of(lost).split is None


def concluded(scenario: Scenario) -> Scenario:
    return scenario.later(31).step()


def test_a_winner_holds_until_somebody_decides() -> None:
    """B is better: nothing moves by itself, and the message says what to do."""
    scenario = orders(running(), 0.04, 0.06)
    scenario = concluded(scenario)
    assert scenario.status.last_transition is not None
    assert scenario.status.last_transition.reason == Reason.EXPERIMENT_CONCLUDED
    scenario = scenario.settle()
    rollout = scenario.status.rollout
    assert rollout is not None
    assert rollout.experiment is not None
    assert rollout.experiment.verdict is GoalVerdict.BETTER
    assert (scenario.status.phase, rollout.blocked_on) == (Phase.PAUSED, "AwaitingDecision")
    assert "canarium promote" in scenario.status.message
    (goal,) = rollout.experiment.goals
    assert goal.effect == pytest.approx(0.02)
    assert goal.p_value is not None
    assert goal.p_value < 0.05
    later = scenario.later(7 * 86400).settle()
    assert later.status.phase == Phase.PAUSED
    promoted = replace(later, commands={"promote": "ana 1"}).settle()
    assert promoted.status.phase in (Phase.PROMOTING, Phase.PROMOTED)


def test_a_winner_is_promoted_where_the_spec_asks_for_it() -> None:
    """Over a step with all the traffic, whose guards must pass."""
    scenario = orders(running(onWinner="Promote"), 0.04, 0.06)
    reasons = []
    for _ in range(60):
        scenario = scenario.later(10).step().act()
        assert scenario.status.last_transition is not None
        reasons.append(scenario.status.last_transition.reason)
        if scenario.status.canary is None:
            break
    assert Reason.EXPERIMENT_CONCLUDED in reasons
    assert Reason.PROMOTED in reasons
    assert "better by 2%" in scenario.status.history[-1].message


def test_a_loser_is_taken_back() -> None:
    """B is worse: it is taken back with the evidence, unless the spec says to hold."""
    scenario = concluded(orders(running(), 0.06, 0.04)).settle()
    assert scenario.status.canary is None
    failure = scenario.status.failed_revisions[-1]
    assert failure.reason == Reason.EXPERIMENT_FAILED
    assert "worse by 2%" in failure.message
    held = concluded(orders(running(onLoser="Hold"), 0.06, 0.04)).settle()
    assert held.status.phase == Phase.PAUSED


def test_no_difference_is_a_result() -> None:
    """The whole interval is smaller than what matters."""
    scenario = concluded(orders(running(), 0.04, 0.04, visits=400_000)).settle()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.experiment is not None
    assert scenario.status.rollout.experiment.verdict is GoalVerdict.NO_DIFFERENCE
    assert scenario.status.phase == Phase.PAUSED


def test_a_test_ends_undecided_and_not_before_its_least_time() -> None:
    """Without significance until maxDuration; a winner not before minDuration; a loser at once."""
    scenario = orders(running(), 0.04, 0.0405, visits=1500)
    for _ in range(3):
        scenario = scenario.later(3600).settle()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.blocked_on == "ExperimentRunning"
    for _ in range(8):
        scenario = scenario.later(3600).settle()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.experiment is not None
    assert scenario.status.rollout.experiment.concluded_at is not None
    assert scenario.status.rollout.experiment.verdict is GoalVerdict.UNDECIDED
    early = concluded(orders(running(minDuration="1h"), 0.04, 0.06)).settle()
    assert early.status.rollout is not None
    assert early.status.rollout.blocked_on == "ExperimentRunning"
    loser = concluded(orders(running(minDuration="1h"), 0.06, 0.04)).settle()
    assert loser.status.canary is None


def test_a_share_that_is_raised_goes_on_with_the_evidence() -> None:
    """The counts begin anew, the evidence is carried on, and the route has the new share."""
    scenario = orders(running(), 0.04, 0.042).later(31).settle()
    before = scenario.status.rollout
    assert before is not None
    assert before.experiment is not None
    scenario = orders(scenario.change(spec_of("2", share=70)), 0.04, 0.042).settle()
    after = scenario.status.rollout
    assert after is not None
    assert after.experiment is not None
    assert (after.weight, after.experiment.share) == (70, 70)
    assert after.experiment.started_at == before.experiment.started_at
    assert after.experiment.goals[0].better.rest < 1
    assert scenario.observed.route is not None
    assert scenario.observed.route.by_router


def test_a_guard_takes_a_bad_version_back_during_a_test() -> None:
    """What is no goal guards the test, as in any rollout."""
    scenario = running()
    scenario = replace(scenario, metrics=None).serves(scenario.wanted.name, Traffic(error_rate=0.2))
    scenario = scenario.later(31).step()
    assert scenario.status.last_transition is not None
    assert scenario.status.last_transition.reason == Reason.ANALYSIS_FAILED


def test_missing_data_decide_nothing() -> None:
    """A query that fails leaves what was counted as it was, and says so."""
    scenario = orders(running(), 0.04, 0.041, visits=3000).later(31).settle()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.experiment is not None
    counted = scenario.status.rollout.experiment.goals[0]
    scenario = replace(scenario, failure=QueryFailure(message="timed out")).later(31).settle()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.experiment is not None
    goal = scenario.status.rollout.experiment.goals[0]
    assert goal.open == counted.open
    assert "timed out" in goal.message
    assert goal.verdict is GoalVerdict.UNDECIDED


def test_whoever_has_the_new_version_keeps_it_until_the_switch() -> None:
    """While pods for all the traffic are awaited, users stay where the router, or their header, leads them."""
    for test in (STICKY, HEADER):
        scenario = concluded(orders(running(**test), 0.04, 0.06)).settle()
        for verb in ("skip", "promote"):
            waiting = replace(scenario, commands={verb: "ana 1"}).step()
            plan = plan_of(waiting)
            assert (plan.split is not None) == ("sticky" in test), verb
            assert bool(plan.rules) == ("header" in test), verb


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"goals": ["sales"]}, "spec.rollout.abTest.goals[0]"),
        ({"minDuration": "20h"}, "spec.rollout.abTest.minDuration"),
    ],
)
def test_what_cannot_be_decided_is_refused(changes: dict[str, Any], field: str) -> None:
    """With the field, and the remedy."""
    problems = validate(spec_of(**changes))
    assert field in [problem.field for problem in problems]


def test_a_test_needs_a_gateway() -> None:
    """Nothing else tells users apart."""
    spec = spec_of()
    without = spec.model_copy(update={"traffic": spec.traffic.model_copy(update={"gateway": None})})
    assert "spec.rollout.abTest" in [problem.field for problem in validate(without)]


def test_the_router_is_seen_as_it_is_made() -> None:
    """What the plan makes is read back: pods, Deployment, and the route's split; no pod of it counts as a server's."""
    plan = plan_of(running())
    children = [
        {**child, "metadata": {**child["metadata"], "generation": 1}}
        for child in desired_children(plan)
    ]
    (deployment,) = [c for c in children if c["kind"] == "Deployment" and router.is_router(c)]
    template = deployment["spec"]["template"]
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    for number, status in enumerate((ready, ready, {"phase": "Pending"})):
        meta = {"name": f"router-{number}", "labels": template["metadata"]["labels"]}
        children.append({"kind": "Pod", "metadata": meta, "status": status})
    seen = observe(children, plan.spec)
    assert (seen.has_router, seen.router_ready) == (True, 2)
    assert seen.strays == frozenset()
    assert seen.route is not None
    assert seen.route.by_router
    assert seen.route.weights == plan.weights
    kinds = {child["kind"] for child in children if router.is_router(child)}
    assert kinds >= {"Service", "Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler"}


def test_the_router_stays_until_nobody_is_led_to_it() -> None:
    """It is deleted after the route was seen to lead around it and the loser has drained, and with nothing left."""
    scenario = concluded(orders(running(), 0.06, 0.04))
    children = desired_children(plan_of(scenario))
    taken_back = scenario.act().step()
    assert taken_back.status.canary is None
    plan = plan_of(taken_back)
    doomed = [c for c in diff(plan, desired_children(plan), children) if isinstance(c, Delete)]
    assert not [change for change in doomed if router.is_router(change.manifest)]
    drained = taken_back.act().later(60).settle()
    assert drained.status.phase == Phase.ABORTED
    plan = plan_of(drained)
    around = desired_children(plan)
    old = [child for child in children if child["kind"] != "HTTPRoute"]
    gone = [c for c in diff(plan, around, [*old, *around]) if isinstance(c, Delete)]
    assert len([change for change in gone if router.is_router(change.manifest)]) == 4


def test_a_part_of_a_long_test_is_added_to_those_before() -> None:
    """Six hours of counts are kept in the status, and the next part is asked for from there on."""
    scenario = orders(running(maxDuration="30d"), 0.04, 0.041, visits=700)
    for _ in range(14):
        scenario = scenario.later(3600).settle()
    assert scenario.status.rollout is not None
    experiment = scenario.status.rollout.experiment
    assert experiment is not None
    assert experiment.goals[0].closed.canary["trials"] == 1400
    assert experiment.goals[0].samples == 2100
    assert experiment.part_since is not None
    assert scenario.now - experiment.part_since < PART
