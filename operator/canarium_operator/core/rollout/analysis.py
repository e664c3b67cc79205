"""The checks: what the measurements of one pass say of the canary.

Only `Pass` lets a step end. A query that fails, returns nothing, or rests on too few requests is a verdict of its own,
never a pass and never a fault of the canary. A check fails when it breaks a fixed limit, or when the sequential test
finds the canary worse than stable by more than matters; the latter counts every look, so it needs no forgiveness and
no least number of requests.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from canarium_api.analysis import AnalysisSpec, MetricSpec
from canarium_api.duration import approximate_duration
from canarium_api.evidence import Evidence
from canarium_api.shadow import FLIP_RATE, MISMATCH_RATE, SHADOW_CHECKS
from canarium_api.status import Check, Verdict
from canarium_operator.core.rollout import promql
from canarium_operator.core.rollout.comparison import (
    Comparison,
    Level,
    compare,
)
from canarium_operator.core.rollout.measurement import Measured, Share, measure
from canarium_operator.core.rollout.queries import (
    Query,
    Reading,
    Subject,
    has_limit,
    is_sequential,
    part_of_step,
    sides,
    templates,
    window,
)
from canarium_operator.core.statistics import correction, evidence, proportions

BEYOND_QUANTILE: Final = 10
"""Requests beyond a quantile that make it worth holding against a fixed limit."""
PAIRED: Final = frozenset({MISMATCH_RATE, FLIP_RATE})
"""Checks of pairs of answers: one count of the shadow, held against a limit by a confidence sequence."""
_UNTOLD: Final = "the comparer has told nothing yet: see whether its pod is ready, and whether Prometheus reads it"
DEFAULT_LATENCY_TOLERANCE: Final = 0.010
"""Seconds. Quantiles of a histogram are no finer than its buckets, so a ratio alone would fail 1 ms against 2 ms."""
_DEFAULT_EFFECTS: Final = {promql.ERROR_RATE: 0.01, promql.INVALID_RATE: 0.05}
_DEFAULT_LATENCY_EFFECT: Final = 0.25


def with_defaults(metric: MetricSpec) -> MetricSpec:
    """Give a built-in check the smallest effect that matters where the user set none and no limit."""
    if templates(metric) or has_limit(metric) or metric.min_effect is not None:
        return metric
    effect = _DEFAULT_EFFECTS.get(metric.name)
    if promql.LATENCY.match(metric.name):
        effect = _DEFAULT_LATENCY_EFFECT
    return metric.model_copy(update={"min_effect": effect}) if effect is not None else metric


def is_relative(metric: MetricSpec) -> bool:
    """Tell whether a check compares the canary with the stable revision."""
    fixed = metric.max_increase is not None or metric.max_ratio is not None
    return fixed or is_sequential(with_defaults(metric))


def is_current(check: Check, metric: MetricSpec, spec: AnalysisSpec, subject: Subject) -> bool:
    """Tell whether a result is of the query, limits and samples that are asked for now."""
    if check.measured_at is None:
        return True
    asked = (
        query_text(metric, subject, check.measured_at),
        describe_limits(metric),
        _needed(metric, spec),
    )
    return (check.query, check.limit, check.needed) == asked


def query_text(metric: MetricSpec, subject: Subject, now: datetime) -> str:
    """Give the PromQL that speaks for a check in the status: the first of its queries about the canary."""
    canary, _ = sides(metric, subject, now)
    return next(iter(canary.parts.values())).promql


def queries(metric: MetricSpec, subject: Subject, now: datetime) -> frozenset[Query]:
    """Give the queries of a check."""
    canary, stable = sides(metric, subject, now)
    asked = set(canary.parts.values())
    if is_relative(metric):
        asked |= set(stable.parts.values())
    return frozenset(asked)


def _needed(metric: MetricSpec, spec: AnalysisSpec) -> int:
    """Give the requests of a step that a check needs before it can pass.

    A quantile that is held against a limit needs ten requests beyond it to say anything: p95 at least 200, p99 at
    least 1000, unless the user says otherwise.
    """
    if metric.min_samples is not None:
        return metric.min_samples
    latency = promql.LATENCY.match(metric.name)
    if latency is not None and spec.min_samples > 0 and has_limit(metric):
        return max(spec.min_samples, BEYOND_QUANTILE * 100 // (100 - int(latency[1])))
    return spec.min_samples


def assess(
    metric: MetricSpec,
    spec: AnalysisSpec,
    subject: Subject,
    readings: Mapping[Query, Reading],
    previous: Check,
    now: datetime,
) -> Check:
    """Judge one check by the answers to its queries, apart from all others; `judge` does the rest.

    Args:
        metric: the check.
        spec: for the defaults of the analysis.
        subject: whom it compares.
        readings: answers by query.
        previous: its latest result, for its counts and the evidence of earlier steps.
        now: the present.
    """
    metric = with_defaults(metric)
    previous = _carried_on(previous, metric, subject, now)
    canary_side, stable_side = sides(metric, subject, now)
    needed = _needed(metric, spec)
    draft = previous.model_copy(
        update={
            "verdict": Verdict.PENDING,
            "value": None,
            "baseline": None,
            "effect": None,
            "interval": None,
            "p_value": None,
            "eta": None,
            "limit": describe_limits(metric),
            "needed": needed,
            "query": query_text(metric, subject, now),
            "dry_run": metric.dry_run,
            "measured_at": now,
        }
    )
    canary = measure(metric, canary_side, readings)
    stable = measure(metric, stable_side, readings) if is_relative(metric) else None
    for failure in (canary, stable):
        if isinstance(failure, str):
            return _with(draft, Verdict.ERROR, failure, errors=draft.errors + 1)
    assert not isinstance(canary, str)  # noqa: S101 - narrows the types
    assert not isinstance(stable, str)  # noqa: S101
    draft = draft.model_copy(update={"errors": 0})
    return _judge_alone(draft, metric, spec, subject, canary, stable)


def _shown(value: float) -> float:
    """Round to four digits: more would be noise in the status."""
    return float(f"{value:.4g}")


def _judge_alone(
    draft: Check,
    metric: MetricSpec,
    spec: AnalysisSpec,
    subject: Subject,
    canary: Measured | None,
    stable: Measured | None,
) -> Check:
    needed = draft.needed or 0
    samples = canary.samples if canary is not None else None
    if samples is None and (needed > 0 or canary is None):
        message = "no series of the canary's requests in Prometheus yet"
        return _with(draft, Verdict.NO_DATA, _UNTOLD if metric.name in PAIRED else message)
    carried = (draft.total_samples or 0) - (draft.samples or 0)
    counted = math.floor(samples or 0)
    draft = draft.model_copy(update={"samples": counted, "total_samples": carried + counted})
    value = canary.value if canary is not None else None
    draft = draft.model_copy(
        update={"value": value, "baseline": stable.value if stable is not None else None}
    )
    if is_sequential(metric) and canary is not None and stable is not None:
        draft = _compared(
            draft,
            compare(metric, canary, stable, _level(spec)),
        )
    if counted < needed:
        eta = _eta(
            draft,
            needed - counted,
            window(metric, subject, draft.measured_at or subject.evidence_since),
        )
        return _with(
            draft.model_copy(update={"eta": eta}),
            Verdict.TOO_FEW_SAMPLES,
            f"{_progress(metric, counted, needed)}{_about(eta, draft.measured_at)}",
        )
    if value is None:
        message = "the query returned no data for the canary"
        return _with(draft, Verdict.NO_DATA, _UNTOLD if metric.name in SHADOW_CHECKS else message)
    if is_relative(metric):
        answered = math.floor(stable.samples or 0) if stable is not None else 0
        if answered < needed:
            message = f"stable answered {answered} of {needed} requests"
            return _with(draft, Verdict.TOO_FEW_SAMPLES, message)
        if draft.baseline is None:
            return _with(draft, Verdict.NO_DATA, "no value of the stable revision to compare with")
    if metric.name in PAIRED and isinstance(canary, Share):
        return _held_against(draft, metric, canary, _level(spec))
    broken = _broken_limits(metric, value, draft.baseline)
    if broken:
        return _with(draft, Verdict.FAIL, "; ".join(broken), failures=draft.failures + 1)
    return _with(draft, Verdict.PASS, _praise(metric, draft))


def _progress(metric: MetricSpec, counted: int, needed: int) -> str:
    if metric.name in PAIRED:
        return f"{counted} of {needed} pairs of answers were compared"
    return f"canary answered {counted} of {needed} requests"


def _held_against(draft: Check, metric: MetricSpec, share: Share, level: Level) -> Check:
    """Hold a share of pairs against its limits: it passes and fails when a confidence sequence says so.

    The p-value is that of "the rate is what the limit allows": one over the martingale at the limit, which is valid at
    every look (Ville 1939), times the number of checks (Bonferroni).
    """
    low, high = proportions.rate_interval(share.events, share.trials, level.alpha / level.checks)
    draft = draft.model_copy(update={"interval": [_shown(low), _shown(high)]})
    limits = [limit for limit in (metric.min, metric.max) if limit is not None]
    inside = (metric.min is None or low >= metric.min) and (
        metric.max is None or high <= metric.max
    )
    outside = (metric.max is not None and low > metric.max) or (
        metric.min is not None and high < metric.min
    )
    if inside:
        return _with(draft, Verdict.PASS, _praise(metric, draft))
    if outside:
        log = max(proportions.log_martingale(share.events, share.trials, limit) for limit in limits)
        p_value = _shown(min(1.0, level.checks * math.exp(-log)))
        broken = _broken_limits(metric, share.events / share.trials, None)
        draft = draft.model_copy(update={"p_value": p_value})
        words = f"{'; '.join(broken)} ({_chance_words(p_value)}, {draft.samples} pairs)"
        return _with(draft, Verdict.FAIL, words, failures=draft.failures + 1)
    edges = f"{format_value(metric.name, low)} to {format_value(metric.name, high)}"
    allowed = " and ".join(format_value(metric.name, limit) for limit in limits)
    return _with(
        draft,
        Verdict.TOO_FEW_SAMPLES,
        f"after {draft.samples} pairs the rate may be {edges}, which is not clear of the limit of {allowed} yet",
    )


def _level(spec: AnalysisSpec) -> Level:
    tested = [
        m
        for m in spec.metrics
        if (is_sequential(with_defaults(m)) or m.name in PAIRED) and not m.dry_run
    ]
    return Level(alpha=spec.alpha, power=spec.power, checks=max(len(tested), 1))


def _compared(draft: Check, found: Comparison) -> Check:
    """Take the result of a sequential test over."""
    before = draft.evidence or Evidence()
    return draft.model_copy(
        update={
            "effect": _shown(found.effect) if found.effect is not None else None,
            "interval": [_shown(edge) for edge in found.interval] if found.interval else None,
            "total_needed": found.needed,
            "evidence": before.model_copy(update={"log": found.log_evidence}),
        }
    )


def judge(
    checks: Sequence[Check],
    metrics: Mapping[str, MetricSpec],
    spec: AnalysisSpec,
    *,
    last_step: bool,
) -> list[Check]:
    """Judge all checks together: correct for their number, and ask the last step for enough evidence.

    Args:
        checks: the latest results.
        metrics: the checks of the spec by name.
        spec: alpha and power.
        last_step: the step whose end promotes the canary.
    """
    tested = [c for c in checks if c.evidence is not None and c.measured_at and not c.dry_run]
    # A check that has not begun, or is left out of this step, gets its turn: it has its part of alpha from the start.
    waiting = max(0, _level(spec).checks - len(tested))
    adjusted = correction.holm([*map(_chance, tested), *[1.0] * waiting])
    p_values = dict(zip([c.name for c in tested], adjusted, strict=False))
    judged = []
    for check in checks:
        metric = with_defaults(metrics[check.name])
        if check.evidence is not None and check.measured_at is not None:
            p_value = _shown(p_values.get(check.name, _chance(check)))
            check = check.model_copy(update={"p_value": p_value})
            if p_value <= spec.alpha and _matters(metric, check):
                judged.append(_with(check, Verdict.FAIL, _blame(metric, check)))
                continue
        judged.append(_with_power(check) if last_step else check)
    return judged


def _chance(check: Check) -> float:
    assert check.evidence is not None  # noqa: S101 - asked of tested checks alone
    return evidence.p_value(check.evidence)


def _with_power(check: Check) -> Check:
    """Hold the last step until a worsening that matters would have been found."""
    total, needed = check.total_samples or 0, check.total_needed
    if check.verdict is not Verdict.PASS or needed is None or not check.needed or total >= needed:
        return check
    return _with(
        check,
        Verdict.TOO_FEW_SAMPLES,
        f"{check.message}; only {needed} requests over all steps would show a worsening that matters, "
        f"it has {total}",
    )


def is_final(check: Check, spec: AnalysisSpec) -> bool:
    """Tell whether a check takes the canary back now."""
    if check.dry_run:
        return False
    if check.verdict is Verdict.FAIL and check.p_value is not None and check.p_value <= spec.alpha:
        return True
    if check.failures > spec.failure_limit:
        return True
    limit = spec.consecutive_error_limit
    if limit is not None and check.errors > limit:
        return True
    limit = spec.inconclusive_limit
    return limit is not None and check.inconclusive > limit


def renew(check: Check) -> Check:
    """Begin a step: the counts start anew, the evidence of the steps before is carried on."""
    return check.model_copy(
        update={
            "measured_at": None,
            "failures": 0,
            "errors": 0,
            "inconclusive": 0,
            "samples": None,
            "verdict": Verdict.PENDING,
            "message": "",
            "eta": None,
            "evidence": evidence.next_step(check.evidence) if check.evidence is not None else None,
        }
    )


def _with(check: Check, verdict: Verdict, message: str, **changes: int) -> Check:
    return check.model_copy(update={"verdict": verdict, "message": message[:500], **changes})


def _carried_on(check: Check, metric: MetricSpec, subject: Subject, now: datetime) -> Check:
    """Begin a part of a long step: the counts start anew, the evidence of the part before is carried on."""
    if check.measured_at is None or check.evidence is None:
        return check
    before = part_of_step(metric, subject, check.measured_at)
    if part_of_step(metric, subject, now) == before:
        return check
    return check.model_copy(
        update={"samples": None, "evidence": evidence.next_step(check.evidence)}
    )


def _eta(check: Check, missing: int, counted_over: timedelta) -> datetime | None:
    """Say when so many requests more will have come at the present rate; None while nothing comes."""
    now = check.measured_at
    if now is None or not check.samples:
        return None
    seconds = missing * counted_over.total_seconds() / check.samples
    return (now + timedelta(seconds=min(seconds, 1e7))).replace(microsecond=0)


def _about(eta: datetime | None, now: datetime | None) -> str:
    return f", about {approximate_duration(eta - now)} more" if eta and now else ""


def _matters(metric: MetricSpec, check: Check) -> bool:
    """Tell whether a proven worsening is large enough to act on."""
    if check.effect is None or check.effect < (metric.min_effect or 0.0):
        return False
    if promql.LATENCY.match(metric.name) and check.value is not None and check.baseline is not None:
        return check.value - check.baseline > _tolerance(metric)
    return True


def _tolerance(metric: MetricSpec) -> float:
    default = DEFAULT_LATENCY_TOLERANCE if promql.LATENCY.match(metric.name) else 0.0
    return default if metric.tolerance is None else metric.tolerance


def _broken_limits(metric: MetricSpec, value: float, baseline: float | None) -> list[str]:
    """Name the limits that a value breaks, each as a comparison."""
    shown = format_value(metric.name, value)
    broken = []
    if metric.max is not None and value > metric.max:
        broken.append(f"{shown} is above max {format_value(metric.name, metric.max)}")
    if metric.min is not None and value < metric.min:
        broken.append(f"{shown} is below min {format_value(metric.name, metric.min)}")
    if baseline is None:
        return broken
    stable = format_value(metric.name, baseline)
    if metric.max_increase is not None and value - baseline > metric.max_increase:
        limit = format_value(metric.name, metric.max_increase)
        broken.append(f"{shown} is more than {limit} above stable's {stable}")
    too_large = metric.max_ratio is not None and value > baseline * metric.max_ratio
    if too_large and value - baseline > _tolerance(metric):
        broken.append(f"{shown} is more than {metric.max_ratio:g} times stable's {stable}")
    return broken


def _praise(metric: MetricSpec, check: Check) -> str:
    assert check.value is not None  # noqa: S101 - a pass has a value
    shown = format_value(metric.name, check.value)
    if check.baseline is None or not is_sequential(metric):
        return f"{shown} is within limits"
    stable = format_value(metric.name, check.baseline)
    return f"{shown} against stable's {stable}, no worse as far as {check.samples} requests show"


def _blame(metric: MetricSpec, check: Check) -> str:
    value = format_value(metric.name, check.value) if check.value is not None else "?"
    stable = format_value(metric.name, check.baseline) if check.baseline is not None else "?"
    between = ""
    if check.interval is not None:
        low, high = (format_effect(metric.name, bound) for bound in check.interval)
        between = f", in truth between {low} and {high}"
    effect = format_effect(metric.name, check.effect or 0.0)
    return (
        f"{value} against stable's {stable}: worse by {effect}{between} "
        f"({_chance_words(check.p_value)}, {check.samples} requests)"
    )


def _chance_words(p_value: float | None) -> str:
    return "p < 0.0001" if p_value is None or p_value < 1e-4 else f"p = {p_value:.2g}"


def describe_limits(metric: MetricSpec) -> str:
    """Write the limits of a check in words: `max 5%, at most 1% above stable`."""
    metric = with_defaults(metric)
    parts = []
    if is_sequential(metric):
        effect = metric.min_effect
        matters = f" by {format_effect(metric.name, effect)} or more" if effect else ""
        parts.append(f"not worse than stable{matters}")
    if metric.max is not None:
        parts.append(f"max {format_value(metric.name, metric.max)}")
    if metric.min is not None:
        parts.append(f"min {format_value(metric.name, metric.min)}")
    if metric.max_increase is not None:
        parts.append(f"at most {format_value(metric.name, metric.max_increase)} above stable")
    if metric.max_ratio is not None:
        parts.append(f"at most {metric.max_ratio:g} times stable")
    return ", ".join(parts)


def format_value(name: str, value: float) -> str:
    """Write a value in the unit of its check: `0.8%`, `38.2ms`, or the plain number."""
    if promql.LATENCY.match(name):
        return f"{value:.3g}s" if abs(value) >= 1 else f"{value * 1000:.3g}ms"
    if name in (promql.ERROR_RATE, promql.INVALID_RATE, *PAIRED):
        return f"{value * 100:.3g}%"
    return f"{value:.4g}"


def format_effect(name: str, effect: float) -> str:
    """Write how much worse: latency is compared by ratio, all else by difference."""
    if not promql.LATENCY.match(name):
        return format_value(name, effect)
    return f"{effect * 100:.3g}%" if effect < 1 else f"{effect + 1:.3g} times"
