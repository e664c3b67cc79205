"""`advance`: one pass of the rollout engine, a pure function from what is known to what is decided.

Laws, each held by property tests and by the simulation:

- one transition a call, and each has its own epoch; the same input gives the same decision;
- the step moves by at most one, and only after its pause and with every check passing on a fresh measurement;
- the route is never asked for more than the current step's weight;
- a failed check, a lost deadline or a model that cannot load takes all traffic back in the same decision;
- missing evidence holds; it never promotes;
- a failed revision is not tried again until somebody asks.

The status that comes out is written before anything is done for it, and everything that is done follows from
it (`core.plan`).
"""

from collections.abc import Callable
from typing import Final

from canarium_api.conditions import ConditionType, Reason
from canarium_api.status import RevisionStatus, RolloutStatus, VersionState
from canarium_operator.core import versions
from canarium_operator.core.plan import splitter_of
from canarium_operator.core.revision import Revision
from canarium_operator.core.rollout import (
    capacity,
    contract,
    fixed,
    golden,
    holds,
    replicas,
    shadow,
)
from canarium_operator.core.rollout.bootstrap import first_deployment, nothing_to_bring_up
from canarium_operator.core.rollout.commands import obey
from canarium_operator.core.rollout.contract import with_signatures
from canarium_operator.core.rollout.endings import (
    drain,
    failure_of,
    still_draining,
    until_kept_are_over,
    withdraw,
)
from canarium_operator.core.rollout.inputs import (
    POLL,
    RESYNC,
    Decision,
    RolloutInput,
    deadline_of,
    display,
    live,
    transition,
    unrouted,
    with_status,
    without,
)
from canarium_operator.core.rollout.steps import carry_out_steps
from canarium_operator.core.rollout.strategy import Strategy, steps_of, strategy_of

ALREADY_ANNOUNCED: Final = frozenset(
    {
        Reason.ANALYSIS_FAILED,
        Reason.ANALYSIS_TIMED_OUT,
        Reason.PROGRESS_DEADLINE_EXCEEDED,
        Reason.MODEL_LOAD_FAILED,
        Reason.ABORTED_BY_USER,
        Reason.ROLLOUT_TIMED_OUT,
        Reason.GATE_REFUSED,
        Reason.EXPERIMENT_FAILED,
        Reason.INCOMPATIBLE_SCHEMA,
        Reason.VALIDATION_FAILED,
        Reason.ROLLED_BACK,
    }
)
"""Endings whose own event has said why the object is stalled now."""


def advance(given: RolloutInput) -> Decision:
    """Decide the next transition, or what is waited for."""
    given = capacity.sized(_refresh(fixed.seen(given)))
    for rule in _RULES:
        decided = rule(given)
        if decided is not None:
            decision = capacity.with_reserve(given, decided)
            break
    else:
        decision = Decision(status=given.status, requeue_after=until_kept_are_over(given, RESYNC))
    if decision.status.epoch != given.status.epoch:
        return decision
    return _stall_changed(with_status(given, decision.status)) or decision


def stall_of(given: RolloutInput) -> tuple[Reason, str] | None:
    """Tell why nothing more will happen by itself, if so: the Stalled condition.

    Returns:
        The reason, and what is wrong with its remedy; None while the operator can go on.
    """
    status, wanted = given.status, given.wanted
    if given.problem is not None:
        return Reason.INVALID_SPEC, given.problem
    if given.rejection is not None:
        return Reason.REJECTED_BY_CLUSTER, given.rejection
    if wanted is None:
        return None
    if status.stable is None:
        nothing = nothing_to_bring_up(given)
        return (Reason.REVISION_FAILED_BEFORE, nothing) if nothing is not None else None
    if not status.stable.served:
        problem = given.observed.workload(status.stable.revision).problem
        if problem is not None and problem.permanent and status.stable.ready_replicas == 0:
            return Reason.MODEL_LOAD_FAILED, f"{problem.reason}: {problem.message}"
        if given.now >= deadline_of(given):
            why = f": {problem.message}" if problem is not None else ""
            shortfall = shortfall_of(given)
            what = shortfall[1] if shortfall is not None else "never looked at in time"
            return Reason.PROGRESS_DEADLINE_EXCEEDED, f"not ready in time: {what}{why}"
        return None
    if fixed.is_fixed(given):
        return fixed.stalled(given)
    too_few = capacity.stalled(given)
    if too_few is not None:
        return Reason.AWAITING_CAPACITY, too_few
    uneven = replicas.stalled(given)
    if uneven is not None:
        return Reason.AWAITING_CAPACITY, uneven
    unknown = contract.stalled(given)
    if unknown is not None:
        return Reason.AWAITING_SIGNATURE, unknown
    unjudged = golden.stalled(given)
    if unjudged is not None:
        return Reason.AWAITING_VALIDATION, unjudged
    failure = failure_of(status, wanted)
    unmirrored = shadow.stalled(given)
    if unmirrored is not None and failure is None and _is_new(given, wanted):
        return Reason.MIRROR_UNSUPPORTED, unmirrored
    if failure is None or status.canary is not None or status.draining:
        return None
    return (
        Reason(failure.reason),
        f"{wanted.display} failed at {failure.failed_at:%Y-%m-%d %H:%M:%SZ}: {failure.message}. "
        f"{display(status.stable)} serves. Change the spec, or set the annotation canarium.dev/retry to a new value.",
    )


def _is_new(given: RolloutInput, wanted: Revision) -> bool:
    """Tell whether the spec names a revision that goes, or would go, through the steps of the strategy."""
    rollout, stable = given.status.rollout, given.status.stable
    if rollout is not None:
        return rollout.strategy != Strategy.DIRECT
    return (
        stable is not None
        and wanted.name != stable.revision
        and not went_before(given, wanted.name)
    )


def shortfall_of(given: RolloutInput) -> tuple[Reason, str] | None:
    """Tell what keeps the stable revision from serving all the traffic, if anything does.

    Returns:
        The reason, and the same in words; None while it serves in full.
    """
    stable, route = given.status.stable, given.observed.route
    assert stable is not None  # noqa: S101 - asked only where something serves
    if given.status.versions:
        return fixed.shortfall(given)
    ready, minimum = stable.ready_replicas, given.spec.autoscaling.min_replicas
    if ready < minimum:
        reason = Reason.AWAITING_PODS if ready > 0 else Reason.STABLE_UNAVAILABLE
        return reason, f"{display(stable)} serves with {ready} of at least {minimum} pods"
    if route is None or not route.accepted or route.weights.get(stable.revision) != 100:
        note = f": {route.message}" if route is not None and route.message else ""
        return Reason.AWAITING_ROUTE, f"{unrouted(given, 'the route')}{note}"
    return None


def _stall_changed(given: RolloutInput) -> Decision | None:
    """Number and announce that an object has become stalled, or is so no more."""
    before = next((c for c in given.status.conditions if c.type == ConditionType.STALLED), None)
    stall = stall_of(given)
    if stall is None:
        if before is None:
            return None
        return transition(given, Reason.RECOVERED, f"mended: {before.message}")
    reason, message = stall
    if before is not None and before.reason == reason:
        return None
    last = given.status.last_transition
    stable, wanted = given.status.stable, given.wanted
    serves = stable is not None and stable.served
    of_rollback = serves and wanted is not None and failure_of(given.status, wanted) is not None
    of_rollback = of_rollback or any(v.state is VersionState.FAILED for v in given.status.versions)
    if of_rollback and reason not in (Reason.INVALID_SPEC, Reason.REJECTED_BY_CLUSTER):
        if last is not None and last.reason in ALREADY_ANNOUNCED:
            return None
        reason = Reason.REVISION_FAILED_BEFORE
    return transition(given, reason, message, warning=True)


def _refresh(given: RolloutInput) -> RolloutInput:
    """Bring the numbers of the status up to what is seen, and drop what has drained."""

    def seen(revision: RevisionStatus | None) -> RevisionStatus | None:
        if revision is None:
            return None
        workload = given.observed.workload(revision.revision)
        return revision.model_copy(
            update={
                "ready_replicas": workload.ready_replicas,
                "replicas": workload.replicas,
                "weight": given.observed.weight(revision.revision),
            }
        )

    given = capacity.without_old_reserve(given)
    status = with_signatures(given.status, given.signatures)
    status = status.model_copy(
        update={"stable": seen(status.stable), "canary": seen(status.canary)}
    )
    given = golden.noted(with_status(given, status))
    status = given.status
    if status.canary is not None or any(map(versions.is_pending, status.versions)):
        # A revision that was withdrawn earlier drains beside the rollout that replaced it.
        status = status.model_copy(update={"retiring": still_draining(given)})
    return with_status(given, status)


def _start_rollout(given: RolloutInput) -> Decision | None:
    """Bring a canary up when the spec names a revision that is neither stable nor known to be bad."""
    status, wanted = given.status, given.wanted
    if wanted is None or status.stable is None or status.canary is not None:
        return None
    if fixed.is_fixed(given):
        return None
    if wanted.name == status.stable.revision or failure_of(status, wanted) is not None:
        return None
    back = went_before(given, wanted.name)
    held = holds.waits(given, RESYNC)
    if held is not None and not (back and held.blocked_on == Reason.FROZEN):
        return None if status.draining else held  # what drains goes on draining
    unmirrored = shadow.refused(given)
    if unmirrored is not None and not back:
        return None if status.draining else unmirrored
    strategy = Strategy.DIRECT if back else strategy_of(given.spec.rollout)
    weights = [step.weight for step in steps_of(given.spec.rollout, strategy)]
    workload = given.observed.workload(status.stable.revision)
    reserved = max(given.spec.autoscaling.min_replicas, workload.spec_replicas)
    return transition(
        given,
        Reason.ROLLOUT_STARTED,
        f"going back to {wanted.display}, which was stable before: no steps"
        if back
        else f"bringing up {wanted.display} beside {display(status.stable)}, steps {weights}",
        canary=live(wanted),
        rollout=RolloutStatus(
            strategy=strategy,
            splitter=splitter_of(given.spec),
            steps=len(weights),
            weights=weights,
            started_at=given.now,
            reserved_replicas=reserved,
        ),
        waiting_since=given.now,
        retiring=without(status.retiring, wanted.name),
    )


def went_before(given: RolloutInput, revision: str) -> bool:
    """Tell whether a revision was stable not long ago: going back to it is done at once (`rollbackWindow`)."""
    stable = given.status.stable
    before: list[str] = []
    for entry in reversed(given.status.history):
        if entry.outcome in ("Deployed", "Promoted") and entry.revision not in before:
            before.append(entry.revision)
    if stable is not None and stable.revision in before:
        before.remove(stable.revision)
    return revision in before[: given.spec.rollout.rollback_window]


def _serve(given: RolloutInput) -> Decision | None:
    """Wait until the wanted revision serves in full again: a new size or gateway, or lost pods."""
    status, wanted = given.status, given.wanted
    if wanted is None or status.stable is None or status.stable.revision != wanted.name:
        return None
    shortfall = shortfall_of(given)
    if shortfall is None:
        return None
    reason, waiting = shortfall
    return Decision(status=status, requeue_after=POLL, blocked_on=reason, waiting=waiting)


_RULES: Final[tuple[Callable[[RolloutInput], Decision | None], ...]] = (
    obey,
    first_deployment,
    withdraw,
    fixed.serve_versions,
    carry_out_steps,
    _start_rollout,
    drain,
    _serve,
)
"""The first that applies decides."""
