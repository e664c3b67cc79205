"""One goal of an A/B test: what its counts say, in both directions.

The same sequential tests as for the checks of a canary (docs/explanation/evidence.md), asked twice: is B worse than A,
and is B better. The counts of a long test are added up from parts, since no query looks back for weeks. When the share
changes, the counts begin anew and the evidence so far is carried on (`statistics.evidence`): counts of two shares must
not be added up, or a busy day at a large share would look like an effect (Simpson's paradox).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from canarium_api.analysis import AnalysisSpec, MetricSpec
from canarium_api.experiment import GoalStatus, GoalVerdict, Tally
from canarium_operator.core.rollout import promql
from canarium_operator.core.rollout.analysis import format_value, with_defaults
from canarium_operator.core.rollout.comparison import Level, compare
from canarium_operator.core.rollout.measurement import (
    Latencies,
    Measured,
    Moments,
    Share,
    measure,
)
from canarium_operator.core.rollout.queries import Query, Reading, Subject, sides, templates
from canarium_operator.core.statistics import correction, evidence, means, power, proportions

DIRECTIONS: Final = 2
"""Better, and worse: each is a hypothesis of its own in the correction for many."""
MIN_EVENTS: Final = 20
"""Of each kind on each side, from which on a share is taken for normally distributed in its interval."""
Sums = Mapping[str, float]


def new(metric: MetricSpec) -> GoalStatus:
    """Begin a goal."""
    return GoalStatus(name=metric.name, asked=fingerprint(metric))


def fingerprint(metric: MetricSpec) -> str:
    """Tell what a goal asks: counts of one question say nothing of another."""
    asked = f"{metric.name} {sorted(templates(metric).items())} {metric.higher_is_better}"
    return hashlib.sha256(asked.encode()).hexdigest()[:12]


def queries(metric: MetricSpec, subject: Subject, now: datetime) -> frozenset[Query]:
    """Give the queries of a goal: of both versions, since the present part began."""
    canary, stable = sides(metric, subject, now)
    return frozenset({*canary.parts.values(), *stable.parts.values()})


def counted(
    goal: GoalStatus,
    metric: MetricSpec,
    subject: Subject,
    readings: Mapping[Query, Reading],
    now: datetime,
) -> tuple[GoalStatus, str | None]:
    """Take the counts of this pass over.

    Returns:
        The goal, and what went wrong; its counts stay as they were then.
    """
    goal = goal.model_copy(update={"measured_at": now})
    canary_side, stable_side = sides(metric, subject, now)
    canary = measure(metric, canary_side, readings)
    stable = measure(metric, stable_side, readings)
    for failure in (canary, stable):
        if isinstance(failure, str):
            return goal, failure
    assert not isinstance(canary, str)  # noqa: S101 - narrows the types
    assert not isinstance(stable, str)  # noqa: S101
    tally = Tally(stable=_sums(stable), canary=_sums(canary))
    return goal.model_copy(update={"open": tally}), None


def with_part_closed(goal: GoalStatus, *, same_share: bool) -> GoalStatus:
    """End a part: its counts are added to those before, or with another share, only its evidence is kept."""
    if same_share:
        closed = Tally(
            stable=_added(goal.closed.stable, goal.open.stable),
            canary=_added(goal.closed.canary, goal.open.canary),
        )
        return goal.model_copy(update={"closed": closed, "open": Tally()})
    return goal.model_copy(
        update={
            "closed": Tally(),
            "open": Tally(),
            "worse": evidence.next_step(goal.worse),
            "better": evidence.next_step(goal.better),
        }
    )


def judge(
    goals: Sequence[GoalStatus], metrics: Mapping[str, MetricSpec], spec: AnalysisSpec
) -> list[GoalStatus]:
    """Judge all goals together.

    Each goal has two hypotheses, "B is not worse" and "B is not better"; Holm's correction is over all of them, so that
    the chance of any wrong `Better` or `Worse` is at most alpha. Intervals share alpha equally over the goals, so that
    all of them hold together, and with them `NoDifference`.
    """
    weighed = [
        _weighed(goal, with_defaults(metrics[goal.name]), spec, len(goals)) for goal in goals
    ]
    chances = [evidence.p_value(side) for goal in weighed for side in (goal.worse, goal.better)]
    adjusted = correction.holm(chances)
    return [
        _judged(
            goal,
            with_defaults(metrics[goal.name]),
            spec,
            worse=adjusted[2 * n],
            better=adjusted[2 * n + 1],
        )
        for n, goal in enumerate(weighed)
    ]


def _weighed(goal: GoalStatus, metric: MetricSpec, spec: AnalysisSpec, goals: int) -> GoalStatus:
    """Compute effect, interval and evidence from all counts at the present share."""
    a = _measured(metric, _added(goal.closed.stable, goal.open.stable))
    b = _measured(metric, _added(goal.closed.canary, goal.open.canary))
    if a is None or b is None:
        return goal.model_copy(update={"samples": 0, "baseline_samples": 0})
    level = Level(alpha=spec.alpha / goals, power=spec.power, checks=DIRECTIONS)
    worse = compare(metric, b, a, level)
    sign = -1 if metric.higher_is_better else 1
    effect = worse.effect
    interval = None
    if worse.interval is not None:
        low, high = worse.interval
        interval = [_shown(low), _shown(high)] if sign > 0 else [_shown(-high), _shown(-low)]
    log_worse, log_better = worse.log_evidence, compare(metric, a, b, level).log_evidence
    needed = worse.needed
    if isinstance(a, Share) and isinstance(b, Share):
        up, down = _risen(b, a), _risen(a, b)
        log_worse, log_better = (up, down) if sign > 0 else (down, up)
        needed = _needed_for_share(metric, a, level)
        interval = _interval_of_shares(metric, b, a, level) or interval
    return goal.model_copy(
        update={
            "value": _rounded(b.value),
            "baseline": _rounded(a.value),
            "effect": None if effect is None else _shown(sign * effect),
            "interval": interval,
            "samples": math.floor(b.samples or 0),
            "baseline_samples": math.floor(a.samples or 0),
            "needed": needed,
            "worse": goal.worse.model_copy(update={"log": log_worse}),
            "better": goal.better.model_copy(update={"log": log_better}),
        }
    )


def _risen(b: Share, a: Share) -> float:
    """Give the logarithm of the e-value against "B's rate is not above A's".

    The mean of two e-values: B has more events, and A has more of what is not an event. Which of the two is rare, and
    so has the power, depends on the goal; the mean of both is an e-value whichever it is.
    """
    more = proportions.log_e_value(b.events, b.trials, a.events, a.trials, proportions.FINE_RATIOS)
    less = proportions.log_e_value(
        max(0.0, a.trials - a.events),
        a.trials,
        max(0.0, b.trials - b.events),
        b.trials,
        proportions.FINE_RATIOS,
    )
    return proportions.log_sum((more, less)) - math.log(2)


def _interval_of_shares(metric: MetricSpec, b: Share, a: Share, level: Level) -> list[float] | None:
    """Give a confidence sequence for B's rate minus A's, once there is enough of everything for a normal approximation.

    A share is the mean of zeros and ones. The exact interval of `proportions` gives each rate half of alpha, and is
    twice to three times as wide: no test would ever find out that there is no difference.
    """
    rarest = min(a.events, a.trials - a.events, b.events, b.trials - b.events)
    if rarest < MIN_EVENTS:
        return None
    of_b, of_a = (
        means.Sample(total=side.events, squares=side.events, count=side.trials) for side in (b, a)
    )
    found = means.difference_interval(of_b, of_a, metric.min_effect, level.alpha)
    return None if found is None else [_shown(edge) for edge in found]


def _needed_for_share(metric: MetricSpec, a: Share, level: Level) -> int | None:
    if metric.min_effect is None or a.trials <= 0:
        return None
    rate = (a.events + 0.5) / (a.trials + 1)
    return power.requests_for_share(
        min(rate, 1 - rate),
        metric.min_effect,
        # Half for the mean of two e-values.
        alpha=level.alpha / 2,
        power=level.power,
        checks=level.checks,
        ratios=proportions.FINE_RATIOS,
    )


def _judged(
    goal: GoalStatus, metric: MetricSpec, spec: AnalysisSpec, *, worse: float, better: float
) -> GoalStatus:
    needed = metric.min_samples if metric.min_samples is not None else spec.min_samples
    fewest = min(goal.samples, goal.baseline_samples)
    goal = goal.model_copy(update={"p_value": _shown(min(worse, better))})
    if goal.effect is None or fewest < needed:
        message = (
            f"B has {goal.samples}, A {goal.baseline_samples} of at least {needed} requests"
            if fewest < needed or goal.samples == 0
            else "nothing to compare yet"
        )
        return goal.model_copy(update={"verdict": GoalVerdict.UNDECIDED, "message": message})
    matters = abs(goal.effect) >= (metric.min_effect or 0.0)
    verdict = GoalVerdict.UNDECIDED
    if worse <= spec.alpha and matters:
        verdict = GoalVerdict.WORSE
    elif better <= spec.alpha and matters:
        verdict = GoalVerdict.BETTER
    elif _is_equivalent(goal, metric):
        verdict = GoalVerdict.NO_DIFFERENCE
    goal = goal.model_copy(update={"verdict": verdict})
    return goal.model_copy(update={"message": words(goal, metric)[:500]})


def _is_equivalent(goal: GoalStatus, metric: MetricSpec) -> bool:
    """Tell whether the whole interval of the effect is smaller than what matters."""
    if goal.interval is None or not metric.min_effect:
        return False
    return max(abs(edge) for edge in goal.interval) <= metric.min_effect


def words(goal: GoalStatus, metric: MetricSpec) -> str:
    """Say how B differs from A: `B 4.4% against A's 4%: better by 0.4% (0.1% to 0.7%), p = 0.004, ...`."""
    if goal.value is None or goal.baseline is None or goal.effect is None:
        return "nothing to compare yet"
    value, baseline = (_in_words(metric, number) for number in (goal.value, goal.baseline))
    effect = _effect(metric, abs(goal.effect))
    change = {
        GoalVerdict.BETTER: f"better by {effect}",
        GoalVerdict.WORSE: f"worse by {effect}",
        GoalVerdict.NO_DIFFERENCE: "no difference that matters",
        GoalVerdict.UNDECIDED: f"undecided, {'above' if goal.effect >= 0 else 'below'} by {effect}",
    }[goal.verdict]
    between = ""
    if goal.interval is not None:
        low, high = (_effect(metric, edge) for edge in goal.interval)
        between = f" ({low} to {high} in truth)"
    p_value = goal.p_value
    chance = "p < 0.0001" if p_value is None or p_value < 1e-4 else f"p = {p_value:.2g}"
    return (
        f"B {value} against A's {baseline}: {change}{between}, {chance}, "
        f"{goal.samples} and {goal.baseline_samples} requests"
    )


def _in_words(metric: MetricSpec, value: float) -> str:
    if metric.proportion is not None:
        return f"{value * 100:.3g}%"
    return format_value(metric.name, value)


def _effect(metric: MetricSpec, effect: float) -> str:
    if promql.LATENCY.match(metric.name) and metric.mean is None:
        return f"{effect * 100:.3g}%"
    return _in_words(metric, effect)


def _sums(measured: Measured | None) -> dict[str, float]:
    match measured:
        case Share():
            return {"events": measured.events, "trials": measured.trials}
        case Moments():
            return {
                "total": measured.total,
                "squares": measured.squares,
                "count": measured.count,
            }
        case Latencies():
            return {f"{bound:g}": count for bound, count in measured.buckets}
        case _:
            return {}


def _measured(metric: MetricSpec, sums: Sums) -> Share | Moments | Latencies | None:
    if not sums:
        return None
    if "trials" in sums:
        return Share(events=sums.get("events", 0.0), trials=sums["trials"])
    if "count" in sums:
        return Moments(total=sums["total"], squares=sums["squares"], count=sums["count"])
    latency = promql.LATENCY.match(metric.name)
    if latency is None:
        return None
    buckets = sorted((float(bound), count) for bound, count in sums.items())
    return Latencies(buckets=tuple(buckets), q=int(latency[1]) / 100)


def _added(first: Sums, second: Sums) -> dict[str, float]:
    return {
        name: _rounded_count(first.get(name, 0.0) + second.get(name, 0.0))
        for name in sorted({*first, *second})
    }


def _rounded_count(count: float) -> float:
    """Round sums of broken numbers: further digits are noise of the addition."""
    return float(f"{count:.12g}")


def _shown(value: float) -> float:
    """Round to four digits: more would be noise in the status."""
    return float(f"{value:.4g}")


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
