"""The first revision: brought up without a canary, since there is nothing to compare it with.

Where a good revision is known already, by an earlier object of the same name or by `rollout.lastGood`, that one comes
first, so that a new cluster on a bad commit serves; the revision of the spec then follows as a canary. A good revision
that cannot be brought up here is given up like any other, and the next one is tried.
"""

from canarium_api.conditions import Reason
from canarium_api.status import MAX_FAILED_REVISIONS, FailedRevision, RevisionStatus
from canarium_operator.core.memory import last_good_ones
from canarium_operator.core.naming import COPY_NAME_LABEL, memory_name
from canarium_operator.core.revision import Revision
from canarium_operator.core.rollout.inputs import (
    POLL,
    RESYNC,
    Decision,
    RolloutInput,
    clock,
    deadline_of,
    display,
    live,
    transition,
    unrouted,
    with_history,
    with_status,
)


def first_revision(given: RolloutInput) -> Revision | None:
    """Choose what to bring up where nothing has served yet: the first of these that is not known to have failed.

    Returns:
        The last good revision, or the one that the spec names; None where all have failed, or the spec is invalid.
    """
    wanted = given.wanted
    if wanted is None:
        return None
    failed = {failure.revision for failure in _failures(given)}
    candidates = (*last_good_ones(given.spec, wanted, given.observed.memory), wanted)
    if wanted.name not in failed and _is_remembered_as_good(given, wanted):
        return wanted
    return next((c for c in candidates if c.name not in failed), None)


def _is_remembered_as_good(given: RolloutInput, revision: Revision) -> bool:
    memory = given.observed.memory
    return (
        memory is not None
        and memory.last_good is not None
        and memory.last_good.name == revision.name
    )


def _failures(given: RolloutInput) -> list[FailedRevision]:
    """Give the failures that count: of the status, and before there is a stable revision those that are remembered."""
    memory = given.observed.memory
    if given.status.stable is not None or memory is None:
        return given.status.failed_revisions
    return list(memory.failed_revisions)


def nothing_to_bring_up(given: RolloutInput) -> str | None:
    """Say why a new object brings nothing up, if so."""
    if given.wanted is None or given.status.stable is not None or first_revision(given) is not None:
        return None
    failure = next(f for f in _failures(given) if f.revision == given.wanted.name)
    return (
        f"{given.wanted.display} failed at {failure.failed_at:%Y-%m-%d %H:%M:%SZ}: {failure.message}. No revision that "
        f"was good is remembered. Change the spec, or delete the ConfigMap {memory_name(given.ref.name)} and "
        f"its copy (label {COPY_NAME_LABEL}={given.ref.name}) to forget"
    )


def first_deployment(given: RolloutInput) -> Decision | None:
    """Bring the first revision up, without a canary: there is nothing to compare it with."""
    status, now = given.status, given.now
    if status.stable is not None and status.stable.served:
        return None
    first = first_revision(given)
    if first is None:
        return Decision(status=status, requeue_after=RESYNC)
    if status.stable is None:
        return transition(
            given,
            Reason.FIRST_DEPLOYMENT,
            f"bringing up {first.display}{_what_follows(given, first)}",
            stable=live(first),
            waiting_since=now,
            failed_revisions=_failures(given),
        )
    if first.name != status.stable.revision:
        return transition(
            given,
            Reason.RETARGETED,
            f"{display(status.stable)} never served; bringing up {first.display} instead"
            f"{_what_follows(given, first)}",
            stable=live(first),
            waiting_since=now,
        )
    route = given.observed.route
    minimum = given.spec.autoscaling.min_replicas
    accepted = route is not None and route.accepted and route.weights.get(first.name) == 100
    reachable = first.name in given.observed.services
    if status.stable.ready_replicas >= minimum and accepted and reachable:
        message = (
            f"{first.display} serves with {status.stable.ready_replicas} ready pods"
            f"{_what_follows(given, first)}"
        )
        return transition(
            given,
            Reason.DEPLOYED,
            message,
            stable=status.stable.model_copy(update={"served": True}),
            waiting_since=None,
            history=with_history(given, "Deployed", message, status.stable),
        )
    return _given_up(given, status.stable, first) or _awaiting_first(given, first, minimum)


def _what_follows(given: RolloutInput, first: Revision) -> str:
    wanted = given.wanted
    if wanted is None or first.name == wanted.name:
        return ""
    failure = next((f for f in _failures(given) if f.revision == wanted.name), None)
    if failure is not None:
        return f", the last good one; {wanted.display} of the spec has failed before: {failure.message}"
    return f", the last good one; {wanted.display} of the spec follows as a canary"


def _given_up(given: RolloutInput, stable: RevisionStatus, first: Revision) -> Decision | None:
    """Give a last good revision up that cannot be brought up here, where there is another one to try.

    What the spec names itself is never given up: there is nothing else that the user asked for.
    """
    if given.wanted is None or first.name == given.wanted.name:
        return None
    problem = given.observed.workload(first.name).problem
    lost = problem is not None and problem.permanent and stable.ready_replicas == 0
    if not lost and given.now < deadline_of(given):
        return None
    why = f"{problem.reason}: {problem.message}" if problem is not None else "not ready in time"
    failure = FailedRevision(
        revision=first.name,
        model_version=first.model_version,
        digest=first.model.sha256,
        reason=Reason.MODEL_LOAD_FAILED if lost else Reason.PROGRESS_DEADLINE_EXCEEDED,
        message=f"the last good revision cannot be brought up here: {why}"[:500],
        failed_at=given.now,
    )
    failed = [*given.status.failed_revisions, failure][-MAX_FAILED_REVISIONS:]
    known = given.status.model_copy(update={"failed_revisions": failed})
    following = first_revision(with_status(given, known))
    if following is None:
        return None
    return transition(
        given,
        Reason.LAST_GOOD_UNAVAILABLE,
        f"{first.display} was good but cannot be brought up: {why}; bringing up "
        f"{following.display}{_what_follows(given, following) or ' of the spec without a canary'}",
        warning=True,
        stable=live(following),
        waiting_since=given.now,
        failed_revisions=failed,
    )


def _awaiting_first(given: RolloutInput, first: Revision, minimum: int) -> Decision:
    """Say what the first deployment waits for; `core.status` turns a lost deadline into Stalled."""
    stable = given.status.stable
    ready = stable.ready_replicas if stable is not None else 0
    problem = given.observed.workload(first.name).problem
    deadline = deadline_of(given)
    if ready < minimum:
        why = f": {problem.message}" if problem is not None else ""
        return Decision(
            status=given.status,
            requeue_after=POLL,
            blocked_on=Reason.AWAITING_PODS,
            waiting=f"{ready} of {minimum} pods of {first.display} are ready{why}, until {clock(deadline)}",
        )
    if first.name not in given.observed.services:
        return Decision(
            status=given.status,
            requeue_after=POLL,
            blocked_on=Reason.AWAITING_PODS,
            waiting=f"the Service of {first.display} does not lead to its {ready} pods yet, until {clock(deadline)}",
        )
    note = given.observed.route.message if given.observed.route is not None else ""
    return Decision(
        status=given.status,
        requeue_after=POLL,
        blocked_on=Reason.AWAITING_ROUTE,
        waiting=f"{unrouted(given, 'the route')}{': ' + note if note else ''}, until {clock(deadline)}",
    )
