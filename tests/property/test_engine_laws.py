"""The laws of the rollout engine, held against random lives of a ModelDeployment."""

import math
import os
from collections.abc import Iterator
from datetime import timedelta
from functools import cache

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canarium_api import API_VERSION, KIND
from canarium_api.analysis import MetricSpec
from canarium_api.conditions import ConditionType, Reason
from canarium_api.experiment import GoalVerdict
from canarium_api.rollout import ReadyWhen, SchemaChange
from canarium_api.status import (
    MAX_ACTIONS,
    MAX_FAILED_REVISIONS,
    MAX_HISTORY,
    ModelDeploymentStatus,
    Phase,
    Verdict,
)
from canarium_operator.core.plan import canary_replicas, make_plan
from canarium_operator.core.rollout import analysis
from canarium_operator.core.rollout.contract import breaking_changes
from canarium_operator.core.rollout.engine import advance
from canarium_operator.core.rollout.inputs import (
    RESYNC,
    RolloutInput,
    current_step,
    gate_opens_at,
)
from canarium_operator.core.rollout.queries import QueryKind
from canarium_operator.core.rollout.state import is_legal
from canarium_operator.core.rollout.strategy import TESTED, Strategy, metrics_of
from canarium_operator.core.status import present
from canarium_operator.testing.cluster import FakeCluster
from canarium_operator.testing.objects import model_deployment
from canarium_operator.testing.scenario import REF, Scenario

from .engine_world import FREEZE, Action, Pass, Start, Wish, lives, wishes

EXAMPLES = min(5000, max(200, int(os.environ.get("SEEDS", "0"))))
"""SEEDS=5000 in the environment looks further."""
MAX_PASSES = 20
"""Passes after which one moment must have settled: the longest chain is every command, a withdrawal, a start and a
weight."""
FORWARD = frozenset({Reason.STEP_PASSED, Reason.PROMOTED})
ONWARDS = FORWARD | {Reason.ROLLOUT_STARTED, Reason.WEIGHT_CHANGED}


def passes(world: Scenario) -> Iterator[tuple[RolloutInput, Scenario]]:
    """Decide until the moment has settled."""
    for _ in range(MAX_PASSES):
        given_ = world.given()
        after = world.step()
        yield given_, after
        if after.status == world.status:
            return
        world = after
    msg = f"not settled after {MAX_PASSES} passes: {world.status.last_transition}"
    raise AssertionError(msg)


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(life=lives, wish=wishes, start=st.sampled_from((*Start, Start.CANARY, Start.CANARY)))
def test_the_laws_hold_in_every_life(life: list[Action], wish: Wish, start: Start) -> None:
    """Whatever happens, in whatever order, from the beginning or from the middle of a rollout."""
    world = start.reach(wish)
    set_back = 0.0
    failed: set[str] = set()
    for action in life:
        world = action.happen(world)
        if isinstance(action, Pass):
            set_back += max(0.0, -action.seconds)
        for given_, after in passes(world):
            before = given_.status
            no_traffic_waits_for_pods_that_are_gone(before, after.status)
            traffic_moves_only_to_what_clients_can_talk_to(given_, after.status)
            the_decision_follows_from_the_input_alone(given_, after)
            the_wait_is_bounded(given_, after, set_back)
            transitions_are_legal_and_numbered(before, after.status)
            steps_move_by_one_and_only_forward(given_, after.status)
            only_evidence_moves_a_rollout_on(given_, after.status)
            failures_are_remembered(before, after.status, failed)
            nothing_moves_on_while_it_is_held(given_, after.status)
            commands_are_carried_out_once(given_, after.status)
            conditions_agree(given_, after.status)
            the_status_can_be_stored(after.status)
            the_plan_keeps_what_serves(given_, after.status)
            world = after


def the_decision_follows_from_the_input_alone(given_: RolloutInput, after: Scenario) -> None:
    """The same input gives the same decision."""
    again = advance(given_)
    assert again == after.decision
    assert present(given_, again) == after.status


def the_wait_is_bounded(given_: RolloutInput, after: Scenario, set_back: float) -> None:
    """Nobody spins, and nobody sleeps through the next check."""
    assert after.decision is not None
    wait = after.decision.requeue_after
    longest = max(RESYNC, given_.spec.rollout.analysis.interval)
    assert timedelta(0) <= wait <= longest + timedelta(seconds=set_back)
    if after.status == given_.status:
        assert wait > timedelta(0)


def transitions_are_legal_and_numbered(
    before: ModelDeploymentStatus, after: ModelDeploymentStatus
) -> None:
    """One transition a call, each of the table, and none without a number."""
    assert after.epoch - before.epoch in (0, 1)
    if after.epoch == before.epoch:
        assert facts(after) == facts(before)
        assert after.last_transition == before.last_transition
        return
    assert after.last_transition is not None
    assert after.last_transition.epoch == after.epoch
    reason = Reason(after.last_transition.reason)
    assert is_legal(reason, before.phase, after.phase), f"{reason}: {before.phase} to {after.phase}"


def facts(status: ModelDeploymentStatus) -> object:
    """What only a transition changes."""
    rollout = status.rollout
    return (
        status.stable and (status.stable.revision, status.stable.served),
        status.canary and status.canary.revision,
        rollout and (rollout.step, rollout.weight, rollout.weights, rollout.step_started_at),
        status.failed_revisions,
        status.history,
    )


def steps_move_by_one_and_only_forward(given_: RolloutInput, after: ModelDeploymentStatus) -> None:
    """Unless the steps were edited; and the weight that is asked for is never above the step's, nor above what the
    canary's pods can carry.
    """
    before = given_.status
    assert (after.rollout is None) == (after.canary is None)
    if after.rollout is None or after.canary is None:
        return
    assert 0 <= after.rollout.weight <= after.rollout.weights[after.rollout.step - 1] <= 100
    assert 1 <= after.rollout.step <= after.rollout.steps == len(after.rollout.weights)
    assert after.last_transition is not None
    reason = after.last_transition.reason
    if before.rollout is None or before.canary is None:
        assert (after.rollout.step, after.rollout.weight) == (1, 0)
        return
    assert before.canary.revision == after.canary.revision
    moved = after.rollout.step - before.rollout.step
    if after.epoch == before.epoch:
        assert moved == 0
    elif reason == Reason.PROMOTED_BY_USER:
        assert (after.rollout.step, after.rollout.weights) == (1, [100])
        assert after.rollout.weight == before.rollout.weight
    elif reason != Reason.ROLLOUT_REPLANNED:
        assert moved == (reason in (Reason.STEP_PASSED, Reason.STEP_SKIPPED))
    if after.rollout.weight > before.rollout.weight:
        assert reason in (Reason.WEIGHT_CHANGED, Reason.STEP_PASSED)
        reserved, scaling = after.rollout.reserved_replicas, given_.spec.autoscaling
        needed = canary_replicas(after.rollout.weight, reserved, scaling)
        assert after.canary.ready_replicas >= needed
        assert after.canary.revision in given_.observed.services
        assert after.rollout.weight == after.rollout.weights[after.rollout.step - 1]


def no_traffic_waits_for_pods_that_are_gone(
    before: ModelDeploymentStatus, after: ModelDeploymentStatus
) -> None:
    """Once a moment has settled, a canary without a ready pod is asked to carry nothing."""
    if after == before and after.canary is not None and after.rollout is not None:
        assert after.canary.ready_replicas > 0 or after.rollout.weight == 0


def traffic_moves_only_to_what_clients_can_talk_to(
    given_: RolloutInput, after: ModelDeploymentStatus
) -> None:
    """Unless it is allowed, or a way back: both signatures are known and the new one breaks nothing."""
    stable, canary, rollout = after.stable, after.canary, after.rollout
    if stable is None or canary is None or rollout is None or after.last_transition is None:
        return
    before = given_.status.rollout.prepared_step if given_.status.rollout is not None else 0
    reasons = (Reason.WEIGHT_CHANGED, Reason.CANARY_PREPARED, Reason.STEP_PASSED)
    moved = after.last_transition.reason in reasons and rollout.prepared_step > before
    if after.epoch == given_.status.epoch or not moved:
        return  # a share that it was given while every change was allowed stays until the check of it fails
    if given_.spec.rollout.schema_change is SchemaChange.ALLOW:
        return
    if rollout.strategy == Strategy.DIRECT and canary.revision in {
        entry.revision for entry in after.history
    }:
        return
    assert stable.signature is not None
    assert canary.signature is not None
    assert breaking_changes(stable.signature, canary.signature) == []


def only_evidence_moves_a_rollout_on(given_: RolloutInput, after: ModelDeploymentStatus) -> None:
    """No step ends unless its pause is over and every check of the spec passes on a measurement taken since."""
    before, rollout = given_.status, given_.status.rollout
    spec = given_.spec.rollout.analysis
    if after.rollout is not None:
        assert all(check.failures <= spec.failure_limit for check in after.rollout.checks)
    if after.epoch == before.epoch or after.last_transition is None:
        return
    if after.last_transition.reason not in FORWARD:
        return
    assert rollout is not None
    opens_at = gate_opens_at(given_.spec, rollout)
    if opens_at is None:
        # The last step is over as soon as it begins, where it waits for nothing.
        assert after.last_transition.reason == Reason.PROMOTED
        assert current_step(given_).pause == timedelta(0)
        opens_at = given_.now
    assert given_.now >= opens_at
    if after.last_transition.reason == Reason.PROMOTED:
        assert rollout.weight == 100
        assert rollout.step == rollout.steps
    if rollout.strategy == Strategy.DIRECT:
        assert somebody_promoted(before) or was_stable(before)
        return
    if current_step(given_).approval:
        assert rollout.approved_step == rollout.step
    if current_step(given_).kind in TESTED:
        # Goals decide by their result; what else is checked guards the step.
        assert rollout.experiment is not None
        assert rollout.experiment.verdict is GoalVerdict.BETTER
    known = {check.name: check for check in rollout.checks}
    for metric in metrics_of(given_.spec.rollout, current_step(given_)):
        if given_.readings:
            assert is_good(given_, metric), metric.name
            continue
        check = known[metric.name]
        assert check.verdict is Verdict.PASS
        assert check.measured_at is not None
        assert check.measured_at >= opens_at
        assert check.limit == analysis.describe_limits(metric)


def somebody_promoted(status: ModelDeploymentStatus) -> bool:
    """Tell whether the canary goes to 100 % because somebody said so."""
    assert status.canary is not None
    return ("promote", status.canary.revision) in {(a.verb, a.revision) for a in status.actions}


def was_stable(status: ModelDeploymentStatus) -> bool:
    """Tell whether the canary was stable before."""
    assert status.canary is not None
    good = {e.revision for e in status.history if e.outcome in ("Deployed", "Promoted")}
    return status.canary.revision in good


def nothing_moves_on_while_it_is_held(given_: RolloutInput, after: ModelDeploymentStatus) -> None:
    """No rollout starts, no weight rises and no step passes during a pause or a freeze."""
    before, spec = given_.status, given_.spec.rollout
    if after.epoch == before.epoch or after.last_transition is None:
        return
    if after.last_transition.reason not in ONWARDS:
        return
    assert not spec.paused
    assert before.rollout is None or before.rollout.paused_by == ""
    assert after.rollout is None or after.rollout.paused_at is None
    direct = Strategy.DIRECT in {r.strategy for r in (before.rollout, after.rollout) if r}
    if spec.freezes and not direct:
        assert not FREEZE[0] <= f"{given_.now:%H:%M}" < FREEZE[1]


def commands_are_carried_out_once(given_: RolloutInput, after: ModelDeploymentStatus) -> None:
    """Each new value is one transition, which notes it and says by whom, or refuses it and changes nothing else."""
    before = given_.status
    if after == before:
        assert dict(given_.commands).items() <= after.handled_commands.items()
    if after.handled_commands == before.handled_commands or before.observed_generation < 0:
        return
    changed = after.handled_commands.items() - before.handled_commands.items()
    [(verb, value)] = changed
    assert given_.commands[verb] == value
    assert before.handled_commands.get(verb) != value
    assert after.epoch == before.epoch + 1
    assert after.last_transition is not None
    by = "somebody" if value.startswith("2026") else value.split()[0]
    assert by in after.last_transition.message
    if after.last_transition.reason == Reason.COMMAND_REFUSED:
        assert facts(after) == facts(before)
        assert after.actions == before.actions
    else:
        assert after.actions
        assert (after.actions[-1].verb, after.actions[-1].by) == (verb, by)
        assert "ffff" not in value
    assert len(after.actions) <= MAX_ACTIONS


def is_good(given_: RolloutInput, metric: MetricSpec) -> bool:
    """A second opinion on what Prometheus said in this pass, written from the documentation and not from the code."""
    status, numbers = given_.status, {}
    assert status.canary is not None
    assert status.stable is not None
    needed = metric.min_samples
    if needed is None:
        needed = given_.spec.rollout.analysis.min_samples
    roles = [status.canary.revision]
    if metric.max is None:  # a fixed limit asks nothing of stable
        roles.append(status.stable.revision)
    for query, reading in given_.readings.items():
        if not isinstance(reading, tuple):
            return False
        if query.kind is QueryKind.NUMBER and metric.name == "agreement":
            values = [series.value for series in reading]
            return len(values) == 1 and values[0] >= 0.9 and math.isfinite(values[0])
        for series in reading:
            numbers[series.labels.get("revision"), series.labels.get("status")] = series.value
    if metric.name == "agreement" or not metric.name.endswith("-rate"):
        return True
    shares = []
    for revision in roles:
        success, error, invalid = (
            numbers.get((revision, name), 0.0) for name in ("success", "error", "invalid")
        )
        bad, others = (
            (error, success) if metric.name == "error-rate" else (invalid, success + error)
        )
        if needed > 0 and not bad + others >= needed:
            return False
        shares.append(bad / (bad + others) if bad + others > 0 else 0.0)
    if metric.max is not None:
        return shares[0] <= metric.max
    return shares[0] - shares[1] < 0.25  # so much, on a hundred requests and more, is never chance


def failures_are_remembered(
    before: ModelDeploymentStatus, after: ModelDeploymentStatus, failed: set[str]
) -> None:
    """A revision that failed is tried again only when somebody asks."""
    failed |= {entry.revision for entry in after.failed_revisions}
    if after.last_transition is not None and after.epoch != before.epoch:
        if after.last_transition.reason == Reason.ROLLOUT_RETRIED:
            failed -= {e.revision for e in before.failed_revisions} - {
                e.revision for e in after.failed_revisions
            }
        if after.last_transition.reason == Reason.PROMOTED:
            assert before.canary is not None
            assert after.stable is not None
            assert after.stable.revision == before.canary.revision
    if after.canary is not None:
        assert after.canary.revision not in failed
    if after.stable is not None:
        assert after.stable.revision not in failed


def conditions_agree(given_: RolloutInput, status: ModelDeploymentStatus) -> None:
    """Ready is True only when the wanted revision serves in full, or its rollout is as far as the spec asks for; else
    either at work or stalled, never both.
    """
    found = {condition.type: condition for condition in status.conditions}
    assert len(found) == len(status.conditions)
    assert {c.observed_generation for c in status.conditions} == {given_.generation}
    ready = found[ConditionType.READY].status == "True"
    reconciling, stalled = ConditionType.RECONCILING in found, ConditionType.STALLED in found
    assert ready + reconciling + stalled == 1
    if ready:
        assert found[ConditionType.AVAILABLE].status == "True"
    if ready and status.phase is not Phase.PROMOTED:
        ready_early(given_, status)
    elif ready:
        assert given_.wanted is not None
        assert status.stable is not None
        assert status.stable.revision == given_.wanted.name
        assert status.stable.served
        assert status.stable.ready_replicas >= given_.spec.autoscaling.min_replicas
        assert given_.observed.route is not None
        assert given_.observed.route.accepted
        assert given_.observed.weight(given_.wanted.name) == 100
    if found[ConditionType.AVAILABLE].status == "True":
        assert status.stable is not None
        assert status.stable.ready_replicas > 0


def ready_early(given_: RolloutInput, status: ModelDeploymentStatus) -> None:
    """An unfinished rollout counts as ready only where the spec says so, and never one that is being taken back."""
    spec, rollout = given_.spec.rollout, status.rollout
    assert spec.ready_when is not ReadyWhen.PROMOTED
    assert given_.wanted is not None
    assert given_.wanted.name not in {failure.revision for failure in status.failed_revisions}
    assert status.stable is not None
    if rollout is None:
        held = spec.paused or bool(spec.freezes)
        assert status.stable.revision == given_.wanted.name or (
            spec.ready_when is ReadyWhen.ADMITTED and held
        )
        return
    assert status.canary is not None
    assert status.canary.revision == given_.wanted.name
    if spec.ready_when is ReadyWhen.STEP_REACHED:
        step = min(spec.ready_step or 1, rollout.steps)
        assert rollout.step >= step
        assert rollout.prepared_step >= step
        assert rollout.weight >= rollout.weights[step - 1]
        assert rollout.evidence_since is not None
    else:
        assert status.canary.revision in given_.observed.workloads


@cache
def cluster() -> FakeCluster:
    return FakeCluster()


def the_status_can_be_stored(status: ModelDeploymentStatus) -> None:
    """It is within its bounds, it is JSON, the schema takes it as it is, and it comes back unchanged."""
    assert len(status.failed_revisions) <= MAX_FAILED_REVISIONS
    assert len(status.retiring) <= MAX_FAILED_REVISIONS
    assert len(status.history) <= MAX_HISTORY
    stored = status.to_manifest()
    assert ModelDeploymentStatus.from_manifest(stored) == status
    body = {**model_deployment(), "apiVersion": API_VERSION, "kind": KIND, "status": stored}
    admitted = cluster().admitted(body)
    assert ModelDeploymentStatus.from_manifest(admitted["status"]) == status


def the_plan_keeps_what_serves(given_: RolloutInput, status: ModelDeploymentStatus) -> None:
    """The stable revision is never dropped, weights sum to 100, and no canary gets more than its step's."""
    plan = make_plan(REF, given_.spec, status, given_.observed, given_.wanted)
    if status.stable is None:
        assert plan.weights is None
        return
    assert plan.weights is not None
    assert sum(plan.weights.values()) == 100
    assert all(weight > 0 for weight in plan.weights.values())
    assert status.stable.revision in plan.kept
    assert set(plan.weights) <= plan.kept
    assert {entry.revision for entry in status.retiring} <= plan.kept
    for planned in plan.revisions:
        assert 1 <= planned.min_replicas <= planned.max_replicas
        assert planned.revision.name in plan.kept
    if status.canary is not None and status.rollout is not None:
        share = plan.weights.get(status.canary.revision, 0)
        assert share == status.rollout.weight <= status.rollout.weights[status.rollout.step - 1]
        assert status.canary.revision in plan.kept
