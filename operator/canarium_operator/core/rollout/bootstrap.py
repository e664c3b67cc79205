"""The first revision: brought up without a canary, since there is nothing to compare it with."""

from canarium_api.conditions import Reason
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
    with_history,
)


def first_deployment(given: RolloutInput) -> Decision | None:
    """Bring the first revision up, without a canary: there is nothing to compare it with."""
    status, wanted, now = given.status, given.wanted, given.now
    if status.stable is None:
        if wanted is None:
            return None
        return transition(
            given,
            Reason.FIRST_DEPLOYMENT,
            f"bringing up {wanted.display}",
            stable=live(wanted),
            waiting_since=now,
        )
    if status.stable.served:
        return None
    if wanted is None:
        return Decision(status=status, requeue_after=RESYNC)
    if wanted.name != status.stable.revision:
        return transition(
            given,
            Reason.RETARGETED,
            f"{display(status.stable)} never served; bringing up {wanted.display} instead",
            stable=live(wanted),
            waiting_since=now,
        )
    route = given.observed.route
    minimum = given.spec.autoscaling.min_replicas
    accepted = route is not None and route.accepted and route.weights.get(wanted.name) == 100
    if status.stable.ready_replicas >= minimum and accepted:
        message = f"{wanted.display} serves with {status.stable.ready_replicas} ready pods"
        return transition(
            given,
            Reason.DEPLOYED,
            message,
            stable=status.stable.model_copy(update={"served": True}),
            waiting_since=None,
            history=with_history(given, "Deployed", message, status.stable),
        )
    return _awaiting_first(given, wanted, minimum)


def _awaiting_first(given: RolloutInput, wanted: Revision, minimum: int) -> Decision:
    """Say what the first deployment waits for; `core.status` turns a lost deadline into Stalled."""
    stable = given.status.stable
    ready = stable.ready_replicas if stable is not None else 0
    problem = given.observed.workload(wanted.name).problem
    deadline = deadline_of(given)
    if ready < minimum:
        why = f": {problem.message}" if problem is not None else ""
        return Decision(
            status=given.status,
            requeue_after=POLL,
            blocked_on=Reason.AWAITING_PODS,
            waiting=f"{ready} of {minimum} pods of {wanted.display} are ready{why}, until {clock(deadline)}",
        )
    note = given.observed.route.message if given.observed.route is not None else ""
    return Decision(
        status=given.status,
        requeue_after=POLL,
        blocked_on=Reason.AWAITING_ROUTE,
        waiting=f"the gateway has not accepted the route{': ' + note if note else ''}, until {clock(deadline)}",
    )
