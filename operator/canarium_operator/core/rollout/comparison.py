"""Canary against stable: what the sequential tests of `core.statistics` say of two measurements of one check.

Everything is turned so that a positive effect is a worsening.
"""

import math
from dataclasses import dataclass

from canarium_api.analysis import MetricSpec
from canarium_operator.core.rollout.measurement import Latencies, Measured, Moments, Share
from canarium_operator.core.statistics import latency, means, power, proportions


@dataclass(frozen=True, kw_only=True)
class Level:
    """How sure a comparison must be."""

    alpha: float
    """Chance of a false alarm, over all checks and looks of a rollout."""
    power: float
    """Chance with which a worsening of `minEffect` is to be found."""
    checks: int
    """Number of checks that share alpha."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the counts of the present step say."""

    log_evidence: float
    """Natural logarithm of the e-value against "the canary is no worse"."""
    effect: float | None
    """How much worse: a difference for shares and means, a ratio minus 1 for latency."""
    interval: tuple[float, float] | None
    """Where the effect lies in truth, valid at every look."""
    needed: int | None
    """Requests of the canary after which a worsening of `minEffect` would have been found; None: cannot be said."""


def compare(metric: MetricSpec, canary: Measured, stable: Measured, level: Level) -> Comparison:
    """Compare two measurements of one check.

    Args:
        metric: with its defaults filled in.
        canary: this step's counts.
        stable: the same of the stable revision.
        level: what the interval and the number of requests are made for.
    """
    match canary, stable:
        case Share(), Share():
            return _shares(metric, canary, stable, level)
        case Latencies(), Latencies():
            return _latencies(canary, stable, level)
        case Moments(), Moments():
            return _means(metric, canary, stable, level)
        case _:
            msg = f"{metric.name}: the two sides were not measured alike"
            raise TypeError(msg)


def _shares(metric: MetricSpec, canary: Share, stable: Share, level: Level) -> Comparison:
    sign = -1 if metric.higher_is_better else 1
    bad, good = _bad(metric, canary), _bad(metric, stable)
    low, high = proportions.difference_interval(
        canary.events, canary.trials, stable.events, stable.trials, level.alpha
    )
    effect = None
    if canary.value is not None and stable.value is not None:
        effect = sign * (canary.value - stable.value)
    needed = None
    if metric.min_effect is not None and stable.trials > 0:
        needed = power.requests_for_share(
            # Half an event more: that nothing has happened yet does not mean that nothing can.
            (good + 0.5) / (stable.trials + 1),
            metric.min_effect,
            alpha=level.alpha,
            power=level.power,
            checks=level.checks,
        )
    return Comparison(
        log_evidence=proportions.log_e_value(bad, canary.trials, good, stable.trials),
        effect=effect,
        interval=(low, high) if sign > 0 else (-high, -low),
        needed=needed,
    )


def _bad(metric: MetricSpec, side: Share) -> float:
    """Count the events that speak against a revision."""
    return max(0.0, side.trials - side.events) if metric.higher_is_better else side.events


def _latencies(canary: Latencies, stable: Latencies, level: Level) -> Comparison:
    effect = None
    if canary.value is not None and stable.value:
        effect = canary.value / stable.value - 1
    return Comparison(
        log_evidence=latency.log_e_value(canary.buckets, stable.buckets),
        effect=effect,
        interval=latency.ratio_interval(canary.buckets, stable.buckets, canary.q, level.alpha),
        needed=None,
    )


def _means(metric: MetricSpec, canary: Moments, stable: Moments, level: Level) -> Comparison:
    sign = -1 if metric.higher_is_better else 1
    sides = [
        means.Sample(total=sign * side.total, squares=side.squares, count=side.count)
        for side in (canary, stable)
    ]
    few = min(side.count for side in sides) < means.MIN_COUNT
    needed = None
    if metric.min_effect is not None and not few:
        deviation = math.sqrt((sides[0].variance + sides[1].variance) / 2)
        needed = power.values_for_mean(
            deviation,
            metric.min_effect,
            alpha=level.alpha,
            power=level.power,
            checks=level.checks,
        )
    return Comparison(
        log_evidence=means.log_e_value(sides[0], sides[1], metric.min_effect),
        effect=None if few else sides[0].mean - sides[1].mean,
        interval=means.difference_interval(sides[0], sides[1], metric.min_effect, level.alpha),
        needed=needed,
    )
