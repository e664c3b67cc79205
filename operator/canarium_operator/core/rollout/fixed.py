"""Several versions that serve for good (`rollout.fixed`): bring up what is new, move weights when pods are ready.

There are no steps and no promotion. Three transitions move everything:

- `VersionsPlanned`: the spec asks for other models, names or weights. What is new comes up beside what serves.
- `VersionsChanged`: the pods of what is new are ready, and those of all that shall get more traffic: names get their
  new revisions, and all weights move at once. What is replaced or gone drains.
- a failure: what cannot be loaded, is not ready in time or would break clients is given up and remembered, like a
  canary; its predecessor goes on under its name, or `main` has its share.

`main` is the version of `spec.model`, and its revision is `status.stable`; it has what the others leave, also while one
of them is not there yet or has lost its pods. How many pods all the traffic needs is known from the autoscalers of what
carries it (`versions.pods_for`). When the spec names another strategy, the versions go the same way: `main` is given
the pods for everything, then all the traffic, and the other strategy begins.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from canarium_api.conditions import Reason
from canarium_api.fixed import MAIN
from canarium_api.status import (
    MAX_FAILED_REVISIONS,
    FailedRevision,
    RetiringRevision,
    RevisionStatus,
    VersionState,
    VersionStatus,
)
from canarium_operator.core import versions
from canarium_operator.core.rollout import contract, holds
from canarium_operator.core.rollout.inputs import (
    POLL,
    RESYNC,
    Decision,
    RolloutInput,
    clock,
    display,
    live,
    retire,
    transition,
    with_history,
    with_status,
    without,
)

KEPT_FOR: Final = timedelta(minutes=5)
"""How long pods that a move of weights needed are kept after it: autoscalers judge by what they saw before."""


@dataclass(frozen=True, kw_only=True)
class _Goal:
    name: str
    who: RevisionStatus
    weight: int


def is_fixed(given: RolloutInput) -> bool:
    """Tell whether fixed versions are asked for, or still serve."""
    return given.spec.rollout.fixed is not None or bool(given.status.versions)


def serve_versions(given: RolloutInput) -> Decision | None:
    """Bring the versions to what the spec asks for."""
    stable = given.status.stable
    if given.wanted is None or stable is None or not stable.served or not is_fixed(given):
        return None
    if given.status.canary is not None:
        return None  # it is withdrawn first
    return _planned(given) or _given_up(given) or _lost(given) or _moved(given) or _awaited(given)


def seen(given: RolloutInput) -> RolloutInput:
    """Bring the numbers of the versions up to what is seen, and let go of pods that are needed no more."""
    status = given.status
    if not status.versions:
        return given
    moved_at = status.versions_moved_at
    over = moved_at is None or given.now >= moved_at + KEPT_FOR
    idle = over and not any(map(versions.is_pending, status.versions))

    def look(version: VersionStatus) -> VersionStatus:
        workload = given.observed.workload(version.revision)
        return version.model_copy(
            update={
                "ready_replicas": workload.ready_replicas,
                "replicas": workload.replicas,
                "needed_replicas": 0 if idle else version.needed_replicas,
                "next": _counted(given, version.next),
            }
        )

    changed = [look(version) for version in status.versions]
    return with_status(given, status.model_copy(update={"versions": changed}))


def _counted(given: RolloutInput, who: RevisionStatus | None) -> RevisionStatus | None:
    if who is None:
        return None
    workload = given.observed.workload(who.revision)
    counts = {"ready_replicas": workload.ready_replicas, "replicas": workload.replicas}
    return who.model_copy(update=counts)


def _goals(given: RolloutInput) -> list[_Goal]:
    """Give what shall serve; without `rollout.fixed`, the stable revision alone."""
    stable = given.status.stable
    assert stable is not None  # noqa: S101 - something serves
    assert given.wanted is not None  # noqa: S101 - the spec is valid
    asked = versions.versions_of(given.spec, given.wanted)
    if not asked:
        return [_Goal(name=MAIN, who=stable, weight=versions.ALL)]
    return [_Goal(name=a.name, who=live(a.revision), weight=a.weight) for a in asked]


def _failure(given: RolloutInput, revision: str) -> FailedRevision | None:
    return next((f for f in given.status.failed_revisions if f.revision == revision), None)


# --- what the spec asks for


def _planned(given: RolloutInput) -> Decision | None:
    """Take up what the spec asks for: new names, other models, other weights."""
    goals, status = _goals(given), given.status
    wanted = _towards_goals(given, goals)
    if [_facts(v) for v in wanted] == [_facts(v) for v in status.versions]:
        return None
    if holds.hold_of(given) is not None:
        return None
    total = status.versions_total
    if not any(map(versions.is_pending, status.versions)):
        total = _total(given)
    wanted = _sized(given, wanted, total)
    new = [f"{v.name} {display(v.next)}" for v in wanted if v.next is not None]
    weights = ", ".join(f"{v.name} {v.wanted_weight}%" for v in wanted)
    coming = f"bringing up {', '.join(new)}; " if new else ""
    return transition(
        given,
        Reason.VERSIONS_PLANNED,
        f"{coming}weights shall be {weights}",
        versions=wanted,
        versions_total=total,
        retiring=_released(given, wanted, Reason.ROLLOUT_SUPERSEDED),
    )


def _facts(version: VersionStatus) -> tuple[object, ...]:
    following = version.next.revision if version.next is not None else ""
    return version.name, following, version.wanted_weight, version.state


def _towards_goals(given: RolloutInput, goals: Sequence[_Goal]) -> list[VersionStatus]:
    stable = given.status.stable
    assert stable is not None  # noqa: S101 - something serves
    known = {version.name: version for version in given.status.versions}
    if MAIN not in known:
        known[MAIN] = _under(VersionStatus(name=MAIN, weight=versions.ALL), stable)
    found = [
        _towards(given, known.get(goal.name, VersionStatus(name=goal.name)), goal) for goal in goals
    ]
    named = {goal.name for goal in goals}
    gone = {"wanted_weight": 0, "next": None, "since": None, "state": VersionState.SERVING}
    found += [v.model_copy(update=gone) for name, v in known.items() if name not in named]
    return _balanced(found)


def _towards(given: RolloutInput, before: VersionStatus, goal: _Goal) -> VersionStatus:
    changes: dict[str, Any] = {"wanted_weight": goal.weight, "next": None, "since": None}
    failure = _failure(given, goal.who.revision)
    if before.revision == goal.who.revision:
        changes |= {"state": VersionState.SERVING, "message": ""}
    elif failure is not None:
        why = f"{display(goal.who)} failed at {clock(failure.failed_at)}: {failure.message}"
        changes |= {"state": VersionState.FAILED, "message": why[:500]}
        if not before.revision:
            changes["wanted_weight"] = 0
    else:
        same = before.next is not None and before.next.revision == goal.who.revision
        changes |= {
            "state": VersionState.LOADING,
            "message": "",
            "next": before.next if same else _counted(given, goal.who),
            "since": before.since if same else given.now,
        }
    return before.model_copy(update=changes)


def _balanced(found: list[VersionStatus]) -> list[VersionStatus]:
    """Give `main` what the others leave, of the weights that shall be."""
    others = sum(version.wanted_weight for version in found if version.name != MAIN)
    rest = {"wanted_weight": versions.ALL - others}
    return [v.model_copy(update=rest) if v.name == MAIN else v for v in found]


def _under(version: VersionStatus, who: RevisionStatus) -> VersionStatus:
    """Have a revision serve under a name."""
    return version.model_copy(
        update={
            "revision": who.revision,
            "model_version": who.model_version,
            "digest": who.digest,
            "ready_replicas": who.ready_replicas,
            "replicas": who.replicas,
        }
    )


def _total(given: RolloutInput) -> int:
    """Pods that all the traffic needs: what the autoscalers of all that carries it ask for now."""
    stable = given.status.stable
    assert stable is not None  # noqa: S101 - something serves
    carrying = versions.shares(given.status.versions) or {stable.revision: versions.ALL}
    return sum(given.observed.workload(revision).spec_replicas for revision in carrying)


def _sized(given: RolloutInput, found: Sequence[VersionStatus], total: int) -> list[VersionStatus]:
    """Note how many pods each version keeps while weights move: for what it has, and for what it shall have."""
    scaling = given.spec.autoscaling

    def sized(version: VersionStatus) -> VersionStatus:
        most = max(version.weight, version.wanted_weight)
        needed = versions.pods_for(total, most, scaling)
        return version.model_copy(update={"needed_replicas": needed})

    return [sized(version) for version in found]


def _released(
    given: RolloutInput, after: Sequence[VersionStatus], reason: Reason
) -> list[RetiringRevision]:
    """Give what drains: all that served or came up before and does no more."""
    used = versions.revisions_of(after)
    before = versions.revisions_of(given.status.versions)
    current = given
    for revision in sorted(before - used):
        drained = retire(current, revision, reason)
        current = with_status(given, current.status.model_copy(update={"retiring": drained}))
    left = current.status.retiring
    for revision in used:
        left = without(left, revision)
    return left


# --- what cannot be served


def _given_up(given: RolloutInput) -> Decision | None:
    """Give up one version that cannot be served, and remember it."""
    for version in given.status.versions:
        found = _fault(given, version)
        if found is not None:
            return _failed(given, version, *found)
    return None


def _fault(given: RolloutInput, version: VersionStatus) -> tuple[Reason, str] | None:
    following = version.next
    if following is None:
        return None
    problem = given.observed.workload(following.revision).problem
    if problem is not None and problem.permanent and following.ready_replicas == 0:
        return Reason.MODEL_LOAD_FAILED, f"{problem.reason}: {problem.message}"
    breaks = contract.compare_with_stable(given, following).breaks
    if breaks:
        words = f"its clients would break: {'; '.join(breaks)}. To serve it all the same, {contract.REMEDY}"
        return Reason.INCOMPATIBLE_SCHEMA, words
    if given.now < _deadline(given, version) or holds.hold_of(given) is not None:
        return None
    needed = _needed(given, version)
    if following.ready_replicas >= needed:
        return None  # something else is missing, which is not its fault
    why = f": {problem.message}" if problem is not None else ""
    words = f"{following.ready_replicas} of {needed} pods were ready in time{why}"
    return Reason.PROGRESS_DEADLINE_EXCEEDED, words


def _deadline(given: RolloutInput, version: VersionStatus) -> Any:
    return (version.since or given.now) + given.spec.rollout.progress_deadline


def _needed(given: RolloutInput, version: VersionStatus) -> int:
    return max(given.spec.autoscaling.min_replicas, version.needed_replicas)


def _failed(given: RolloutInput, version: VersionStatus, reason: Reason, evidence: str) -> Decision:
    following = version.next
    assert following is not None  # noqa: S101 - only what comes up is given up
    failure = FailedRevision(
        revision=following.revision,
        model_version=following.model_version,
        digest=following.digest,
        reason=reason,
        message=evidence[:500],
        failed_at=given.now,
    )
    known = [f for f in given.status.failed_revisions if f.revision != following.revision]
    status = given.status.model_copy(
        update={"failed_revisions": [*known, failure][-MAX_FAILED_REVISIONS:]}
    )
    after = _towards_goals(with_status(given, status), _goals(given))
    serves = (
        f"{_serving(version)} serves under that name" if version.revision else "main has its share"
    )
    message = f"{version.name}: {display(following)} given up: {evidence}; {serves}"
    return transition(
        with_status(given, status),
        reason,
        message,
        warning=True,
        versions=after,
        retiring=_released(given, after, reason),
        history=with_history(given, "RolledBack", message, following),
    )


def _serving(version: VersionStatus) -> str:
    return display(RevisionStatus(revision=version.revision, model_version=version.model_version))


def stalled(given: RolloutInput) -> tuple[Reason, str] | None:
    """Say which versions have failed, once all others are as the spec asks."""
    found = given.status.versions
    failed = [version for version in found if version.state is VersionState.FAILED]
    if not failed or any(map(versions.is_pending, found)) or given.status.draining:
        return None
    reasons = [
        failure.reason
        for goal in _goals(given)
        if (failure := _failure(given, goal.who.revision)) is not None
    ]
    remedy = "Change the spec, or set the annotation canarium.dev/retry to a new value."
    parts = []
    for version in failed:
        serves = f"{_serving(version)} serves" if version.revision else "main has its share"
        parts.append(f"{version.name}: {version.message}; {serves}")
    reason = Reason(reasons[0]) if reasons else Reason.REVISION_FAILED_BEFORE
    return reason, f"{'. '.join(parts)}. {remedy}"


# --- what moves


def _lost(given: RolloutInput) -> Decision | None:
    """Give the share of a version without a ready pod to `main`, at once."""
    found = given.status.versions
    main = next((version for version in found if version.name == MAIN), None)
    if main is None or main.ready_replicas == 0:
        return None
    lost = [
        v for v in found if v.weight > 0 and v.ready_replicas == 0 and v.revision != main.revision
    ]
    if not lost:
        return None
    share = sum(version.weight for version in lost)
    total = max(given.status.versions_total, _total(given))
    after = []
    for version in found:
        if version in lost:
            version = version.model_copy(update={"weight": 0})
        elif version.name == MAIN:
            version = version.model_copy(update={"weight": version.weight + share})
        after.append(version)
    names = ", ".join(f"{v.name} ({_serving(v)})" for v in lost)
    return transition(
        given,
        Reason.CAPACITY_LOST,
        f"no pod of {names} is ready: main has the share of {share}% meanwhile",
        warning=True,
        versions=_sized(given, after, total),
        versions_total=total,
    )


def _moved(given: RolloutInput) -> Decision | None:
    """Give names their new revisions and all weights at once, when the pods for that are ready."""
    status = given.status
    after = _result(given)
    moved = [(v.name, v.revision, v.weight) for v in after]
    if moved == [(v.name, v.revision, v.weight) for v in status.versions] and not _is_over(given):
        return None
    if holds.hold_of(given) is not None or _short(given, after):
        return None
    stable = status.stable
    assert stable is not None  # noqa: S101 - something serves
    main = next(version for version in after if version.name == MAIN)
    changes: dict[str, Any] = {}
    if main.revision != stable.revision:
        following = next(v.next for v in status.versions if v.name == MAIN)
        assert following is not None  # noqa: S101 - it is what main gets
        changes["stable"] = following.model_copy(update={"served": True})
        message = f"{display(following)} replaces {display(stable)} as main"
        changes["history"] = with_history(given, "Promoted", message, following)
    words = ", ".join(f"{v.name} {_serving(v)} {v.weight}%" for v in after if v.revision)
    retiring = _released(given, after, Reason.PROMOTED)
    if _is_over(given):
        after = []
    return transition(
        given,
        Reason.VERSIONS_CHANGED,
        f"traffic goes to {words}",
        versions=after,
        versions_moved_at=given.now,
        retiring=retiring,
        **changes,
    )


def _is_over(given: RolloutInput) -> bool:
    """Tell whether the spec asks for fixed versions no more."""
    return given.spec.rollout.fixed is None


def _result(given: RolloutInput) -> list[VersionStatus]:
    """Give the versions as they could be now: what is ready takes over, what is not leaves its share to `main`."""
    named = {goal.name for goal in _goals(given)}
    found = []
    for version in given.status.versions:
        if version.next is not None and _is_ready(given, version):
            version = _under(version, version.next).model_copy(
                update={"next": None, "since": None, "state": VersionState.SERVING}
            )
        if version.name != MAIN:
            if version.name not in named:
                continue
            serves = version.revision != "" and version.ready_replicas > 0
            weight = version.wanted_weight if serves else 0
            version = version.model_copy(update={"weight": weight})
        found.append(version)
    rest = versions.ALL - sum(version.weight for version in found if version.name != MAIN)
    return [v.model_copy(update={"weight": rest}) if v.name == MAIN else v for v in found]


def _is_ready(given: RolloutInput, version: VersionStatus) -> bool:
    following = version.next
    assert following is not None  # noqa: S101 - asked of what comes up
    reachable = following.revision in given.observed.services
    known = not contract.compare_with_stable(given, following).missing
    return reachable and known and following.ready_replicas >= _needed(given, version)


def _short(given: RolloutInput, after: Sequence[VersionStatus]) -> str:
    """Name a revision that shall get more traffic than its ready pods can take; empty: there is none."""
    before = versions.shares(given.status.versions)
    scaling, total = given.spec.autoscaling, given.status.versions_total
    for revision, share in versions.shares(after).items():
        needed = versions.pods_for(total, share, scaling)
        ready = given.observed.workload(revision).ready_replicas
        if share > before.get(revision, 0) and ready < needed:
            return f"{ready} of {needed} pods of {revision[:8]} are ready for {share}%"
    return ""


# --- what is waited for


def _awaited(given: RolloutInput) -> Decision | None:
    """Say what a version waits for; None: all is as the spec asks, or drains."""
    pending = [version for version in given.status.versions if versions.is_pending(version)]
    hold = holds.waits(given, RESYNC)
    if hold is not None:
        asked = _towards_goals(given, _goals(given))
        changed = [_facts(v) for v in asked] != [_facts(v) for v in given.status.versions]
        return hold if (changed or pending) and not given.status.draining else None
    if not pending:
        return None
    reason, words = Reason.AWAITING_PODS, list(_words(given, pending))
    unknown = [
        found.missing
        for version in pending
        if version.next is not None
        and version.next.ready_replicas > 0
        and (found := contract.compare_with_stable(given, version.next)).missing
    ]
    if unknown:
        reason, words = Reason.AWAITING_SIGNATURE, unknown
    short = _short(given, _result(given))
    return Decision(
        status=given.status,
        requeue_after=POLL,
        blocked_on=reason,
        waiting="; ".join(words) or short or "weights are about to move",
    )


def _words(given: RolloutInput, pending: Iterable[VersionStatus]) -> Iterable[str]:
    for version in pending:
        if version.next is None:
            continue
        problem = given.observed.workload(version.next.revision).problem
        why = f": {problem.message}" if problem is not None else ""
        yield (
            f"{version.name}: {version.next.ready_replicas} of {_needed(given, version)} pods of "
            f"{display(version.next)} are ready{why}, until {clock(_deadline(given, version))}"
        )


def shortfall(given: RolloutInput) -> tuple[Reason, str] | None:
    """Tell what keeps the versions from serving as their status says, if anything does."""
    minimum, route = given.spec.autoscaling.min_replicas, given.observed.route
    for version in given.status.versions:
        if version.revision and version.ready_replicas < minimum:
            who = f"{version.name} {_serving(version)}"
            words = f"{who} serves with {version.ready_replicas} of at least {minimum} pods"
            return Reason.AWAITING_PODS, words
    if (
        route is None
        or not route.accepted
        or route.weights != versions.shares(given.status.versions)
    ):
        note = f": {route.message}" if route is not None and route.message else ""
        return Reason.AWAITING_ROUTE, f"the gateway has not accepted the weights{note}"
    return None
