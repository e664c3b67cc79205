"""From a decision to the status that people and tools read: phase, message, conditions, summary.

What kstatus, Flux, `kubectl wait` and Argo CD do with it is in docs/reference/status.md. In short: `Ready`
means that the revision of the spec fully serves, or is as far as `readyWhen` asks for (`core.readiness`),
`Available` that some good revision serves; `Reconciling` and `Stalled` are there only while True. Exactly one of
these holds: Ready is True, Reconciling, Stalled.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Literal

from canarium_api.conditions import Condition, ConditionType, Reason, merge_conditions
from canarium_api.fixed import MAIN
from canarium_api.status import (
    ModelDeploymentStatus,
    Phase,
    RolloutStatus,
    Summary,
    Transition,
    Verdict,
)
from canarium_operator.core import readiness, versions
from canarium_operator.core.outcomes.texts import standing
from canarium_operator.core.rollout import capacity, contract
from canarium_operator.core.rollout.engine import shortfall_of, stall_of
from canarium_operator.core.rollout.inputs import Decision, RolloutInput, display, with_status
from canarium_operator.core.rollout.state import phase_of

_WATCHED: Final = (Reason.AWAITING_PODS, Reason.AWAITING_ROUTE)
"""Waits that end when a watch says so."""
_HELD: Final = (
    Reason.PAUSED,
    Reason.FROZEN,
    Reason.AWAITING_APPROVAL,
    Reason.AWAITING_DECISION,
    Reason.MIRROR_UNSUPPORTED,
)
"""Waits that only somebody, or the calendar, can end."""
Truth = Literal["True", "False", "Unknown"]
Maker = Callable[[ConditionType, Truth, Reason, str], Condition]


def present(given: RolloutInput, decision: Decision) -> ModelDeploymentStatus:
    """Complete a decided status.

    Args:
        given: what was decided on; its status holds the previous conditions.
        decision: what was decided.
    """
    status = decision.status
    wanted = given.wanted.name if given.wanted is not None else None
    phase = phase_of(status, wanted, invalid=given.problem is not None)
    if decision.blocked_on in _HELD and phase is not Phase.INVALID:
        phase = Phase.PAUSED
    stall = stall_of(with_status(given, status))
    message = _message(given, decision, phase, stall)
    rollout = status.rollout
    if rollout is not None:
        blocked = decision.blocked_on
        rollout = rollout.model_copy(
            update={
                "blocked_on": blocked.value if blocked is not None else None,
                "next_check_at": _next_check(given.now, decision),
            }
        )
    status = status.model_copy(
        update={
            "observed_generation": given.generation,
            "phase": phase,
            "message": message,
            "rollout": rollout,
            "summary": _summary(status, rollout),
        }
    )
    conditions = _conditions(given, decision, status, stall)
    return status.model_copy(
        update={"conditions": merge_conditions(given.status.conditions, conditions)}
    )


def _next_check(now: datetime, decision: Decision) -> datetime | None:
    """Round to the second: a finer figure would be one more write for nothing, and so would be any for what a watch
    tells of.
    """
    if decision.blocked_on in _WATCHED:
        return None
    at = now + decision.requeue_after
    return at.replace(microsecond=0)


def _summary(status: ModelDeploymentStatus, rollout: RolloutStatus | None) -> Summary:
    canary = display(status.canary) if status.canary is not None else ""
    if status.versions:
        others = (v for v in status.versions if v.name != MAIN)
        canary = ",".join(f"{v.name}:{v.weight}%" for v in others)
    return Summary(
        step=f"{rollout.step}/{rollout.steps}" if rollout is not None else "",
        canary=canary,
        stable=display(status.stable) if status.stable is not None else "",
    )


def _message(
    given: RolloutInput, decision: Decision, phase: Phase, stall: tuple[Reason, str] | None
) -> str:
    """Say in one sentence what it is doing, why and until when."""
    status = decision.status
    if stall is not None:
        return stall[1]
    rollout = status.rollout
    if rollout is not None:
        place = f"step {rollout.step}/{rollout.steps} ({rollout.weight}%)"
        waiting = decision.waiting or (
            status.last_transition.message if status.last_transition is not None else ""
        )
        return f"{place}: {waiting}"
    if phase is Phase.ROLLING_BACK and status.history:
        return f"{status.history[-1].message}; {decision.waiting}".removesuffix("; ")
    if decision.waiting:
        return decision.waiting
    if phase is Phase.PROMOTED and status.versions:
        return f"the versions serve with {versions.words(status)}"
    if phase is Phase.PROMOTED and status.stable is not None:
        return f"{display(status.stable)} serves all the traffic"
    if status.last_transition is not None:
        return status.last_transition.message
    return "seen; nothing exists yet"


def _conditions(
    given: RolloutInput,
    decision: Decision,
    status: ModelDeploymentStatus,
    stall: tuple[Reason, str] | None,
) -> list[Condition]:
    condition = _maker(given.generation, given.now)
    activity = stall[0] if stall is not None else _activity(given, decision, status)
    serves = status.phase is Phase.PROMOTED and activity is Reason.SERVING
    ready = condition(
        ConditionType.READY,
        "True" if stall is None and serves else "False",
        activity,
        status.message,
    )
    early = readiness.early(given, decision, status) if stall is None else None
    if early is not None:
        words = f"{early.words}; {status.message}"
        ready = condition(ConditionType.READY, "True", early.reason, words)
    going: Truth = "True" if stall is None else "False"
    conditions = [
        ready,
        _available(status, condition),
        condition(ConditionType.PROGRESSING, going, activity, status.message),
        _model_loaded(given, status, condition),
    ]
    ready_for = capacity.readiness(with_status(given, status))
    if ready_for is not None:
        conditions.append(condition(ConditionType.CAPACITY_READY, *ready_for))
    compatible = contract.compatibility(with_status(given, status))
    if compatible is not None:
        conditions.append(condition(ConditionType.COMPATIBLE, *compatible))
    gates = _gates(status, condition)
    if gates is not None:
        conditions.append(gates)
    outcome = standing(status.gitops)
    if outcome is not None:
        conditions.append(condition(ConditionType.OUTCOME_RECORDED, *outcome))
    if stall is not None:
        conditions.append(condition(ConditionType.STALLED, "True", stall[0], stall[1]))
    elif ready.status == "False":
        conditions.append(condition(ConditionType.RECONCILING, "True", activity, status.message))
    return conditions


def _maker(generation: int, now: datetime) -> Maker:
    def condition(kind: ConditionType, truth: Truth, reason: Reason, message: str) -> Condition:
        return Condition(
            type=kind,
            status=truth,
            reason=reason,
            message=message[:32768],
            last_transition_time=now.replace(microsecond=0),
            observed_generation=generation,
        )

    return condition


def present_unreadable(
    status: ModelDeploymentStatus, generation: int, problems: str, now: datetime
) -> ModelDeploymentStatus:
    """Give the status of an object whose spec cannot even be read; all that runs goes on as it is.

    Args:
        status: the previous status.
        generation: of the spec.
        problems: each mistake with its field and remedy.
        now: the present.
    """
    condition = _maker(generation, now)
    before = {c.type: c for c in status.conditions}
    kept = [
        before[kind].model_copy(update={"observed_generation": generation})
        for kind in (ConditionType.AVAILABLE,)
        if kind in before
    ]
    wanted = [
        condition(ConditionType.READY, "False", Reason.INVALID_SPEC, problems),
        *kept,
        condition(ConditionType.PROGRESSING, "False", Reason.INVALID_SPEC, problems),
        condition(ConditionType.STALLED, "True", Reason.INVALID_SPEC, problems),
    ]
    changes: dict[str, Any] = {
        "observed_generation": generation,
        "phase": Phase.INVALID,
        "message": problems,
        "conditions": merge_conditions(status.conditions, wanted),
    }
    stalled = before.get(ConditionType.STALLED)
    if stalled is None or stalled.reason != Reason.INVALID_SPEC:
        changes["epoch"] = status.epoch + 1
        changes["last_transition"] = Transition(
            epoch=status.epoch + 1,
            reason=Reason.INVALID_SPEC,
            message=problems[:1000],
            warning=True,
            at=now,
        )
    return status.model_copy(update=changes)


def _activity(given: RolloutInput, decision: Decision, status: ModelDeploymentStatus) -> Reason:
    """Name what is done, or waited for, while nothing is wrong."""
    if status.phase is Phase.PROMOTED:
        shortfall = shortfall_of(with_status(given, status))
        return Reason.SERVING if shortfall is None else shortfall[0]
    if decision.blocked_on is not None:
        return decision.blocked_on
    if status.last_transition is not None:
        return Reason(status.last_transition.reason)
    return Reason.PENDING


def _available(status: ModelDeploymentStatus, condition: Maker) -> Condition:
    stable = status.stable
    if stable is not None and stable.served and stable.ready_replicas > 0:
        return condition(
            ConditionType.AVAILABLE,
            "True",
            Reason.SERVING,
            f"{display(stable)} serves with {stable.ready_replicas} ready pods",
        )
    if stable is not None and stable.served:
        return condition(
            ConditionType.AVAILABLE,
            "False",
            Reason.STABLE_UNAVAILABLE,
            f"no pod of {display(stable)} is ready",
        )
    return condition(
        ConditionType.AVAILABLE, "False", Reason.AWAITING_PODS, "no revision has served yet"
    )


def _model_loaded(
    given: RolloutInput, status: ModelDeploymentStatus, condition: Maker
) -> Condition:
    wanted = given.wanted
    if wanted is None:
        return condition(
            ConditionType.MODEL_LOADED, "Unknown", Reason.INVALID_SPEC, "the spec names no revision"
        )
    workload = given.observed.workload(wanted.name)
    if workload.ready_replicas > 0:
        return condition(
            ConditionType.MODEL_LOADED, "True", Reason.SERVING, f"{wanted.display} is loaded"
        )
    if workload.problem is not None:
        return condition(
            ConditionType.MODEL_LOADED,
            "False",
            Reason.MODEL_LOAD_FAILED,
            f"{workload.problem.reason}: {workload.problem.message}",
        )
    failure = next((f for f in status.failed_revisions if f.revision == wanted.name), None)
    if failure is not None:
        loaded = failure.reason not in (
            Reason.MODEL_LOAD_FAILED,
            Reason.PROGRESS_DEADLINE_EXCEEDED,
        )
        return condition(
            ConditionType.MODEL_LOADED,
            "Unknown" if loaded else "False",
            Reason(failure.reason),
            f"{wanted.display} is no longer run: {failure.message}",
        )
    return condition(
        ConditionType.MODEL_LOADED, "Unknown", Reason.AWAITING_PODS, f"{wanted.display} is loading"
    )


def _gates(status: ModelDeploymentStatus, condition: Maker) -> Condition | None:
    rollout = status.rollout
    if rollout is None or not rollout.checks:
        return None
    words = "; ".join(f"{check.name}: {check.message or check.verdict}" for check in rollout.checks)
    verdicts = {check.verdict for check in rollout.checks}
    if Verdict.FAIL in verdicts:
        return condition(ConditionType.GATES_PASSING, "False", Reason.CHECK_FAILING, words)
    if verdicts == {Verdict.PASS}:
        return condition(ConditionType.GATES_PASSING, "True", Reason.STEP_PASSED, words)
    missing = Reason.AWAITING_SAMPLES
    if Verdict.ERROR in verdicts:
        missing = Reason.METRICS_UNAVAILABLE
    elif Verdict.NO_DATA in verdicts:
        missing = Reason.NO_DATA
    elif Verdict.PENDING in verdicts:
        missing = Reason.AWAITING_MEASUREMENT
    return condition(ConditionType.GATES_PASSING, "Unknown", missing, words)
