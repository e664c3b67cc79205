"""A check as a card: the canary's value beside stable's and the limits, how sure that is, what evidence is missing."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import Field

from canarium_api.analysis import MetricSpec
from canarium_api.base import ApiModel
from canarium_api.shadow import SHADOW_CHECKS
from canarium_api.status import Check, Verdict
from canarium_dashboard.history import CheckPoint, thinned
from canarium_operator.core.rollout import promql
from canarium_operator.core.rollout.analysis import (
    PAIRED,
    format_effect,
    format_value,
    with_defaults,
)


class Unit(StrEnum):
    """How a value is written."""

    SHARE = "share"
    SECONDS = "seconds"
    NUMBER = "number"


class Tone(StrEnum):
    """What a verdict means to who looks."""

    GOOD = "good"
    BAD = "bad"
    WAIT = "wait"


_TONES: Final = {Verdict.PASS: Tone.GOOD, Verdict.FAIL: Tone.BAD, Verdict.ERROR: Tone.BAD}
_WORDS: Final = {
    Verdict.PASS: "Passes",
    Verdict.FAIL: "Fails",
    Verdict.PENDING: "Not measured yet",
    Verdict.TOO_FEW_SAMPLES: "Too few requests",
    Verdict.NO_DATA: "No data",
    Verdict.ERROR: "Query failed",
}


class Limit(ApiModel):
    """A line that the value must keep to."""

    words: str
    value: float
    above: bool = True
    """The value must not be above it; else not below."""


class Point(ApiModel):
    """One measurement."""

    at: datetime
    value: float | None = None
    baseline: float | None = None
    low: float | None = None
    """Where the canary's value lies in truth, beside stable's as measured: the confidence band."""
    high: float | None = None


class Evidence(ApiModel):
    """Requests that there are, and that are needed."""

    words: str
    have: int
    need: int


class CheckView(ApiModel):
    """One card."""

    name: str
    verdict: Verdict
    verdict_words: str
    tone: Tone
    unit: Unit
    dry_run: bool = False
    value: str | None = None
    baseline: str | None = None
    limit: str | None = None
    """In words."""
    effect: str | None = None
    """How much worse, and where that lies in truth."""
    p_value: str | None = None
    limits: list[Limit] = Field(default=[])
    points: list[Point] = Field(default=[])
    evidence: list[Evidence] = Field(default=[])
    eta: datetime | None = None
    failures: int = 0
    errors: int = 0
    message: str = ""
    query: str | None = None
    measured_at: datetime | None = None
    alternative: str = ""
    """What the chart shows, in a sentence, for who does not see it."""


def unit_of(name: str) -> Unit:
    """Tell how the values of a check are written."""
    if promql.LATENCY.match(name):
        return Unit.SECONDS
    if name in (promql.ERROR_RATE, promql.INVALID_RATE, *PAIRED):
        return Unit.SHARE
    return Unit.NUMBER


def view_of(check: Check, metric: MetricSpec | None, points: Sequence[CheckPoint]) -> CheckView:
    """Make the card of a check.

    Args:
        check: its latest result.
        metric: as the spec asks for it; None: it comes from a template, whose limits are known in words only.
        points: its measurements so far, oldest first.
    """
    name = check.name
    metric = with_defaults(metric) if metric is not None else None
    worse_is_up = metric is None or not metric.higher_is_better
    drawn = [_point(point, worse_is_up=worse_is_up) for point in thinned(points)]
    limits = _limits(check, metric)
    return CheckView(
        name=name,
        verdict=check.verdict,
        verdict_words=_WORDS[check.verdict],
        tone=_TONES.get(check.verdict, Tone.WAIT),
        unit=unit_of(name),
        dry_run=check.dry_run,
        value=_text(name, check.value),
        baseline=_text(name, check.baseline),
        limit=check.limit,
        effect=_effect(check),
        p_value=None if check.p_value is None else _chance(check.p_value),
        limits=limits,
        points=drawn,
        evidence=_evidence(check),
        eta=check.eta,
        failures=check.failures,
        errors=check.errors,
        message=check.message,
        query=check.query,
        measured_at=check.measured_at,
        alternative=_alternative(check, drawn),
    )


def _text(name: str, value: float | None) -> str | None:
    return None if value is None else format_value(name, value)


def _effect(check: Check) -> str | None:
    if check.effect is None:
        return None
    words = "no different" if check.effect == 0 else _way(check.name, check.effect)
    if check.interval is None or len(check.interval) != 2:
        return words
    low, high = (_way(check.name, end) for end in check.interval)
    return f"{words}; in truth between {low} and {high}"


def _way(name: str, effect: float) -> str:
    """Write an effect with its direction; of a share it is a difference, so its unit is the percentage point."""
    way = "better" if effect < 0 else "worse"
    if unit_of(name) is Unit.SHARE:
        return f"{abs(effect) * 100:.3g} points {way}"
    return f"{format_effect(name, abs(effect))} {way}"


def _chance(p_value: float) -> str:
    return "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"


def _point(point: CheckPoint, *, worse_is_up: bool) -> Point:
    """Put the interval of the effect beside stable's value, so that it can be drawn in the units of the check.

    error-rate 0.3 % against 0.1 %, in truth 0.05 to 0.4 points worse: the canary's rate lies between 0.15 and 0.5 %.
    p95 30 ms against 20 ms, in truth 20 to 80 % slower: between 24 and 36 ms.
    """
    low = high = None
    if point.low is not None and point.high is not None and point.baseline is not None:
        if promql.LATENCY.match(point.name):
            ends = [point.baseline * (1 + end) for end in (point.low, point.high)]
        else:
            sign = 1 if worse_is_up else -1
            ends = [point.baseline + sign * end for end in (point.low, point.high)]
        low, high = sorted(ends)
        if unit_of(point.name) is not Unit.NUMBER:
            low = max(low, 0.0)
        if unit_of(point.name) is Unit.SHARE:
            high = min(high, 1.0)
    return Point(at=point.at, value=point.value, baseline=point.baseline, low=low, high=high)


def _limits(check: Check, metric: MetricSpec | None) -> list[Limit]:
    """Give the limits that are a line: fixed ones, and those beside stable's latest value."""
    if metric is None:
        return []
    found = []
    if metric.max is not None:
        found.append(Limit(words=f"max {format_value(check.name, metric.max)}", value=metric.max))
    if metric.min is not None:
        words = f"min {format_value(check.name, metric.min)}"
        found.append(Limit(words=words, value=metric.min, above=False))
    base = check.baseline
    if base is None:
        return found
    if metric.max_increase is not None:
        words = f"stable + {format_value(check.name, metric.max_increase)}"
        found.append(Limit(words=words, value=base + metric.max_increase))
    if metric.max_ratio is not None:
        found.append(
            Limit(words=f"{metric.max_ratio:g} times stable", value=base * metric.max_ratio)
        )
    if metric.min_effect is not None:
        found.append(_tolerated(check.name, metric, base, metric.min_effect))
    return found


def _tolerated(name: str, metric: MetricSpec, base: float, effect: float) -> Limit:
    if promql.LATENCY.match(name):
        return Limit(words=f"stable + {format_effect(name, effect)}", value=base * (1 + effect))
    up = not metric.higher_is_better
    sign = "+" if up else "−"  # noqa: RUF001 - a minus, not a hyphen
    value = base + effect if up else base - effect
    return Limit(words=f"stable {sign} {format_effect(name, effect)}", value=value, above=up)


def _evidence(check: Check) -> list[Evidence]:
    found = []
    what = "pairs" if check.name in SHADOW_CHECKS else "requests"
    if check.samples is not None and check.needed:
        found.append(_progress(f"{what} in this step", check.samples, check.needed))
    if check.total_samples is not None and check.total_needed:
        words = f"{what} over all steps, for the last one"
        found.append(_progress(words, check.total_samples, check.total_needed))
    return found


def _progress(what: str, have: int, need: int) -> Evidence:
    missing = need - have
    words = f"{_count(have)} of {_count(need)} {what}"
    if missing > 0:
        words += f": {_count(missing)} more needed"
    return Evidence(words=words, have=have, need=need)


def _count(number: int) -> str:
    """Write a number with narrow spaces between thousands: `12 345`."""
    return f"{number:,}".replace(",", "\u202f")


def _alternative(check: Check, points: Sequence[Point]) -> str:
    if not points:
        return f"{check.name}: no measurement was watched yet"
    parts = [f"{check.name}: {len(points)} measurements"]
    if check.value is not None:
        parts.append(f"now {format_value(check.name, check.value)}")
    if check.baseline is not None:
        parts.append(f"stable {format_value(check.name, check.baseline)}")
    if check.limit:
        parts.append(f"limit: {check.limit}")
    return ", ".join(parts)
