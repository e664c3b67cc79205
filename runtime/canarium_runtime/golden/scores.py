"""Metrics of answers, from counts and sums. Pure arithmetic; tests hold each against scikit-learn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from canarium_runtime.shadow.windows import ranks

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
_EPSILON: Final = 1e-15
"""Probabilities are kept this far from 0 and 1, as in scikit-learn's log_loss."""
BINS: Final = 10
"""Of a calibration curve."""
LESS_IS_BETTER: Final = frozenset({"logLoss", "calibrationError", "rmse", "mae", "failedRows"})


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """What is known of one class."""

    name: str
    precision: float
    recall: float
    f1: float
    rows: int
    """Rows whose right class it is."""


def confusion(truth: Codes, said: Codes, classes: int) -> NDArray[np.int64]:
    """Count rows by right class (row) and answer (column)."""
    flat = np.bincount(truth * classes + said, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def by_class(counts: NDArray[np.int64], names: Sequence[str]) -> list[ClassScores]:
    """Give precision, recall and F1 of each class; 0 where one is not defined.

    Example: of 10 rows of a class 8 are found, and 2 others are taken for it: precision 0.8, recall 0.8, F1 0.8.
    """
    right = counts.diagonal()
    said, there = counts.sum(axis=0), counts.sum(axis=1)
    return [
        ClassScores(
            name=name,
            precision=_ratio(right[i], said[i]),
            recall=_ratio(right[i], there[i]),
            f1=_ratio(2 * right[i], said[i] + there[i]),
            rows=int(there[i]),
        )
        for i, name in enumerate(names)
    ]


def classification(counts: NDArray[np.int64], classes: Sequence[ClassScores]) -> dict[str, float]:
    """Give the metrics that counts tell; means over the classes that occur in the data or in the answers."""
    total = counts.sum()
    there = [c for c in classes if c.rows]
    return {
        "accuracy": _ratio(counts.trace(), total),
        "balancedAccuracy": _mean([c.recall for c in there]),
        "precision": _mean([c.precision for c in classes]),
        "recall": _mean([c.recall for c in classes]),
        "f1": _mean([c.f1 for c in classes]),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Give Wilson's score interval of a share (E. B. Wilson, JASA 22, 1927); 95 % by default.

    Example: 95 right of 100 is 0.888 to 0.978.
    """
    if not total:
        return 0.0, 1.0
    p, zz = right / total, z * z
    centre = (p + zz / (2 * total)) / (1 + zz / total)
    half = z / (1 + zz / total) * math.sqrt(p * (1 - p) / total + zz / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def auc(positive: NDArray[np.bool_], scores: Floats) -> float | None:
    """Area under the ROC curve: the chance that a positive row has a higher score than a negative one.

    None: all rows are of one kind. By ranks (H. B. Mann and D. R. Whitney, 1947); ties count half.
    """
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return None
    total = float(ranks(scores)[positive].sum())
    return (total - count * (count + 1) / 2) / (count * others)


def roc(
    positive: NDArray[np.bool_], scores: Floats, points: int = 100
) -> list[tuple[float, float]]:
    """Give points of the ROC curve, (share of false alarms, share found), for a plot."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    alarms = np.cumsum(~positive[order])
    ends = np.append(np.nonzero(np.diff(scores[order]))[0], len(order) - 1)
    if len(ends) > points:
        ends = ends[np.linspace(0, len(ends) - 1, points).round().astype(np.intp)]
    most_hits, most_alarms = max(int(hits[-1]), 1), max(int(alarms[-1]), 1)
    curve = [(float(alarms[i]) / most_alarms, float(hits[i]) / most_hits) for i in ends]
    return [(0.0, 0.0), *curve]


def log_loss(truth: Codes, scores: Floats) -> float:
    """Mean negative logarithm of the probability of the right class; rows are scaled to sum to 1."""
    kept = np.clip(scores / scores.sum(axis=1, keepdims=True), _EPSILON, 1 - _EPSILON)
    return float(-np.log(kept[np.arange(len(truth)), truth]).mean())


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Rows of which the model is about equally sure."""

    confidence: float
    """Mean score of the class that it names."""
    accuracy: float
    """Share of them that is right."""
    rows: int


def calibration(right: NDArray[np.bool_], confidence: Floats) -> list[CalibrationBin]:
    """Give a calibration curve of BINS equal bins; empty ones are left out."""
    bins = np.minimum((np.clip(confidence, 0, 1) * BINS).astype(np.intp), BINS - 1)
    return [
        CalibrationBin(
            confidence=float(confidence[bins == i].mean()),
            accuracy=float(right[bins == i].mean()),
            rows=int((bins == i).sum()),
        )
        for i in range(BINS)
        if (bins == i).any()
    ]


def calibration_error(curve: Sequence[CalibrationBin]) -> float:
    """Mean distance between confidence and accuracy, weighted by rows (expected calibration error)."""
    total = sum(b.rows for b in curve)
    return sum(b.rows * abs(b.confidence - b.accuracy) for b in curve) / total if total else 0.0


def regression(truth: Floats, said: Floats) -> dict[str, float]:
    """Give the metrics of numbers. R2 is 0 where the right answers are all the same and not met, as in scikit-learn."""
    error = said - truth
    squared = float((error**2).sum())
    spread = float(((truth - truth.mean()) ** 2).sum())
    unexplained = squared / spread if spread else float(squared > 0)
    return {
        "rmse": math.sqrt(squared / len(error)),
        "mae": float(np.abs(error).mean()),
        "r2": 1.0 - unexplained,
    }
