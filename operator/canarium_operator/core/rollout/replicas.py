"""Weights without a gateway: the ratio of pods behind the Service `NAME` is made right before the canary joins it.

The Service leads to stable's pods alone, then to all pods, and at the last step to the canary's alone (`core.plan`).
It leads to all pods only after

- stable has as many ready pods as the weight needs (`plan.stable_floor`),
- the canary has exactly as many as keep within the weight, and
- no pod of any other revision is left, since it would get connections too.

From then on the canary's size follows stable's with each pass. Between two passes, and while a pod of stable is away,
the weight may be above the step's: by at most the pods that stable has lost since. It is a share of connections, not
of requests: a connection that is kept open stays where it is.
"""

from canarium_api.conditions import Reason
from canarium_api.status import RolloutStatus
from canarium_operator.core import ratio
from canarium_operator.core.plan import is_split_by_replicas, splitter_of, stable_floor
from canarium_operator.core.rollout.inputs import (
    POLL,
    Decision,
    RolloutInput,
    clock,
    current_step,
    deadline_of,
    display,
)


def is_split(given: RolloutInput) -> bool:
    """Tell whether the present step's weight is a ratio of pods."""
    rollout = given.status.rollout
    return rollout is not None and is_split_by_replicas(given.spec, rollout)


def canary_size(given: RolloutInput, rollout: RolloutStatus) -> int:
    """Pods that the canary shall have for the present step.

    Before the step has its weight, it follows the pods of stable that are ready, but does not give up what the weight
    so far rests on. After it, it follows what stable's autoscaler asks for: a pod that is away for a moment must not
    cost the canary one, too.
    """
    stable = given.status.stable
    assert stable is not None  # noqa: S101 - a canary runs beside a stable revision
    workload = given.observed.workload(stable.revision)
    weight = current_step(given).weight
    if rollout.prepared_step == rollout.step:
        return ratio.canary_pods(weight, workload.spec_replicas)
    size = ratio.canary_pods(weight, min(workload.spec_replicas, workload.ready_replicas))
    if 0 < rollout.weight < weight:
        size = max(size, ratio.canary_pods(rollout.weight, workload.spec_replicas))
    return size


def others(given: RolloutInput) -> list[str]:
    """Name the revisions besides stable and canary that still have pods."""
    status, observed = given.status, given.observed
    ours = {who.revision for who in (status.stable, status.canary) if who is not None}
    running = {name for name, workload in observed.workloads.items() if workload.replicas > 0}
    return sorted((running | observed.strays) - ours)


def awaits_ratio(given: RolloutInput) -> Decision | None:
    """Hold the canary out of the Service until the ratio of pods is that of the step's weight."""
    missing = _missing(given)
    if not missing:
        return None
    return Decision(
        status=given.status,
        requeue_after=POLL,
        blocked_on=Reason.AWAITING_PODS,
        waiting=f"{missing}, stalled from {clock(deadline_of(given))}",
    )


def _missing(given: RolloutInput) -> str:
    status, rollout = given.status, given.status.rollout
    if not is_split(given) or status.stable is None or status.canary is None or rollout is None:
        return ""
    weight = current_step(given).weight
    left = others(given)
    if left:
        return (
            f"pods of {', '.join(name[:8] for name in left)} have not gone yet: without a gateway they would get "
            f"connections beside {display(status.canary)}"
        )
    needed, ready = stable_floor(status, given.spec), status.stable.ready_replicas
    if ready < needed:
        return f"{ready} of {needed} pods of {display(status.stable)} are ready; without a gateway {weight}% needs all"
    if status.canary.ready_replicas > rollout.needed_replicas:
        return (
            f"{status.canary.ready_replicas} pods of {display(status.canary)} are ready, {rollout.needed_replicas} "
            f"are {weight}%"
        )
    return ""


def stalled(given: RolloutInput) -> str | None:
    """Say that the ratio of pods was not reached within the progress deadline, which is not the canary's fault."""
    rollout = given.status.rollout
    if rollout is None or rollout.paused_at is not None or rollout.prepared_step == rollout.step:
        return None
    canary = given.status.canary
    if canary is None or canary.ready_replicas < rollout.needed_replicas:
        return None
    if given.now < deadline_of(given):
        return None
    missing = _missing(given)
    return f"{missing}. It goes on when that is so" if missing else None


def is_carried(given: RolloutInput) -> bool:
    """Tell whether the Service is seen to lead to the canary in a step whose weight is a ratio of pods."""
    route, canary = given.observed.route, given.status.canary
    return route is not None and canary is not None and canary.revision in route.reached


def is_replaced(given: RolloutInput, rollout: RolloutStatus) -> bool:
    """Tell whether a gateway was added or removed since the rollout was planned."""
    return splitter_of(given.spec) is not rollout.splitter
