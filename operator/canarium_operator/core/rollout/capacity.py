"""The capacity invariant: no weight moves onto too few pods, and stable can take everything back without a new one.

How many pods the traffic needs is known in two ways:

- Stable's autoscaler keeps as many as the present traffic needs, so a canary needs its share of them:
  ceil(reserved x weight). Worked example: 10 pods of stable, weight 25: 3 pods. It rests on the canary's pods being
  as fast as stable's.
- `rollout.capacity.requestsPerSecond` says what one pod can answer. Then ceil(traffic x weight x headroom / throughput)
  is needed as well. Worked example: 400 requests a second, weight 25, headroom 1.2, 50 requests a second for each pod:
  ceil(100 x 1.2 / 50) = 3.

A throughput that was merely measured is not used: of a pod that was never busy it would be far too low, and of pods
that their autoscaler keeps busy it says the same as the first way.

The reserve is what stable keeps until the rollout has ended, and a while beyond. It only grows: with the traffic, where
that is measured; else with what the autoscalers ask for above their floors, seen from stable while it carries at least
half of the traffic, or from the canary while it carries all. Growth that neither shows (stable at 40 % whose pods
are half idle) is covered by stable's autoscaler alone, after an abort.
"""

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal

from canarium_api.conditions import Reason
from canarium_api.status import Reserve, RolloutStatus, Splitter
from canarium_operator.core.plan import canary_floor, canary_replicas, stable_floor
from canarium_operator.core.rollout import promql, replicas
from canarium_operator.core.rollout.inputs import (
    POLL,
    Decision,
    RolloutInput,
    clock,
    current_step,
    deadline_of,
    display,
    with_status,
)
from canarium_operator.core.rollout.queries import Query, QueryFailure, QueryKind

LOOK_BACK: Final = timedelta(minutes=2)
"""The traffic is the mean of this time: several scrapes, and not so long that a rise goes unnoticed."""
MAJORITY: Final = 50
"""Percent of the traffic from which on what stable's autoscaler asks for is scaled up to the whole: at most twofold."""
KEPT_FOR: Final = timedelta(minutes=5)
"""How long the reserve outlasts its rollout. An HPA lowers the replicas to the highest that it found necessary in the
last five minutes (its default window), and until then that is what stable needed for a part of the traffic."""


@dataclass(frozen=True)
class Traffic:
    """Requests a second to all revisions; None: there is no series of them yet."""

    requests_per_second: float | None


def due_queries(given: RolloutInput) -> frozenset[Query]:
    """Name the query that measures the traffic; none without a declared throughput."""
    status = given.status
    if given.spec.rollout.capacity.requests_per_second is None:
        return frozenset()
    if status.canary is None or status.stable is None or status.rollout is None:
        return frozenset()
    return frozenset({_query(given)})


def _query(given: RolloutInput) -> Query:
    stable, canary = given.status.stable, given.status.canary
    assert stable is not None  # noqa: S101 - asked only while there is a canary
    assert canary is not None  # noqa: S101
    revisions = (canary.revision, stable.revision)
    return Query(
        promql=promql.counts_query(given.ref, revisions, LOOK_BACK),
        at=given.now,
        kind=QueryKind.COUNTS,
        revisions=revisions,
        look_back=LOOK_BACK,
    )


def traffic_of(given: RolloutInput) -> Traffic | QueryFailure | None:
    """Read the traffic of this pass; None: it was not asked for, or the pass has no answer."""
    if not due_queries(given):
        return None
    reading = given.readings.get(_query(given))
    if reading is None or isinstance(reading, QueryFailure):
        return reading
    counted = [s.value for s in reading if math.isfinite(s.value) and s.value > 0]
    if not counted:
        return Traffic(None)
    return Traffic(sum(counted) / LOOK_BACK.total_seconds())


def _pods_for(given: RolloutInput, percent: int) -> int:
    """Pods that the measured traffic needs by the declared throughput; 0 where either is not known."""
    capacity, traffic = given.spec.rollout.capacity, traffic_of(given)
    if capacity.requests_per_second is None or not isinstance(traffic, Traffic):
        return 0
    rate = traffic.requests_per_second or 0.0
    pods = rate * percent / 100 * capacity.headroom / capacity.requests_per_second
    return math.ceil(round(pods, 6))  # 3.0000000000000004 is 3


def sized(given: RolloutInput) -> RolloutInput:
    """Bring the reserve, and the pods that the canary is given, up to the traffic of this pass.

    More pods to wait for get a progress deadline of their own.
    """
    rollout = given.status.rollout
    if rollout is None:
        return given
    prepared = rollout.prepared_step == rollout.step
    known = not due_queries(given) or isinstance(traffic_of(given), Traffic)
    changed = rollout.model_copy(update={"reserved_replicas": _reserved(given, rollout)})
    wanted = _wanted(given, changed, settled=prepared or not known)
    wanted = max(1, min(wanted, given.spec.autoscaling.max_replicas))
    changed = changed.model_copy(update={"needed_replicas": wanted})
    changes: dict[str, Any] = {"rollout": changed}
    if wanted > rollout.needed_replicas and not prepared:
        changes["waiting_since"] = given.now
    return with_status(given, given.status.model_copy(update=changes))


def _wanted(given: RolloutInput, rollout: RolloutStatus, *, settled: bool) -> int:
    """Pods that the canary shall have.

    Args:
        given: what is seen.
        rollout: with the reserve of this pass.
        settled: the step has its weight, or the traffic is not known: then it only rises, so that no pod is stopped for
            a lull that is over in a minute.
    """
    if replicas.is_split(given):
        # Stable keeps pods for all the traffic, and every pod gets as much of it as any other.
        return replicas.canary_size(given, rollout)
    wanted = max(_share(given, rollout), _pods_for(given, _size(given, rollout)))
    return max(wanted, rollout.needed_replicas) if settled else wanted


def _size(given: RolloutInput, rollout: RolloutStatus) -> int:
    """Percent of all the traffic that the canary must be able to take in the present step."""
    return max(current_step(given).size, rollout.weight)


def _reserved(given: RolloutInput, rollout: RolloutStatus) -> int:
    """Pods that all the traffic needs, as far as that shows; it never falls during a rollout."""
    status, scaling, observed = given.status, given.spec.autoscaling, given.observed
    reserved = rollout.reserved_replicas
    demands = [_pods_for(given, 100)]
    if status.stable is not None:
        weight = observed.weight(status.stable.revision)
        asked = observed.workload(status.stable.revision).spec_replicas
        if weight >= MAJORITY and asked > stable_floor(status, given.spec):
            demands.append(math.ceil(asked * 100 / weight))
    if status.canary is not None and observed.weight(status.canary.revision) == 100:
        asked = observed.workload(status.canary.revision).spec_replicas
        if asked > canary_floor(given.spec, rollout):
            demands.append(asked)
    return max(reserved, min(max(demands), scaling.max_replicas))


def needed_replicas(given: RolloutInput) -> int:
    """Pods of the canary that must be ready before the weight of the present step; may be above `maxReplicas`."""
    rollout = given.status.rollout
    assert rollout is not None  # noqa: S101 - asked only while there is a rollout
    if replicas.is_split(given):
        return max(1, rollout.needed_replicas)
    by_traffic = _pods_for(given, _size(given, rollout))
    return max(rollout.needed_replicas, _share(given, rollout), by_traffic)


def _share(given: RolloutInput, rollout: RolloutStatus) -> int:
    if replicas.is_split(given):
        return max(1, rollout.needed_replicas)
    size = _size(given, rollout)
    share = canary_replicas(size, rollout.reserved_replicas, given.spec.autoscaling)
    if rollout.splitter is Splitter.REPLICAS and rollout.weight > 0:
        # All of its pods get connections already: it keeps them until it has all the traffic.
        return max(share, rollout.needed_replicas)
    return share


def unmeasured(given: RolloutInput) -> Decision | None:
    """Hold where a throughput is declared and Prometheus does not say how much traffic there is."""
    if not due_queries(given) or isinstance(traffic_of(given), Traffic):
        return None
    failure = traffic_of(given)
    why = f": {failure.message}" if isinstance(failure, QueryFailure) else ""
    return Decision(
        status=given.status,
        requeue_after=POLL,
        blocked_on=Reason.METRICS_UNAVAILABLE,
        waiting=f"the traffic is not known{why}, so no weight moves (rollout.capacity)",
    )


def too_small(given: RolloutInput) -> Decision | None:
    """Hold where the traffic needs more pods of the canary than its share of stable's.

    Returns:
        None: its share is all that it needs, or is not ready either, which is not a matter of traffic.
    """
    canary, rollout = given.status.canary, given.status.rollout
    assert canary is not None  # noqa: S101 - asked only while there is a canary
    assert rollout is not None  # noqa: S101
    needed, ready = needed_replicas(given), canary.ready_replicas
    if ready >= needed or ready < _share(given, rollout):
        return None
    deadline = deadline_of(given)
    if given.now >= deadline and not _is_out_of_reach(given):
        return None
    return Decision(
        status=given.status,
        requeue_after=POLL,
        blocked_on=Reason.AWAITING_CAPACITY,
        waiting=f"{_words(given, needed)}, until {clock(deadline)}",
    )


def _words(given: RolloutInput, needed: int) -> str:
    canary, capacity = given.status.canary, given.spec.rollout.capacity
    assert canary is not None  # noqa: S101 - asked only while there is a canary
    traffic = traffic_of(given)
    rate = traffic.requests_per_second if isinstance(traffic, Traffic) else None
    load = f"{rate:.4g} requests/s" if rate is not None else "the traffic"
    words = (
        f"{canary.ready_replicas} of {needed} pods of {display(canary)} are ready for its share of {load}, at "
        f"{capacity.requests_per_second:g} requests/s for each pod and headroom {capacity.headroom:g}"
    )
    if _is_out_of_reach(given):
        words += f"; autoscaling.maxReplicas allows {given.spec.autoscaling.max_replicas}: raise it"
    return words


def _is_out_of_reach(given: RolloutInput) -> bool:
    return needed_replicas(given) > given.spec.autoscaling.max_replicas


def stalled(given: RolloutInput) -> str | None:
    """Say that the canary needs more pods than `maxReplicas` allows, once the progress deadline is over.

    It is not the revision's fault, so it is not taken back: it goes on when the bound is raised or the traffic falls.
    """
    status, rollout = given.status, given.status.rollout
    if status.canary is None or rollout is None or rollout.paused_at is not None:
        return None
    if rollout.prepared_step == rollout.step or given.now < deadline_of(given):
        return None
    if status.canary.ready_replicas < _share(given, rollout) or not _is_out_of_reach(given):
        return None
    return _words(given, needed_replicas(given))


def with_reserve(given: RolloutInput, decision: Decision) -> Decision:
    """Keep the reserve for a while where a decision ends a rollout."""
    rollout = given.status.rollout
    if rollout is None or decision.status.rollout is not None:
        return decision
    reserve = Reserve(replicas=rollout.reserved_replicas, until=given.now + KEPT_FOR)
    status = decision.status.model_copy(update={"reserve": reserve})
    return replace(decision, status=status)


def without_old_reserve(given: RolloutInput) -> RolloutInput:
    """Let go of a reserve whose time is over."""
    reserve = given.status.reserve
    if reserve is None or given.now < reserve.until:
        return given
    return with_status(given, given.status.model_copy(update={"reserve": None}))


def readiness(given: RolloutInput) -> tuple[Literal["True", "False"], Reason, str] | None:
    """Give status, reason and message of the condition CapacityReady; None where no canary is under way."""
    canary, rollout = given.status.canary, given.status.rollout
    if canary is None or rollout is None:
        return None
    needed, ready = needed_replicas(given), canary.ready_replicas
    words = f"{ready} of {needed} pods of {display(canary)} are ready for step {rollout.step}"
    if ready >= needed:
        return "True", Reason.CAPACITY_SUFFICIENT, words
    return "False", Reason.AWAITING_CAPACITY, words
