"""Data quality and drift, feature by feature: golden data against a reference.

The score of drift is made from the population stability index: 1 - exp(-PSI' / 0.2077), so that a PSI of 0.25, by
custom the line of a major shift, is 0.7. PSI' is the index less what two samples of these sizes differ by anyway. A
feature has drifted where its score reaches the threshold *and* a test says that it is no chance, at 5 % over all
features together: two-sample Kolmogorov-Smirnov for numbers, and the chi-square that PSI is close to.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from canarium_runtime.shadow.windows import Bins, psi

Floats = NDArray[np.float64]
MIN_ROWS: Final = 50
"""Fewest rows on either side for any word on drift."""
SAMPLE_ROWS: Final = 50_000
"""Most rows of a feature that are kept."""
SAMPLE_CELLS: Final = 10_000_000
"""Most cells that are kept in all."""
LEVEL: Final = 0.05
"""Chance of any false alarm, over all features."""
MOST_WORDS: Final = 1024
"""Different words of a feature that are told apart."""
HISTOGRAM_BINS: Final = 20
_SCALE: Final = 0.25 / -math.log(1 - 0.7)


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far a feature is from its reference."""

    psi: float
    """Population stability index."""
    ks: float | None
    """Largest distance of the two distribution functions; None: words."""
    p_value: float
    """Chance of such a distance, or a larger one, without any drift."""
    score: float
    """0 to 1; see the module."""
    drifted: bool


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What is known of one feature of the golden data."""

    name: str
    rows: int
    missing: int
    is_text: bool
    mean: float | None = None
    deviation: float | None = None
    least: float | None = None
    most: float | None = None
    words: int | None = None
    """Different words, of text; at most MOST_WORDS."""
    out_of_range: float | None = None
    """Share of values that the reference's range, or words, do not have; None: no reference."""
    drift: Drift | None = None
    """None: no reference, or too few rows."""
    histogram: tuple[tuple[float, float], ...] = ()
    """Shares by bin, (golden, reference), for a plot."""

    @property
    def missing_share(self) -> float:
        """Share of missing values."""
        return self.missing / self.rows if self.rows else 0.0


class Sample:
    """Rows of all features, up to a bound: beyond it, each row seen has the same chance to be kept (algorithm R).

    Args:
        features: how many.
        seed: of the choice, so that the same data give the same report.
    """

    def __init__(self, features: int, seed: int = 7) -> None:
        self._most = max(MIN_ROWS, min(SAMPLE_ROWS, SAMPLE_CELLS // max(features, 1)))
        self._parts: list[Floats] = []
        self._kept: Floats | None = None
        self._random = np.random.default_rng(seed)
        self.rows = 0

    def add(self, values: Floats) -> None:
        """Take rows of shape (rows, features)."""
        if self._kept is None:
            room = self._most - self.rows
            self._parts.append(values[:room].copy())
            self.rows += len(values[:room])
            if len(values) < room:
                return
            self._kept = np.concatenate(self._parts)
            self._parts, values = [], values[room:]
        seen = self.rows + 1 + np.arange(len(values))
        at = (self._random.random(len(values)) * seen).astype(np.intp)
        for index in np.nonzero(at < self._most)[0]:
            self._kept[at[index]] = values[index]
        self.rows += len(values)

    def values(self) -> Floats:
        """Give what was kept."""
        if self._kept is not None:
            return self._kept
        return np.concatenate(self._parts) if self._parts else np.empty((0, 0))


class Words:
    """Numbers for words, so that text can be sampled as numbers are; beyond MOST_WORDS all others are one."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def codes(self, values: list[str]) -> Floats:
        """Give the number of each word; an empty one is missing."""
        known = self._codes
        for value in values:
            if value and value not in known and len(known) < MOST_WORDS:
                known[value] = len(known)
        return np.array([known.get(v, MOST_WORDS) if v else math.nan for v in values], np.float64)


def profile(
    name: str,
    values: Floats,
    reference: Floats | None,
    *,
    is_text: bool,
    threshold: float,
    features: int,
) -> Feature:
    """Describe a feature.

    Args:
        name: of the feature.
        values: of the golden data; NaN is missing, words are numbers.
        reference: of the reference.
        is_text: the values are words.
        threshold: score from which on it has drifted.
        features: how many are tested, for the level of each test.
    """
    known = values[~np.isnan(values)]
    numbers = not is_text and len(known) > 0
    finite = known[np.isfinite(known)]
    base = None if reference is None else reference[~np.isnan(reference)]
    return Feature(
        name=name,
        rows=len(values),
        missing=len(values) - len(known),
        is_text=is_text,
        mean=float(finite.mean()) if numbers and len(finite) else None,
        deviation=float(finite.std()) if numbers and len(finite) else None,
        least=float(known.min()) if numbers else None,
        most=float(known.max()) if numbers else None,
        words=len(np.unique(known)) if is_text else None,
        out_of_range=None if base is None else _out_of_range(known, base, is_text=is_text),
        drift=_drift(values, reference, is_text=is_text, threshold=threshold, features=features),
        histogram=_histogram(known, base, is_text=is_text),
    )


def _out_of_range(known: Floats, base: Floats, *, is_text: bool) -> float:
    if not len(known):
        return 0.0
    if not len(base):
        return 1.0
    if is_text:
        return float((~np.isin(known, np.unique(base))).mean())
    return float(((known < base.min()) | (known > base.max())).mean())


def _drift(
    values: Floats, reference: Floats | None, *, is_text: bool, threshold: float, features: int
) -> Drift | None:
    if reference is None or min(len(values), len(reference)) < MIN_ROWS:
        return None
    bins = Bins.of(reference, labels=is_text)
    expected, actual = bins.count(reference), bins.count(values)
    used = int(((expected + actual) > 0).sum())
    index = psi(expected, actual)
    noise = (1 / len(values) + 1 / len(reference)) * max(used - 1, 0)
    score = 1 - math.exp(-max(0.0, index - noise) / _SCALE)
    known, base = values[~np.isnan(values)], reference[~np.isnan(reference)]
    distance = None
    # PSI over (1/n + 1/m) is about chi-square, for words and for values that are missing.
    p_value = _chi_square_tail(index / (1 / len(values) + 1 / len(reference)), used - 1)
    if not is_text and len(known) and len(base):
        distance = ks(known, base)
        # Two tests, of which the better one counts: twice its chance (Bonferroni).
        p_value = min(1.0, 2 * min(p_value, ks_p_value(distance, len(known), len(base))))
    drifted = score >= threshold and p_value < LEVEL / max(features, 1)
    return Drift(psi=index, ks=distance, p_value=p_value, score=score, drifted=drifted)


def ks(one: Floats, other: Floats) -> float:
    """Largest distance of two empirical distribution functions."""
    one, other = np.sort(one), np.sort(other)
    both = np.concatenate([one, other])
    a = np.searchsorted(one, both, "right") / len(one)
    b = np.searchsorted(other, both, "right") / len(other)
    return float(np.abs(a - b).max())


def ks_p_value(distance: float, n: int, m: int) -> float:
    """Chance of such a distance, asymptotic with Stephens' correction (M. A. Stephens, JRSS B 32, 1970)."""
    size = math.sqrt(n * m / (n + m))
    x = (size + 0.12 + 0.11 / size) * distance
    if x < 0.2:  # the series does not converge there; the chance is 1 to 12 digits
        return 1.0
    terms = (math.exp(-2 * k * k * x * x) * (1 if k % 2 else -1) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * sum(terms)))


def _chi_square_tail(value: float, degrees: int) -> float:
    """Chance of a chi-square variable above a value: the finite series of a whole number of degrees.

    Example: 3.84 with one degree is 0.05.
    """
    if degrees <= 0 or value <= 0:
        return 1.0
    half = value / 2
    total = math.erfc(math.sqrt(half)) if degrees % 2 else 0.0
    # Terms exp(-half) * half^s / gamma(s + 1), for s from 0 or a half, as logarithms: large ones would overflow.
    for step in range(degrees // 2):
        power = step + (0.5 if degrees % 2 else 0.0)
        total += math.exp(power * math.log(half) - half - math.lgamma(power + 1))
    return min(1.0, total)


def _histogram(
    known: Floats, base: Floats | None, *, is_text: bool
) -> tuple[tuple[float, float], ...]:
    """Give shares by bin of both samples, over the range of both; of words, the most common ones."""
    other = np.empty(0) if base is None else base
    both = np.concatenate([known, other])
    both = both[np.isfinite(both)]
    if not len(both):
        return ()
    if is_text:
        common = [word for word, _ in Counter(both.tolist()).most_common(HISTOGRAM_BINS)]
        return tuple((_share(known == w), _share(other == w)) for w in common)
    edges = np.linspace(both.min(), both.max(), HISTOGRAM_BINS + 1)
    if edges[0] == edges[-1]:
        return ((1.0, 1.0 if len(other) else 0.0),)
    a, b = np.histogram(known, edges)[0], np.histogram(other, edges)[0]
    return tuple(
        (float(x) / max(len(known), 1), float(y) / max(len(other), 1))
        for x, y in zip(a, b, strict=True)
    )


def _share(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean()) if len(hits) else 0.0
