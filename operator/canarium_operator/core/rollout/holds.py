"""What may hold a rollout although its evidence is good: a pause, a freeze window, a missing approval.

A hold keeps the rollout where it is. It never keeps a bad canary: checks go on, and all ways back stay open. The clocks
of a step (pause, `maxWait`, the progress deadline) stand still meanwhile.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from canarium_api.conditions import Reason
from canarium_api.rollout import Approval, FreezeWindow, Weekday
from canarium_api.status import MAX_ACTIONS, Action, RevisionStatus, RolloutStatus
from canarium_operator.core.rollout.inputs import (
    POLL,
    RESYNC,
    Decision,
    RolloutInput,
    current_step,
    display,
    sooner,
    transition,
)
from canarium_operator.core.rollout.strategy import Strategy

_DAYS = tuple(Weekday)


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Why a rollout may not move on."""

    reason: Reason
    words: str
    """Why, with what ends it."""
    until: datetime | None = None
    """When it ends by itself; None: when somebody ends it."""


def hold_of(given: RolloutInput) -> Hold | None:
    """Tell what holds rollouts of this object now."""
    spec, rollout = given.spec.rollout, given.status.rollout
    if spec.paused:
        return Hold(
            reason=Reason.PAUSED,
            words="spec.rollout.paused is true; it goes on when that is set to false",
        )
    direct = rollout is not None and rollout.strategy == Strategy.DIRECT
    # The way back, and what somebody promotes by hand, does not wait for the calendar.
    for window in () if direct else spec.freezes:
        until = frozen_until(window, given.now)
        if until is not None:
            why = f" ({window.reason})" if window.reason else ""
            return Hold(
                reason=Reason.FROZEN,
                words=f"a freeze window{why} lasts until {until:%Y-%m-%d %H:%M}Z",
                until=until,
            )
    if rollout is not None and rollout.paused_by:
        return Hold(
            reason=Reason.PAUSED,
            words=f"paused by {rollout.paused_by}; `canarium resume` lets it go on",
        )
    return None


def frozen_until(window: FreezeWindow, now: datetime) -> datetime | None:
    """Tell when a freeze window that holds now ends; None: it does not hold.

    Args:
        window: one that `unknown_zone` accepts.
        now: the present, UTC.

    Returns:
        UTC.
    """
    if window.start is not None and window.end is not None:
        return window.end if window.start <= now < window.end else None
    if window.from_ is None or window.to is None:
        return None
    zone = ZoneInfo(window.time_zone)
    local = now.astimezone(zone)
    # The window that holds now began today or yesterday: it is never longer than a day.
    for day in (local.date(), local.date() - timedelta(days=1)):
        if window.days and _DAYS[day.weekday()] not in window.days:
            continue
        last = day if window.to > window.from_ else day + timedelta(days=1)
        # Instants are compared in UTC: two times of one zone would be compared as a wall clock shows them, which
        # shows an hour twice in autumn.
        begin = datetime.combine(day, _time(window.from_), zone).astimezone(UTC)
        end = datetime.combine(last, _time(window.to), zone).astimezone(UTC)
        if begin <= now < end:
            return end
    return None


def _time(text: str) -> Any:
    return datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007 - a time of day, its zone is added


def unknown_zone(window: FreezeWindow) -> bool:
    """Tell whether a window names a time zone that does not exist."""
    try:
        ZoneInfo(window.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return True
    return False


def held_or_released(given: RolloutInput, rollout: RolloutStatus) -> Decision | None:
    """Record that a hold has begun or ended: the clocks of the step stand still in between."""
    hold = hold_of(given)
    if hold is not None and rollout.paused_at is None:
        return transition(
            given,
            Reason.ROLLOUT_PAUSED,
            f"held: {hold.words}",
            rollout=rollout.model_copy(update={"paused_at": given.now}),
        )
    if hold is None and rollout.paused_at is not None:
        return transition(
            given, Reason.ROLLOUT_RESUMED, "nothing holds the rollout any more", **released(given)
        )
    return None


def released(given: RolloutInput) -> dict[str, Any]:
    """Give the changes of a status whose rollout goes on: its clocks are moved on by the time that was held."""
    rollout = given.status.rollout
    assert rollout is not None  # noqa: S101 - asked only while there is one
    held_since = rollout.paused_at if rollout.paused_at is not None else given.now

    def later(at: datetime | None) -> datetime | None:
        """Move a clock on by the part of the hold that it ran in: one that began meanwhile begins now."""
        if at is None:
            return None
        return at + max(given.now - max(held_since, at), timedelta(0))

    return {
        "rollout": rollout.model_copy(
            update={
                "paused_at": None,
                "paused_by": "",
                "step_started_at": later(rollout.step_started_at),
            }
        ),
        "waiting_since": later(given.status.waiting_since),
    }


def waits(given: RolloutInput, next_check: timedelta) -> Decision | None:
    """Say that a hold keeps the rollout where it is, if one does.

    Args:
        given: the input.
        next_check: time to the next measurement: checks go on.
    """
    hold = hold_of(given)
    if hold is None:
        return None
    left = hold.until - given.now if hold.until is not None else RESYNC
    return Decision(
        status=given.status,
        requeue_after=max(sooner(left, next_check), timedelta(milliseconds=100)),
        blocked_on=hold.reason,
        waiting=hold.words,
    )


def awaits_approval(given: RolloutInput, rollout: RolloutStatus, summary: str) -> Decision | None:
    """Wait for somebody to approve the end of the step, if it asks for that.

    Args:
        given: the input.
        rollout: of the status.
        summary: what the checks say, for whoever approves.
    """
    if not current_step(given).approval or rollout.approved_step == rollout.step:
        return None
    canary = given.status.canary
    assert canary is not None  # noqa: S101 - a rollout has one
    consent = _consent(given, rollout)
    if consent is not None:
        return _approved_in_spec(given, canary, rollout, consent)
    if rollout.asked_step != rollout.step:
        return transition(
            given,
            Reason.APPROVAL_NEEDED,
            f"step {rollout.step}/{rollout.steps} of {display(canary)} needs an approval: {summary}",
            rollout=rollout.model_copy(update={"asked_step": rollout.step}),
        )
    return Decision(
        status=given.status,
        requeue_after=sooner(given.spec.rollout.analysis.interval, 12 * POLL),
        blocked_on=Reason.AWAITING_APPROVAL,
        waiting=f"{display(canary)} waits for an approval of step {rollout.step}: "
        f"`canarium approve {given.ref.name} -n {given.ref.namespace}`, or spec.rollout.approvals; {summary}",
    )


def is_approved(given: RolloutInput, rollout: RolloutStatus) -> bool:
    """Tell whether the end of the present step is approved, by command or in the spec."""
    return rollout.approved_step == rollout.step or _consent(given, rollout) is not None


def _consent(given: RolloutInput, rollout: RolloutStatus) -> Approval | None:
    """Find the approval of the present step in the spec."""
    version = given.status.canary.model_version if given.status.canary is not None else ""
    return next(
        (
            approval
            for approval in given.spec.rollout.approvals
            if approval.version == version and approval.step in (None, rollout.step)
        ),
        None,
    )


def _approved_in_spec(
    given: RolloutInput, canary: RevisionStatus, rollout: RolloutStatus, consent: Approval
) -> Decision:
    """Record who has approved the step, as for a command."""
    by = consent.by or "somebody"
    place = f"step {rollout.step}/{rollout.steps} of {display(canary)}"
    message = f"{place} approved by {by} in spec.rollout.approvals"
    action = Action(
        verb="approve",
        by=by[:100],
        at=given.now,
        revision=canary.revision,
        step=rollout.step,
        message=message[:500],
    )
    return transition(
        given,
        Reason.APPROVED,
        message,
        rollout=rollout.model_copy(update={"approved_step": rollout.step}),
        actions=[*given.status.actions, action][-MAX_ACTIONS:],
    )
