"""Shares (errors, flips, orders): is the canary's higher than stable's?

Among the events of both revisions, each is the canary's with the chance nc/(nc+ns) if the rates are the same: whatever
the rate is, and however it changes during the day. That turns two unknown rates into one known coin, as in the
conditional sequential test of drug safety (Kulldorff et al., "A Maximized Sequential Probability Ratio Test for Drug
and Vaccine Safety Surveillance", Sequential Analysis 30, 2011). The likelihood ratio against a canary whose rate is r
times stable's is an e-value; a fixed mixture over r is one too (Robbins, "Statistical methods related to the law of the
iterated logarithm", 1970). For a bounded number of requests the split of the events is hypergeometric, not binomial;
that has the smaller mean of every convex function (Hoeffding 1963, theorem 4), so the test errs on the safe side.
"""

import math
from collections.abc import Callable, Iterable
from typing import Final

RATIOS: Final = (
    (1.25, 0.10),
    (1.5, 0.15),
    (2.0, 0.20),
    (3.0, 0.20),
    (5.0, 0.15),
    (10.0, 0.12),
    (30.0, 0.08),
)
"""How many times worse the canary may be, with the weight of each in the mixture."""
FINE_RATIOS: Final = (
    (1.02, 0.15),
    (1.05, 0.20),
    (1.1, 0.20),
    (1.25, 0.15),
    (1.5, 0.10),
    (2.0, 0.10),
    (4.0, 0.10),
)
"""The same for goals of A/B tests, whose effects are small and which have weeks."""
Ratios = tuple[tuple[float, float], ...]
_BISECTIONS: Final = 60


def log_e_value(
    canary_events: float,
    canary_trials: float,
    stable_events: float,
    stable_trials: float,
    ratios: Ratios = RATIOS,
) -> float:
    """Give the logarithm of the e-value against "the canary's rate is not above stable's".

    Args:
        canary_events: how often it happened on the canary; may be broken, as Prometheus extrapolates.
        canary_trials: how often it could have happened.
        stable_events: the same of stable.
        stable_trials: the same of stable.
        ratios: how many times worse the canary may be, with weights that add up to 1.

    Returns:
        0 where there is nothing to compare; above 0 the data speak against the canary.
    """
    if canary_trials <= 0 or stable_trials <= 0:
        return 0.0
    share = canary_trials / (canary_trials + stable_trials)
    events = canary_events + stable_events
    return log_sum(
        math.log(weight)
        + canary_events * math.log(ratio)
        - events * math.log1p(share * (ratio - 1))
        for ratio, weight in ratios
    )


def rate_interval(events: float, trials: float, alpha: float) -> tuple[float, float]:
    """Give a confidence sequence for one rate.

    The rates that the beta-binomial mixture martingale with a Beta(1/2, 1/2) prior does not reject (Robbins 1970;
    Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
    Statistics 49, 2021).

    Args:
        events: how often it happened.
        trials: how often it could have happened.
        alpha: chance that the interval ever misses the rate.
    """
    if trials <= 0:
        return 0.0, 1.0
    events = min(max(events, 0.0), trials)
    marginal = _log_marginal(events, trials)

    def rejected(rate: float) -> bool:
        return _log_martingale(marginal, events, trials, rate) >= math.log(1 / alpha)

    best = events / trials
    return _edge(rejected, best, 0.0), _edge(rejected, best, 1.0)


def excludes(events: float, trials: float, rate: float, alpha: float) -> bool:
    """Tell whether the confidence sequence of `rate_interval` leaves a rate out."""
    return log_martingale(events, trials, rate) >= math.log(1 / alpha)


def log_martingale(events: float, trials: float, rate: float) -> float:
    """Give the logarithm of the martingale of `rate_interval`: evidence against a rate, 0 at the beginning."""
    if trials <= 0:
        return 0.0
    events = min(max(events, 0.0), trials)
    return _log_martingale(_log_marginal(events, trials), events, trials, rate)


def difference_interval(
    canary_events: float,
    canary_trials: float,
    stable_events: float,
    stable_trials: float,
    alpha: float,
) -> tuple[float, float]:
    """Give a confidence sequence for the canary's rate minus stable's: each rate gets half of alpha.

    Conservative: it may still hold 0 when the test has already found a difference.
    """
    canary_low, canary_high = rate_interval(canary_events, canary_trials, alpha / 2)
    stable_low, stable_high = rate_interval(stable_events, stable_trials, alpha / 2)
    return canary_low - stable_high, canary_high - stable_low


def log_sum(logs: Iterable[float]) -> float:
    """Add numbers that are given by their logarithms."""
    values = list(logs)
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def _log_marginal(events: float, trials: float) -> float:
    return _log_beta(events + 0.5, trials - events + 0.5) - _log_beta(0.5, 0.5)


def _log_martingale(marginal: float, events: float, trials: float, rate: float) -> float:
    return marginal - _times_log(events, rate) - _times_log(trials - events, 1 - rate)


def _edge(rejected: Callable[[float], bool], inside: float, outside: float) -> float:
    """Find where the rejected rates begin between a rate that is not and an end of the scale."""
    if not rejected(outside):
        return outside
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        if rejected(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _times_log(count: float, rate: float) -> float:
    """Give count * log(rate), where 0 * log(0) is 0."""
    if count == 0:
        return 0.0
    return count * math.log(rate) if rate > 0 else -math.inf
