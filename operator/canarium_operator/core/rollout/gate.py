"""The gate of one step: may it end, and if not, what is missing and until when."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from canarium_api.analysis import AnalysisSpec
from canarium_api.conditions import Reason
from canarium_api.status import Check, RolloutStatus, Verdict

_BLOCKS: Final = {
    Verdict.FAIL: Reason.CHECK_FAILING,
    Verdict.ERROR: Reason.METRICS_UNAVAILABLE,
    Verdict.NO_DATA: Reason.NO_DATA,
    Verdict.TOO_FEW_SAMPLES: Reason.AWAITING_SAMPLES,
    Verdict.PENDING: Reason.AWAITING_MEASUREMENT,
}
"""What a verdict makes the step wait for, most serious first."""


@dataclass(frozen=True, kw_only=True)
class GateView:
    """What the gate says now."""

    passes: bool
    next_check_at: datetime
    summary: str = ""
    """All checks in words."""
    blocked_on: Reason | None = None
    waiting: str = ""
    """What is missing and until when."""
    gives_up_at: datetime | None = None
    """When missing evidence ends the rollout; None while the pause lasts."""


def look(spec: AnalysisSpec, rollout: RolloutStatus, opens_at: datetime, now: datetime) -> GateView:
    """Look at the gate of the current step.

    Args:
        spec: metrics, interval and limits.
        rollout: with the checks as last measured.
        opens_at: when the pause ends.
        now: the present.
    """
    checks = _checks(spec, rollout)
    next_measurement = min(
        (c.measured_at + spec.interval for c in checks if c.measured_at is not None),
        default=now + spec.interval,
    )
    summary = "; ".join(f"{check.name} {check.message}" for check in checks) or "no checks"
    blocking = next(
        (
            (reason, c)
            for verdict, reason in _BLOCKS.items()
            for c in checks
            if c.verdict == verdict
        ),
        None,
    )
    if now < opens_at:
        if blocking is None or blocking[1].verdict == Verdict.PENDING:
            waiting = f"pause until {_clock(opens_at)}; {summary}"
        else:
            waiting = f"pause until {_clock(opens_at)}; {blocking[1].name}: {blocking[1].message}"
        return GateView(
            passes=False,
            next_check_at=min(opens_at, max(next_measurement, now)),
            summary=summary,
            blocked_on=Reason.AWAITING_PAUSE,
            waiting=waiting,
        )
    stale = [c for c in checks if c.measured_at is None or c.measured_at < opens_at]
    gives_up_at = opens_at + spec.max_wait
    if blocking is None and not stale:
        return GateView(passes=True, next_check_at=now, summary=summary, gives_up_at=gives_up_at)
    if blocking is None:
        blocking = (Reason.AWAITING_MEASUREMENT, stale[0])
    reason, check = blocking
    next_check_at = now + timedelta(seconds=1) if stale else max(next_measurement, now)
    message = check.message or "not measured yet"
    return GateView(
        passes=False,
        next_check_at=min(next_check_at, gives_up_at),
        summary=summary,
        blocked_on=reason,
        waiting=f"{check.name}: {message}; looks again every interval, gives up at {gives_up_at:%Y-%m-%d %H:%M:%SZ}",
        gives_up_at=gives_up_at,
    )


def _checks(spec: AnalysisSpec, rollout: RolloutStatus) -> list[Check]:
    """Give one check for each metric of the spec, in its order; those never measured are Pending."""
    known = {check.name: check for check in rollout.checks}
    return [known.get(m.name) or Check(name=m.name, verdict=Verdict.PENDING) for m in spec.metrics]


def _clock(at: datetime) -> str:
    return at.strftime("%H:%M:%SZ")
