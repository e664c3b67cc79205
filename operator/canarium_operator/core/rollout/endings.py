"""How a rollout ends: promoted, taken back, withdrawn; and how what lost its traffic drains."""

from dataclasses import replace
from datetime import timedelta

from canarium_api.conditions import Reason
from canarium_api.duration import approximate_duration
from canarium_api.status import (
    MAX_FAILED_REVISIONS,
    FailedRevision,
    ModelDeploymentStatus,
    RetiringRevision,
    RevisionStatus,
    RolloutStatus,
)
from canarium_operator.core.revision import Revision
from canarium_operator.core.rollout import replicas
from canarium_operator.core.rollout.inputs import (
    POLL,
    Decision,
    RolloutInput,
    canary_is_wanted,
    clock,
    display,
    retire,
    sooner,
    transition,
    with_history,
)
from canarium_operator.core.rollout.strategy import Strategy
from canarium_operator.core.versions import words


def promote(given: RolloutInput, canary: RevisionStatus, rollout: RolloutStatus) -> Decision:
    """Make the canary the stable revision; the old one drains."""
    stable = given.status.stable
    assert stable is not None  # noqa: S101 - a canary runs beside a stable revision
    took = approximate_duration(given.now - rollout.started_at)
    passed = f"passed all {rollout.steps} steps in {took}"
    if rollout.strategy == Strategy.DIRECT:
        passed = f"took over without steps in {took}{_promoter(given, canary, rollout)}"
    message = f"{display(canary)} {passed} and replaces {display(stable)}{_result(rollout)}"
    kept = given.spec.rollout.blue_green.keep_for if given.spec.rollout.blue_green else None
    ended = transition(
        given,
        Reason.PROMOTED,
        message,
        stable=canary.model_copy(update={"served": True}),
        canary=None,
        rollout=None,
        waiting_since=None,
        retiring=retire(given, stable.revision, Reason.PROMOTED, kept),
        history=with_history(given, "Promoted", message, canary),
    )
    return replace(ended, evidence=tuple(rollout.checks))


def _result(rollout: RolloutStatus) -> str:
    """Give the result of an A/B test, for the history; empty: there was none."""
    found = rollout.experiment
    if found is None:
        return ""
    return f"; {found.message}" if found.concluded_at is not None else "; its A/B test was not over"


def _promoter(given: RolloutInput, canary: RevisionStatus, rollout: RolloutStatus) -> str:
    """Say who promoted the canary by a command; empty: it went back by itself."""
    who = [
        action.by
        for action in given.status.actions
        if (action.verb, action.revision) == ("promote", canary.revision)
        and action.at >= rollout.started_at
    ]
    return f", promoted by {who[-1]}," if who else ""


def roll_back(given: RolloutInput, reason: Reason, evidence: str) -> Decision:
    """Take all traffic from the canary and remember why, in one decision."""
    canary, rollout = given.status.canary, given.status.rollout
    assert canary is not None  # noqa: S101 - only canaries are rolled back
    assert rollout is not None  # noqa: S101
    failure = FailedRevision(
        revision=canary.revision,
        model_version=canary.model_version,
        digest=canary.digest,
        reason=reason,
        message=evidence[:500],
        checks=rollout.checks,
        step=rollout.step,
        weight=rollout.weight,
        failed_at=given.now,
    )
    known = [f for f in given.status.failed_revisions if f.revision != canary.revision]
    message = f"{display(canary)} taken back at step {rollout.step}/{rollout.steps} ({rollout.weight}%): {evidence}"
    if reason is Reason.ABORTED_BY_USER:
        message += _result(rollout)
    ended = transition(
        given,
        reason,
        message,
        warning=True,
        canary=None,
        rollout=None,
        waiting_since=None,
        retiring=retire(given, canary.revision, reason),
        failed_revisions=[*known, failure][-MAX_FAILED_REVISIONS:],
        history=with_history(given, "RolledBack", message, canary),
    )
    return replace(ended, evidence=tuple(rollout.checks))


def withdraw(given: RolloutInput) -> Decision | None:
    """Withdraw a canary that the spec no longer names; the next pass starts what it names instead."""
    status = given.status
    if status.canary is None or status.stable is None:
        return None
    fixed = given.spec.rollout.fixed is not None
    if canary_is_wanted(given) and not fixed:
        return None
    if given.wanted is None:
        why = "the spec is invalid"
    elif fixed:
        why = "the spec asks for fixed versions"
    elif given.wanted.name == status.stable.revision:
        why = "the spec names the stable revision again"
    else:
        why = f"the spec names {given.wanted.display}"
    message = f"{display(status.canary)} withdrawn: {why}"
    return transition(
        given,
        Reason.ROLLOUT_SUPERSEDED,
        message,
        canary=None,
        rollout=None,
        waiting_since=None,
        retiring=retire(given, status.canary.revision, Reason.ROLLOUT_SUPERSEDED),
        history=with_history(given, "Superseded", message, status.canary),
    )


def failure_of(status: ModelDeploymentStatus, wanted: Revision) -> FailedRevision | None:
    """Find why a revision is not to be tried, if it has failed before."""
    return next((f for f in status.failed_revisions if f.revision == wanted.name), None)


def still_draining(given: RolloutInput) -> list[RetiringRevision]:
    """Give the revisions that must keep their pods: too early, or the gateway may still send them requests."""
    delay = given.spec.rollout.scale_down_delay
    route = given.observed.route
    crowded = replicas.is_split(given)
    """What is kept for a way back would get connections beside the canary."""

    def drained(entry: RetiringRevision) -> bool:
        unsure = route is None or not route.accepted
        carries = given.observed.weight(entry.revision) > 0
        reached = route is not None and entry.revision in route.reached
        over = given.now >= entry.since + max((not crowded and entry.keep_for) or delay, delay)
        return over and not (unsure or carries or reached)

    return [entry for entry in given.status.retiring if not drained(entry)]


def until_kept_are_over(given: RolloutInput, longest: timedelta) -> timedelta:
    """Give the time until a revision that is kept for a way back may go; at most so long.

    One whose time is over, and that the gateway may still send requests, is looked at again after POLL.
    """
    ends = [
        entry.since + entry.keep_for - given.now
        for entry in given.status.retiring
        if entry.keep_for is not None
    ]
    return max(min([longest, *ends]), POLL)


def drain(given: RolloutInput) -> Decision | None:
    """Let go of a revision that has had no traffic for the delay.

    One that is kept for a way back is no reason to wait: the object is as it should be meanwhile.
    """
    status = given.status
    left = still_draining(given)
    now = [entry for entry in left if entry.keep_for is None]
    if status.draining and not now:
        last = status.draining[-1]
        assert status.stable is not None  # noqa: S101 - something served before it drained
        gone = f"; {last.revision[:8]} is gone" if last.reason != Reason.PROMOTED else ""
        serves = f"{display(status.stable)} serves all the traffic"
        if status.versions:
            serves = f"the versions serve with {words(status)}"
        return transition(
            given,
            Reason.SERVING if last.reason == Reason.PROMOTED else Reason.ROLLED_BACK,
            f"{serves}{gone}",
            retiring=left,
        )
    if not now:
        changed = status.model_copy(update={"retiring": left})
        if left == status.retiring:
            return None
        return Decision(status=changed, requeue_after=timedelta(0))
    delay = given.spec.rollout.scale_down_delay
    until = max(entry.since + delay for entry in now)
    promoting = now[-1].reason == Reason.PROMOTED
    return Decision(
        status=status.model_copy(update={"retiring": left}),
        requeue_after=sooner(max(until - given.now, timedelta(seconds=1)), POLL),
        blocked_on=Reason.PROMOTING if promoting else Reason.ROLLING_BACK,
        waiting=f"{now[-1].revision[:8]} drains until {clock(until)}",
    )
