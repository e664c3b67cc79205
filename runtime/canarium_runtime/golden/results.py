"""What one model made of golden data: its answers as they come, and the metrics that they give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from canarium_runtime.golden import scores
from canarium_runtime.golden.answers import MAX_CLASSES, Answers, ColumnNames, Reading
from canarium_runtime.golden.scores import CalibrationBin, ClassScores
from canarium_runtime.golden.table import DataError

MAX_SCORES: Final = 20_000_000
"""Scores (rows times classes) that are kept for AUC and log loss."""
_PLOTTED: Final = 400
"""Rows of a regression that a plot shows."""
_TOLERANCE: Final = 1e-3
"""Numbers of two versions that differ by less, relatively, are the same."""
Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Results:
    """What one model made of the golden data."""

    metrics: Mapping[str, float]
    """By the names of `canarium_api.golden.MetricBounds`, as they are written in YAML."""
    classes: Sequence[ClassScores] = ()
    confusion: Sequence[Sequence[int]] = ()
    """Rows by right class (outer) and answer."""
    accuracy_interval: tuple[float, float] | None = None
    """Where the accuracy may well be, 95 %, as far as the number of rows tells."""
    roc: Sequence[tuple[float, float]] = ()
    calibration: Sequence[CalibrationBin] = ()
    pairs: Sequence[tuple[float, float]] = ()
    """(right answer, answer) of some rows of a regression, for a plot."""
    failures: Sequence[str] = ()
    """The first rows that the model refused or failed on, and why."""
    notes: Sequence[str] = ()
    """What could not be told, and why."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How the answers of two versions compare, row by row."""

    share: float
    """Rows on which they say the same."""
    rows: int
    mean_difference: float | None = None
    """New less old, of numbers."""


@dataclass
class Tally:
    """Answers of one model, as they come."""

    reading: Reading
    codes: dict[str, int]
    """Numbers of classes, shared by all who answer the same rows."""
    said: list[NDArray[np.intp]] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    scores: list[Floats] = field(default_factory=list)
    kept_scores: int = 0
    columns: ColumnNames = field(default_factory=ColumnNames)
    failures: list[str] = field(default_factory=list)
    failed: int = 0
    seconds: float = 0.0

    def add(self, answers: Answers) -> None:
        """Take the answers to some rows."""
        if answers.classes is not None:
            self.said.append(encode(self.codes, answers.classes))
        if answers.values is not None:
            self.values.append(answers.values)
        if answers.scores is not None and self.kept_scores <= MAX_SCORES:
            self.columns.learn(answers)
            self.scores.append(answers.scores)
            self.kept_scores += answers.scores.size


def encode(codes: dict[str, int], names: Sequence[str]) -> NDArray[np.intp]:
    """Number classes; new ones get the next number.

    Raises:
        DataError: there are too many.
    """
    for name in names:
        if name not in codes:
            codes[name] = len(codes)
            if len(codes) > MAX_CLASSES:
                raise DataError(
                    f"more than {MAX_CLASSES} classes: is this a regression? Say so in the thresholds (task)"
                )
    return np.array([codes[name] for name in names], np.intp)


def _in_order(codes: Mapping[str, int]) -> list[str]:
    """Order classes as people would: numbers by value, then words."""

    def key(name: str) -> tuple[bool, float, str]:
        try:
            return False, float(name), name
        except ValueError:
            return True, 0.0, name

    return sorted(codes, key=key)


def of_numbers(tally: Tally, truth: Floats) -> Results:
    """Give the results of a regression."""
    said = np.concatenate(tally.values)
    chosen = np.linspace(0, len(truth) - 1, min(len(truth), _PLOTTED)).round().astype(np.intp)
    return Results(
        metrics={**scores.regression(truth, said), "failedRows": float(tally.failed)},
        pairs=[(float(truth[i]), float(said[i])) for i in chosen],
        failures=tally.failures,
    )


def of_classes(tally: Tally, truth: Codes) -> Results:
    """Give the results of a classification; classes that nobody names are left out."""
    names = _in_order(tally.codes)
    order = np.array([names.index(name) for name in tally.codes], np.intp)
    truth, said = order[truth], order[np.concatenate(tally.said)]
    counts = scores.confusion(truth, said, len(names))
    used = (counts.sum(axis=0) + counts.sum(axis=1)) > 0
    counts = counts[used][:, used]
    names = [name for name, there in zip(names, used, strict=True) if there]
    classes = scores.by_class(counts, names)
    position = np.cumsum(used) - 1
    scored = _scored(tally, position[truth], truth == said, names)
    return Results(
        metrics={
            **scores.classification(counts, classes),
            **scored.metrics,
            "failedRows": float(tally.failed),
        },
        classes=classes,
        confusion=counts.tolist(),
        accuracy_interval=scores.interval(int(counts.trace()), int(counts.sum())),
        roc=scored.roc,
        calibration=scored.calibration,
        failures=tally.failures,
        notes=scored.notes,
    )


def agreement(new: Tally, old: Tally) -> Agreement:
    """Compare the answers of two versions to the same rows."""
    if new.values:
        a, b = np.concatenate(new.values), np.concatenate(old.values)
        same = np.abs(a - b) <= _TOLERANCE * np.abs(b) + 1e-9
        difference = float((a - b).mean())
        return Agreement(share=float(same.mean()), rows=len(a), mean_difference=difference)
    said, before = np.concatenate(new.said), np.concatenate(old.said)
    return Agreement(share=float((said == before).mean()), rows=len(said))


@dataclass(frozen=True, kw_only=True)
class _Scored:
    metrics: Mapping[str, float]
    roc: Sequence[tuple[float, float]] = ()
    calibration: Sequence[CalibrationBin] = ()
    notes: Sequence[str] = ()


def _scored(
    tally: Tally, truth: NDArray[np.intp], right: NDArray[np.bool_], names: Sequence[str]
) -> _Scored:
    """Tell what the scores tell, where there are some."""
    if not tally.scores:
        return _Scored(
            metrics={}, notes=("no output has a score for each class: no AUC, no log loss",)
        )
    if tally.kept_scores > MAX_SCORES:
        return _Scored(metrics={}, notes=(f"more than {MAX_SCORES} scores: no AUC, no log loss",))
    given = np.concatenate(tally.scores)
    best = given.max(axis=1)
    curve = scores.calibration(right, best) if ((best >= 0) & (best <= 1)).all() else []
    metrics = {"calibrationError": scores.calibration_error(curve)} if curve else {}
    columns = tally.columns.names(given.shape[1], names)
    if columns is None or not set(names) <= set(columns):
        note = (
            "which score belongs to which class is not known: name them in the thresholds (classes)"
        )
        return _Scored(metrics=metrics, calibration=curve, notes=(f"{note}; no AUC, no log loss",))
    ordered = given[:, [columns.index(name) for name in names]]
    if (given >= 0).all() and (given.sum(axis=1) > 0).all():
        everything = given[
            :, [columns.index(n) for n in (*names, *sorted(set(columns) - set(names)))]
        ]
        metrics["logLoss"] = scores.log_loss(truth, everything)
    areas = [scores.auc(truth == i, ordered[:, i]) for i in range(len(names))]
    if len(names) == 2:
        areas = areas[1:]
    known = [area for area in areas if area is not None]
    if known and len(known) == len(areas):
        metrics["auc"] = sum(known) / len(known)
    roc = scores.roc(truth == 1, ordered[:, 1]) if len(names) == 2 and "auc" in metrics else []
    return _Scored(metrics=metrics, roc=roc, calibration=curve)
