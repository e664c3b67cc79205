"""Outside systems that must agree to the end of a step: whom to ask, and what their answers mean.

No answer is not a yes: whatever is not a plain approval holds the step, and only an explicit `abort` takes the canary
back.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from canarium_api.conditions import Reason
from canarium_api.rollout import WebhookGate
from canarium_api.status import GateStatus, RolloutStatus
from canarium_operator.core.rollout.answers import GateAnswer
from canarium_operator.core.rollout.endings import roll_back
from canarium_operator.core.rollout.inputs import (
    Decision,
    RolloutInput,
    canary_is_wanted,
    gate_opens_at,
    sooner,
    with_status,
)
from canarium_operator.core.rollout.strategy import Strategy


def due_gates(given: RolloutInput) -> tuple[WebhookGate, ...]:
    """Name the systems to ask in this pass: those of the step whose pause is over, an interval after the last time."""
    rollout = given.status.rollout
    if rollout is None or rollout.paused_at is not None or not canary_is_wanted(given):
        return ()
    opens_at = gate_opens_at(given.spec, rollout)
    if opens_at is None or given.now < opens_at:
        return ()
    known = {gate.name: gate for gate in rollout.gates}
    interval = given.spec.rollout.analysis.interval

    def is_due(gate: WebhookGate) -> bool:
        last = known.get(gate.name)
        if last is None or last.asked_at is None:
            return True
        return not last.approved and given.now >= last.asked_at + interval

    return tuple(gate for gate in gates_of(given, rollout) if is_due(gate))


def gates_of(given: RolloutInput, rollout: RolloutStatus) -> list[WebhookGate]:
    """Give the systems that are asked at the present step; none on a way back, or where somebody promotes at once."""
    if rollout.strategy == Strategy.DIRECT:
        return []
    return [g for g in given.spec.rollout.gates if g.steps is None or rollout.step in g.steps]


def question(given: RolloutInput) -> dict[str, Any]:
    """Write what an outside system is told: the object, both revisions, the step, and its checks."""
    status = given.status
    assert status.rollout is not None  # noqa: S101 - asked only during a rollout
    return {
        "namespace": given.ref.namespace,
        "name": given.ref.name,
        "epoch": status.epoch,
        "canary": status.canary.to_manifest() if status.canary is not None else None,
        "stable": status.stable.to_manifest() if status.stable is not None else None,
        "step": status.rollout.step,
        "steps": status.rollout.steps,
        "weight": status.rollout.weight,
        "checks": [check.to_manifest() for check in status.rollout.checks],
    }


def with_answers(given: RolloutInput, answers: Mapping[str, GateAnswer]) -> RolloutInput:
    """Take the answers of this pass up, and forget those of gates that are gone."""
    rollout = given.status.rollout
    if rollout is None:
        return given
    known = {gate.name: gate for gate in rollout.gates}
    for name, answer in answers.items():
        known[name] = GateStatus(
            name=name, approved=answer.approved, message=answer.message, asked_at=given.now
        )
    gates = [known[g.name] for g in gates_of(given, rollout) if g.name in known]
    changed = rollout.model_copy(update={"gates": gates})
    return with_status(given, given.status.model_copy(update={"rollout": changed}))


def refused(given: RolloutInput, answers: Mapping[str, GateAnswer]) -> Decision | None:
    """Take the canary back when an outside system asks for it."""
    for name, answer in answers.items():
        if answer.abort:
            return roll_back(given, Reason.GATE_REFUSED, f"{name}: {answer.message}")
    return None


def awaits_gates(given: RolloutInput, rollout: RolloutStatus) -> Decision | None:
    """Wait until every outside system of the step has agreed."""
    known = {gate.name: gate for gate in rollout.gates}
    for gate in gates_of(given, rollout):
        found = known.get(gate.name)
        if found is not None and found.approved:
            continue
        said = found.message if found is not None else "not asked yet"
        wait = given.spec.rollout.analysis.interval if found is not None else timedelta(seconds=1)
        return Decision(
            status=given.status,
            requeue_after=sooner(wait, given.spec.rollout.analysis.interval),
            blocked_on=Reason.AWAITING_GATE,
            waiting=f"{gate.name} ({gate.url.split('?')[0]}): {said}; it is asked again every interval",
        )
    return None
