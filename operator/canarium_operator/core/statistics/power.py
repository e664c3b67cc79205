"""How many requests it takes to find a worsening."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Final

from canarium_operator.core.statistics import means
from canarium_operator.core.statistics.evidence import FIRST_SHARE
from canarium_operator.core.statistics.proportions import RATIOS, Ratios

MOST: Final = 100_000_000
"""Where a search ends."""


def requests_for_share(
    stable_rate: float,
    worsening: float,
    *,
    alpha: float,
    power: float,
    checks: int = 1,
    ratios: Ratios = RATIOS,
) -> int:
    """Give the requests of the canary, beside as many of stable, after which a worsening is found.

    By the mean and the variance of the logarithm of the e-value under the worsening, as for a random walk that must
    be above its boundary (Wald, "Sequential Analysis", 1947): an upper bound, since it is only asked about one look.

    Args:
        stable_rate: stable's rate, above 0.
        worsening: the canary's rate minus stable's.
        alpha: level of the test.
        power: chance that it is found.
        checks: number of checks that share alpha.
        ratios: of the test.
    """
    canary_rate = min(stable_rate + worsening, 1.0)
    if worsening <= 0 or canary_rate <= stable_rate:
        return MOST
    boundary = _boundary(alpha, checks)
    z = NormalDist().inv_cdf(power)
    counts = []
    for ratio, weight in ratios:
        # One canary request beside one of stable: each event moves the walk by log(ratio) - cost or by -cost.
        cost = math.log1p((ratio - 1) / 2)
        gain = math.log(ratio) - cost
        drift = canary_rate * gain - stable_rate * cost
        variance = canary_rate * gain**2 + stable_rate * cost**2
        if drift > 0:
            height = boundary - math.log(weight)
            root = (z * math.sqrt(variance) + math.sqrt(z * z * variance + 4 * drift * height)) / (
                2 * drift
            )
            counts.append(root * root)
    return min(MOST, math.ceil(min(counts))) if counts else MOST


def values_for_mean(
    deviation: float, worsening: float, *, alpha: float, power: float, checks: int = 1
) -> int:
    """Give the values of the canary, beside as many of stable, after which a worsening of the mean is found.

    Args:
        deviation: standard deviation of one value.
        worsening: difference of the means, above 0.
        alpha: level of the test.
        power: chance that it is found.
        checks: number of checks that share alpha.
    """
    z, boundary = NormalDist().inv_cdf(power), _boundary(alpha, checks)

    def found(count: int) -> bool:
        seen = worsening - z * deviation * math.sqrt(2 / count)
        squares = (deviation**2) * (count - 1)
        canary = means.Sample(total=seen * count, squares=squares + seen**2 * count, count=count)
        stable = means.Sample(total=0.0, squares=squares, count=count)
        return seen > 0 and means.log_e_value(canary, stable, worsening) >= boundary

    return _smallest(found, means.MIN_COUNT)


def _boundary(alpha: float, checks: int) -> float:
    """Height that the logarithm of a step's e-value must reach: alpha, shared by checks, and by later steps."""
    return math.log(max(checks, 1) / alpha) - math.log(FIRST_SHARE)


def _smallest(found: Callable[[int], bool], least: int) -> int:
    high = least
    while not found(high):
        if high >= MOST:
            return MOST
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return max(high, least)
