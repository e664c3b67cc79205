"""Latency from histograms: are the canary's requests slower than stable's?

For each bucket bound, the share of slower requests is compared as any other share; the mean of the e-values over all
bounds is an e-value (a convex combination keeps the mean at most 1). What is tested is that the canary is not
stochastically slower, at any bound: no quantile has to be known exactly, which a histogram could not give.
"""

import math
from itertools import pairwise
from typing import Final

from canarium_operator.core.statistics import proportions
from canarium_operator.core.statistics.proportions import excludes, log_sum

Buckets = tuple[tuple[float, float], ...]
"""(Upper bound in seconds, requests at or below it), bounds rising, the last one infinite."""
_LONGEST: Final = 1e6
"""Seconds; stands for no bound at all in a ratio."""


def quantile(buckets: Buckets, q: float) -> float | None:
    """Read a quantile by linear interpolation within its bucket.

    The same figure as Prometheus' `histogram_quantile` (its documentation): a quantile in the last bucket is the
    second-last bound, and the first bucket begins at 0.

    Args:
        buckets: of one revision.
        q: 0 to 1.

    Returns:
        Seconds; None without requests.
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank = q * buckets[-1][1]
    for (lower, below), (upper, count) in pairwise(((0.0, 0.0), *buckets)):
        if count >= rank:
            if math.isinf(upper):
                return lower
            if count == below:
                return upper
            return lower + (upper - lower) * (rank - below) / (count - below)
    return buckets[-2][0] if len(buckets) > 1 else None


def log_e_value(canary: Buckets, stable: Buckets) -> float:
    """Give the logarithm of the e-value against "the canary is not slower".

    Bounds that only one side has are left out: two versions of a server may have other buckets.
    """
    if not canary or not stable:
        return 0.0
    canary_total, stable_total = canary[-1][1], stable[-1][1]
    of_stable = dict(stable)
    bounds = [(b, count) for b, count in canary if b in of_stable and not math.isinf(b)]
    if not bounds:
        return 0.0
    logs = [
        proportions.log_e_value(
            canary_total - count, canary_total, stable_total - of_stable[bound], stable_total
        )
        for bound, count in bounds
    ]
    return log_sum(logs) - math.log(len(logs))


def quantile_interval(buckets: Buckets, q: float, alpha: float) -> tuple[float, float]:
    """Give a confidence sequence for a quantile, in whole buckets.

    A bound can be the quantile while the confidence sequence for the share of requests at or below it holds q.

    Returns:
        Seconds; infinity where the histogram ends before the quantile surely does.
    """
    total = buckets[-1][1] if buckets else 0.0
    low, high = 0.0, math.inf
    for bound, count in buckets:
        if not excludes(count, total, q, alpha):
            continue
        if count >= q * total:
            high = bound
            break
        low = bound
    return low, high


def ratio_interval(
    canary: Buckets, stable: Buckets, q: float, alpha: float
) -> tuple[float, float] | None:
    """Give a confidence sequence for (canary's quantile / stable's) - 1; None where it would say nothing."""
    canary_low, canary_high = quantile_interval(canary, q, alpha / 2)
    stable_low, stable_high = quantile_interval(stable, q, alpha / 2)
    if stable_low <= 0 or max(canary_high, stable_high) > _LONGEST:
        return None
    return canary_low / stable_high - 1, canary_high / stable_low - 1
