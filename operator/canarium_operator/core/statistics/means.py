"""Means (accuracy, confidence, revenue): is the canary's worse than stable's?

The mixture sequential probability ratio test for the difference of two means with a normal mixture of variance tau^2
(Johari, Koomen, Pekelis, Walsh, "Always Valid Inference: Continuous Monitoring of A/B Tests", Operations Research 70,
2022, equations 11 and 12), with the half of the mixture that lies on the side of a worsening. Variances are estimated
from the data, so the test is asymptotic: below MIN_COUNT values a side it says nothing. Values that
depend on one another (many of one client) are taken for independent ones.
"""

import math
from dataclasses import dataclass
from typing import Final

MIN_COUNT: Final = 30
"""Values a side, below which an estimated variance is not to be trusted."""
DEFAULT_SCALE: Final = 0.1
"""Effect that the mixture is centred on where the user names none, in standard deviations of one value."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Sums of one revision."""

    total: float
    squares: float
    count: float

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return self.total / self.count

    @property
    def variance(self) -> float:
        """Unbiased variance of one value, for a count above 1; never below 0, whatever rounding does."""
        centred = self.squares - self.total * self.total / self.count
        return max(0.0, centred / (self.count - 1))


def log_e_value(canary: Sample, stable: Sample, scale: float | None) -> float:
    """Give the logarithm of the e-value against "the canary's mean is not above stable's".

    Args:
        canary: its sums; turn the sign of `total` where higher is better.
        stable: the same of stable.
        scale: size of a difference that matters; None: DEFAULT_SCALE standard deviations.
    """
    parts = _parts(canary, stable, scale)
    if parts is None:
        return 0.0
    variance, tau_squared = parts
    difference = canary.mean - stable.mean
    spread = variance * (variance + tau_squared)
    z = difference * math.sqrt(tau_squared / spread)
    # 2 Phi(z): what is left of the mixture when its lower half is cut off and the rest doubled.
    doubled = math.erfc(-z / math.sqrt(2))
    if doubled <= 0:
        return -50.0
    log_mixture = 0.5 * math.log(variance / (variance + tau_squared)) + z * z / 2
    return log_mixture + math.log(doubled)


def difference_interval(
    canary: Sample, stable: Sample, scale: float | None, alpha: float
) -> tuple[float, float] | None:
    """Give a confidence sequence for the difference of the means; None where there are too few values."""
    parts = _parts(canary, stable, scale)
    if parts is None:
        return None
    variance, tau_squared = parts
    spread = variance * (variance + tau_squared) / tau_squared
    inner = 2 * math.log(1 / alpha) + math.log((variance + tau_squared) / variance)
    half = math.sqrt(spread * inner)
    difference = canary.mean - stable.mean
    return difference - half, difference + half


def _parts(canary: Sample, stable: Sample, scale: float | None) -> tuple[float, float] | None:
    """Give the variance of the difference and that of the mixture.

    The variance of the difference is the larger one of two estimates: each side's own, and one for both. Forty values
    of which none is the one in fifty that counts seem to have no variance at all; alone, that made a canary of 1 % or
    90 % look worse by chance in every second rollout.
    """
    if min(canary.count, stable.count) < MIN_COUNT:
        return None
    within = canary.variance * (canary.count - 1) + stable.variance * (stable.count - 1)
    common = within / (canary.count + stable.count - 2)
    if common <= 0:
        # Two constants: any difference between them is certain, and a tiny variance says so.
        common = 1e-12 * max(1.0, abs(canary.mean), abs(stable.mean)) ** 2
    variance = max(
        common * (1 / canary.count + 1 / stable.count),
        canary.variance / canary.count + stable.variance / stable.count,
    )
    tau = scale or DEFAULT_SCALE * math.sqrt(common)
    return variance, tau * tau
