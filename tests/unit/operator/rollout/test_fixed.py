"""Several versions that serve for good, each with a weight of its own."""

from dataclasses import replace
from typing import Any

import pytest

from canarium_api.conditions import ConditionType, Reason
from canarium_api.status import Phase, VersionState
from canarium_operator.core import versions
from canarium_operator.core.observation import LoadProblem
from canarium_operator.core.plan import make_plan
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.resources.route import weights_of
from canarium_operator.core.revision import revision_of
from canarium_operator.core.validation import validate
from canarium_operator.testing.cluster import SIGNATURE
from canarium_operator.testing.scenario import IMAGE, REF, Scenario, make_spec

V1, V2, V3, V4 = (revision_of(make_spec(v), IMAGE).name for v in "1234")
BAD = LoadProblem(reason="DigestMismatch", message="expected a, got b", permanent=True)


def fixed(main: str, rollout: dict[str, Any] | None = None, **named: tuple[str, int]) -> Any:
    """A spec of fixed versions: `fixed("1", eu=("2", 30))`."""
    asked = [
        {"name": n, "weight": w, "model": {"uri": f"https://models/fraud/{v}.onnx", "version": v}}
        for n, (v, w) in named.items()
    ]
    return make_spec(main, rollout={"fixed": {"versions": asked}, **(rollout or {})})


def serving(main: str = "1", **named: tuple[str, int]) -> Scenario:
    """All versions serve."""
    return Scenario(spec=fixed(main, **named)).settle()


def weights(world: Scenario) -> dict[str, int]:
    """What the route gives."""
    assert world.observed.route is not None
    return dict(world.observed.route.weights)


def states(world: Scenario) -> dict[str, tuple[VersionState, int]]:
    return {v.name: (v.state, v.weight) for v in world.status.versions}


def condition(world: Scenario, kind: ConditionType) -> tuple[str, str]:
    found = next((c for c in world.status.conditions if c.type == kind), None)
    return (found.status, found.reason) if found is not None else ("", "")


def reasons(world: Scenario, limit: int = 20) -> tuple[Scenario, list[str]]:
    """Decide and act until nothing more happens, and give the transitions."""
    found = []
    for _ in range(limit):
        before = world.status.epoch
        world = world.step().act()
        if world.status.epoch != before:
            assert world.status.last_transition is not None
            found.append(world.status.last_transition.reason)
    return world, found


@pytest.mark.parametrize(
    ("total", "percent", "pods"), [(12, 30, 4), (12, 100, 12), (12, 1, 3), (50, 90, 20)]
)
def test_pods_for_a_share(total: int, percent: int, pods: int) -> None:
    """The first row is the worked example."""
    scaling = make_spec(autoscaling={"minReplicas": 3, "maxReplicas": 20}).autoscaling
    assert pods == versions.pods_for(total, percent, scaling)


def test_main_serves_first_and_then_all_have_their_weights() -> None:
    """Three versions, 50, 30 and 20 %; one transition plans, one moves."""
    world, found = reasons(Scenario(spec=fixed("1", eu=("2", 30), us=("3", 20))))
    assert found == ["FirstDeployment", "Deployed", "VersionsPlanned", "VersionsChanged"]
    assert weights(world) == {V1: 50, V2: 30, V3: 20}
    assert world.status.phase is Phase.PROMOTED
    assert world.status.message == "the versions serve with main 50%, eu 30%, us 20%"
    assert condition(world, ConditionType.READY) == ("True", Reason.SERVING)
    assert world.status.summary.canary == "eu:30%,us:20%"
    [main, eu, us] = world.status.versions
    assert (main.revision, eu.revision, us.model_version) == (V1, V2, "3")
    assert {eu.ready_replicas, us.ready_replicas} == {2}


def test_a_header_reaches_each_version() -> None:
    """Also one that has no share at all."""
    world = serving(eu=("2", 30), lab=("3", 0))
    plan = make_plan(REF, world.spec, world.status, world.observed, world.wanted)
    assert [(r.name, r.value, r.revision) for r in plan.rules] == [
        ("x-canarium-version", "main", V1),
        ("x-canarium-version", "eu", V2),
        ("x-canarium-version", "lab", V3),
    ]
    [route] = [m for m in desired_children(plan) if m["kind"] == "HTTPRoute"]
    assert weights_of(route) == {V1: 70, V2: 30}
    assert world.status.phase is Phase.PROMOTED


def test_a_new_version_gets_nothing_before_its_pods_are_ready() -> None:
    """`main` has its share until then; Ready is False."""
    world = Scenario(spec=make_spec("1")).settle().change(fixed("1", eu=("2", 30)))
    world = world.step().act(ready=False).step()
    assert weights(world) == {V1: 100}
    assert world.status.phase is Phase.LOADING
    assert condition(world, ConditionType.READY) == ("False", Reason.AWAITING_PODS)
    assert world.decision is not None
    assert f"eu: 0 of 2 pods of v2@{V2[:8]} are ready" in world.decision.waiting
    assert states(world.settle())["eu"] == (VersionState.SERVING, 30)


def test_other_weights_move_at_once_when_the_pods_for_them_are_ready() -> None:
    """8 and 2 pods carry all: 80 % needs 8 of eu, which are brought up first."""
    world = serving(eu=("2", 20))
    world = replace(world, spec=world.spec)
    busy = replace(world.observed.workload(V1), spec_replicas=8, replicas=8, ready_replicas=8)
    seen = replace(world.observed, workloads={**world.observed.workloads, V1: busy})
    world = replace(world, observed=seen).change(fixed("1", eu=("2", 80)))
    world = world.step().act(ready=False).step()
    assert weights(world) == {V1: 80, V2: 20}
    assert world.observed.workload(V2).spec_replicas == 8
    world = world.settle()
    assert weights(world) == {V1: 20, V2: 80}
    assert world.status.phase is Phase.PROMOTED
    assert world.observed.workload(V2).spec_replicas == 8
    plan_of = make_plan(REF, world.spec, world.status, world.observed, world.wanted)
    assert {p.revision.name: p.min_replicas for p in plan_of.revisions}[V2] == 8
    later = world.later(301).step()
    plan_of = make_plan(REF, later.spec, later.status, later.observed, later.wanted)
    assert {p.revision.name: p.min_replicas for p in plan_of.revisions}[V2] == 2


def test_a_changed_version_replaces_its_predecessor_which_drains() -> None:
    """The name keeps its weight throughout."""
    world = serving(eu=("2", 30)).change(fixed("1", eu=("3", 30))).step().act(ready=False)
    assert weights(world) == {V1: 70, V2: 30}
    world = world.act().step().act()
    assert weights(world) == {V1: 70, V3: 30}
    assert [entry.revision for entry in world.status.retiring] == [V2]
    assert world.status.phase is Phase.PROMOTING
    world = world.later(31).settle()
    assert world.status.retiring == []
    assert world.status.phase is Phase.PROMOTED
    plan = make_plan(REF, world.spec, world.status, world.observed, world.wanted)
    assert V2 not in plan.kept


def test_main_is_replaced_the_same_way() -> None:
    """No steps; the stable revision of the status is the new one."""
    world = serving(eu=("2", 30)).change(fixed("3", eu=("2", 30))).settle()
    assert weights(world) == {V3: 70, V2: 30}
    assert world.status.stable is not None
    assert world.status.stable.revision == V3
    assert world.status.stable.signature is not None
    assert world.status.history[-1].outcome == "Promoted"


def test_two_versions_may_change_places() -> None:
    """Both revisions run already."""
    world = serving(eu=("2", 30)).change(fixed("2", eu=("1", 30))).settle()
    assert weights(world) == {V2: 70, V1: 30}
    assert world.status.retiring == []
    assert world.status.phase is Phase.PROMOTED


def test_a_version_that_cannot_load_keeps_its_predecessor() -> None:
    """It is remembered and not tried again; a retry tries it."""
    world = serving(eu=("2", 30)).change(fixed("1", eu=("3", 30))).step().act(ready=False)
    world = world.pods(V3, 0, BAD).step()
    assert world.status.last_transition is not None
    assert world.status.last_transition.reason == Reason.MODEL_LOAD_FAILED
    assert "v2@" in world.status.last_transition.message
    assert states(world)["eu"] == (VersionState.FAILED, 30)
    world = world.act().later(31).settle()
    assert weights(world) == {V1: 70, V2: 30}
    assert world.status.phase is Phase.ABORTED
    assert condition(world, ConditionType.STALLED) == ("True", Reason.MODEL_LOAD_FAILED)
    assert "eu: v3@" in world.status.message
    assert [f.revision for f in world.status.failed_revisions] == [V3]
    mended = replace(world, observed=replace(world.observed, workloads={
        name: w for name, w in world.observed.workloads.items() if name != V3
    }))  # fmt: skip
    retried = replace(mended, commands={"retry": "alice 1"}).settle()
    assert weights(retried) == {V1: 70, V3: 30}
    assert condition(retried, ConditionType.STALLED) == ("", "")


def test_a_new_version_that_cannot_load_leaves_its_share_to_main() -> None:
    """The other one serves all the same."""
    world = Scenario(spec=make_spec("1")).settle()
    world = world.change(fixed("1", eu=("2", 30), us=("3", 20))).step().act(ready=False)
    world = world.pods(V3, 0, BAD).step().act().settle()
    assert weights(world) == {V1: 70, V2: 30}
    assert states(world)["us"] == (VersionState.FAILED, 0)
    world = world.later(31).settle()
    assert condition(world, ConditionType.STALLED)[0] == "True"
    assert "main has its share" in world.status.message
    world = world.change(fixed("1", eu=("2", 30))).settle()
    assert world.status.phase is Phase.PROMOTED
    assert condition(world, ConditionType.READY)[0] == "True"


def test_pods_that_are_late_are_given_up_after_the_deadline() -> None:
    """Like a canary's."""
    world = serving(eu=("2", 30)).change(fixed("1", eu=("3", 30))).step().act(ready=False)
    assert world.later(599).step().status.failed_revisions == []
    world = world.later(601).step()
    assert world.status.last_transition is not None
    assert world.status.last_transition.reason == Reason.PROGRESS_DEADLINE_EXCEEDED


def test_a_version_that_breaks_clients_gets_nothing() -> None:
    """Its inputs and outputs are compared with those of `main`, whose clients ask it, too."""
    world = Scenario(spec=make_spec("1")).settle().change(fixed("1", eu=("2", 30)))
    other = SIGNATURE.model_copy(update={"outputs": []})
    world = replace(world, signatures={V2: other})
    world, found = reasons(world)
    assert "IncompatibleSchema" in found
    assert weights(world) == {V1: 100}
    allowed = fixed("1", {"schemaChange": "Allow"}, eu=("2", 30))
    world = Scenario(spec=make_spec("1")).settle().change(allowed)
    assert weights(replace(world, signatures={V2: other}).settle()) == {V1: 70, V2: 30}


def test_a_version_without_pods_leaves_its_share_to_main_until_they_are_back() -> None:
    """At once, as for a canary."""
    world = serving(eu=("2", 30)).pods(V2, 0).step()
    assert world.status.last_transition is not None
    assert world.status.last_transition.reason == Reason.CAPACITY_LOST
    plan = make_plan(REF, world.spec, world.status, world.observed, world.wanted)
    assert plan.weights == {V1: 100}
    assert weights(world.settle()) == {V1: 70, V2: 30}


def test_a_removed_version_gives_its_share_back_and_drains() -> None:
    """After `main` has the pods for it."""
    world = serving(eu=("2", 30), us=("3", 20)).change(fixed("1", eu=("2", 30))).settle()
    assert weights(world) == {V1: 70, V2: 30}
    assert [v.name for v in world.status.versions] == ["main", "eu"]
    assert [entry.revision for entry in world.status.retiring] == [V3]


def test_a_pause_holds_what_is_asked_for() -> None:
    """What serves goes on serving."""
    world = serving(eu=("2", 30)).change(fixed("1", {"paused": True}, eu=("2", 60))).settle()
    assert weights(world) == {V1: 70, V2: 30}
    assert world.status.phase is Phase.PAUSED
    assert weights(world.change(fixed("1", eu=("2", 60))).settle()) == {V1: 40, V2: 60}


def test_from_a_canary_in_the_middle_to_fixed_versions() -> None:
    """The canary is withdrawn, and what it was comes up again as the spec says."""
    canary = Scenario(spec=make_spec("1")).settle().change(make_spec("2")).settle()
    assert weights(canary) == {V1: 90, V2: 10}
    world, found = reasons(canary.change(fixed("1", eu=("2", 30))))
    assert found[0] == "RolloutSuperseded"
    assert weights(world) == {V1: 70, V2: 30}
    assert world.status.retiring == []


def test_from_fixed_versions_to_a_canary() -> None:
    """All traffic goes to `main`, and then the rollout begins."""
    world = serving(eu=("2", 30)).change(make_spec("3"))
    world, found = reasons(world)
    assert found[:3] == ["VersionsPlanned", "VersionsChanged", "RolloutStarted"]
    assert world.status.versions == []
    assert weights(world) == {V1: 90, V3: 10}


def test_from_the_middle_of_a_change_to_another_strategy() -> None:
    """What was coming up goes, and `main` has everything."""
    world = serving(eu=("2", 30)).change(fixed("1", eu=("3", 60))).step().act(ready=False)
    world = world.change(make_spec("1")).settle()
    assert weights(world) == {V1: 100}
    assert world.status.versions == []
    assert {entry.revision for entry in world.status.retiring} == {V2, V3}
    assert world.later(31).settle().status.phase is Phase.PROMOTED


def test_an_invalid_spec_lets_all_serve_as_they_do() -> None:
    """And a mended one goes on."""
    world = serving(eu=("2", 30))
    broken = replace(world, problem="spec.x: is wrong", generation=7).settle()
    assert weights(broken) == {V1: 70, V2: 30}
    assert broken.status.phase is Phase.INVALID
    assert replace(broken, problem=None, generation=8).settle().status.phase is Phase.PROMOTED


def test_one_model_under_two_names_is_refused() -> None:
    """They would be one revision."""
    [problem] = validate(fixed("1", eu=("2", 30), us=("2", 20)))
    assert str(problem) == (
        "spec.rollout.fixed.versions[1].model: is that of eu, too: give us another model, or remove it"
    )
    [problem] = validate(fixed("1", eu=("1", 30)))
    assert "is that of main" in str(problem)


def test_they_need_a_gateway() -> None:
    """The API server says so, and the operator where that was not asked."""
    spec = fixed("1", eu=("2", 30))
    traffic = spec.traffic.model_copy(update={"gateway": None})
    [problem] = validate(spec.model_copy(update={"traffic": traffic}))
    assert "needs a gateway" in str(problem)
