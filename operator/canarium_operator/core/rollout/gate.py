"""The gate of one step: may it end, and if not, what is missing and until when."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from canarium_api.analysis import AnalysisSpec, MetricSpec, OnInsufficientData
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
_NOT_MEASURED: Final = "not measured yet"


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
    """When missing evidence ends the rollout; None while the pause lasts, and where nothing ends it."""


def look(
    metrics: Sequence[MetricSpec],
    spec: AnalysisSpec,
    rollout: RolloutStatus,
    opens_at: datetime,
    now: datetime,
) -> GateView:
    """Look at the gate of the current step.

    Args:
        metrics: the checks that gate the step.
        spec: interval and limits.
        rollout: with the checks as last measured.
        opens_at: when the pause ends.
        now: the present.
    """
    checks = _checks(metrics, rollout)
    next_measurement = min(
        (c.measured_at + spec.interval for c in checks if c.measured_at is not None),
        default=now + spec.interval,
    )
    said = (f"{check.name} {check.message or _NOT_MEASURED}" for check in checks)
    summary = "; ".join(said) or "no checks"
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
    if blocking is None and not stale:
        return GateView(passes=True, next_check_at=now, summary=summary)
    if blocking is None:
        blocking = (Reason.AWAITING_MEASUREMENT, stale[0])
    reason, check = blocking
    # Where an approval has been asked for, the evidence was there: what is missing now is waited for.
    asked = rollout.asked_step == rollout.step
    gives_up_at = None if asked else _gives_up_at(spec, check, opens_at)
    next_check_at = now + timedelta(seconds=1) if stale else max(next_measurement, now)
    message = check.message or _NOT_MEASURED
    end = "for as long as it takes"
    if gives_up_at is not None:
        next_check_at = min(next_check_at, gives_up_at)
        end = f"gives up at {gives_up_at:%Y-%m-%d %H:%M:%SZ}"
    return GateView(
        passes=False,
        next_check_at=next_check_at,
        summary=summary,
        blocked_on=reason,
        waiting=f"{check.name}: {message}; looks again every interval, {end}",
        gives_up_at=gives_up_at,
    )


def _gives_up_at(spec: AnalysisSpec, check: Check, opens_at: datetime) -> datetime | None:
    """Tell when missing evidence ends the rollout: `onInsufficientData`."""
    if spec.on_insufficient_data is OnInsufficientData.EXTEND:
        return None
    too_little = check.verdict in (Verdict.TOO_FEW_SAMPLES, Verdict.NO_DATA)
    fresh = check.measured_at is not None and check.measured_at >= opens_at
    if spec.on_insufficient_data is OnInsufficientData.FAIL and too_little and fresh:
        return opens_at
    return opens_at + spec.max_wait


def _checks(metrics: Sequence[MetricSpec], rollout: RolloutStatus) -> list[Check]:
    """Give one check for each metric that decides, in its order; those never measured are Pending."""
    known = {check.name: check for check in rollout.checks}
    return [
        known.get(metric.name) or Check(name=metric.name, verdict=Verdict.PENDING)
        for metric in metrics
        if not metric.dry_run
    ]


def _clock(at: datetime) -> str:
    return at.strftime("%H:%M:%SZ")
