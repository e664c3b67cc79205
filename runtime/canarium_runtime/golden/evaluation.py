"""Runs a model over golden data, and an old version over the same rows, and gathers what can be told of them.

Memory is bounded by rows (`table.MAX_ROWS`), classes (`answers.MAX_CLASSES`) and the samples of `profile`; a table is
read chunk by chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from canarium_api.golden import Task, Thresholds
from canarium_runtime.backends.base import Array, Backend
from canarium_runtime.golden import results
from canarium_runtime.golden.answers import canonical, choose
from canarium_runtime.golden.features import Features
from canarium_runtime.golden.layout import Layout, arrays_of, make_layout, to_floats
from canarium_runtime.golden.profile import Feature
from canarium_runtime.golden.results import Agreement, Results, Tally, encode
from canarium_runtime.golden.running import Latency, answer, measure
from canarium_runtime.golden.table import Chunk, DataError, Table

LATENCY_ROWS: Final = 64
"""Different rows that latency is measured with."""
Inputs = dict[str, Array]
Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


class ModelError(Exception):
    """The model answers nothing of the golden data; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that is known of a model on golden data."""

    task: Task
    rows: int
    cut: bool
    """The file has more rows than were read."""
    new: Results
    latency: Latency
    rows_per_second: float
    """Throughput of the whole pass, BATCH_ROWS rows a run."""
    features: Sequence[Feature]
    features_in_all: int
    reference_rows: int | None = None
    old: Results | None = None
    old_latency: Latency | None = None
    agreement: Agreement | None = None
    notes: Sequence[str] = ()


@dataclass(kw_only=True)
class _Side:
    """One of the two models."""

    backend: Backend
    layout: Layout
    tally: Tally
    examples: list[Inputs] = field(default_factory=list)

    def keep_examples(self, arrays: Inputs, answered: Sequence[int]) -> None:
        """Keep some rows for measuring."""
        room = LATENCY_ROWS - len(self.examples)
        self.examples += [
            {name: array[i : i + 1] for name, array in arrays.items()} for i in answered[:room]
        ]


class _Evaluator:
    """One evaluation."""

    def __init__(self, backend: Backend, table: Table, thresholds: Thresholds) -> None:
        self._table = table
        self._thresholds = thresholds
        self._codes: dict[str, int] = {}
        self._notes: list[str] = []
        self._sides = [self._side(backend)]
        self._task = self._sides[0].tally.reading.task
        self._truth: list[Codes] = []
        self._numbers: list[Floats] = []
        self._total = 0

    def _side(self, backend: Backend) -> _Side:
        layout = make_layout(self._table, backend.spec, self._thresholds)
        tally = Tally(choose(backend.spec, self._thresholds), self._codes)
        tally.columns.given = tally.reading.classes
        return _Side(backend=backend, layout=layout, tally=tally)

    def compare_with(self, old: Backend) -> None:
        """Let an old version answer the same rows, if it can."""
        try:
            side = self._side(old)
        except DataError as error:
            self._notes.append(
                f"the old version is not compared, since it does not take these data: {error}"
            )
            return
        if side.tally.reading.task is not self._task:
            self._notes.append("the old version is not compared, since it does another task")
            return
        self._sides.append(side)

    def run(self, reference: Table | None) -> Evaluation:
        """Do all of it."""
        new = self._sides[0]
        features = Features(new.backend.spec, new.layout)
        for chunk in self._table.chunks():
            self._take(chunk, features)
        answered = sum(map(len, self._truth)) + sum(map(len, self._numbers))
        if not answered:
            failures = [side.tally for side in self._sides if side.tally.failed]
            raise ModelError(f"no row was answered: {failures[0].failures[0]}")
        described, in_all, reference_rows = features.describe(reference, self._thresholds)
        old = self._sides[1] if len(self._sides) == 2 else None
        return Evaluation(
            task=self._task,
            rows=self._total,
            cut=self._table.is_cut(),
            new=self._results(new.tally),
            latency=measure(new.backend, new.examples),
            rows_per_second=answered / max(new.tally.seconds, 1e-9),
            features=described,
            features_in_all=in_all,
            reference_rows=reference_rows,
            old=None if old is None else self._results(old.tally),
            old_latency=None if old is None else measure(old.backend, old.examples),
            agreement=None if old is None else results.agreement(new.tally, old.tally),
            notes=self._notes,
        )

    def _results(self, tally: Tally) -> Results:
        if self._task is Task.REGRESSION:
            return results.of_numbers(tally, np.concatenate(self._numbers))
        return results.of_classes(tally, np.concatenate(self._truth))

    def _take(self, chunk: Chunk, features: Features) -> None:
        """Let all answer some rows. Only rows that all answer count, so that versions are compared on the same ones."""
        truth = self._right_answers(chunk)
        answered = np.ones(chunk.rows, bool)
        found = []
        for side in self._sides:
            arrays = arrays_of(self._table, chunk, side.layout, side.backend.spec)
            if side is self._sides[0]:
                features.add(arrays)
            parts, good = answer(self._table, side.backend, side.tally, arrays, chunk)
            found.append((side, arrays, parts))
            answered &= good
        self._total += chunk.rows
        kept = np.nonzero(answered)[0]
        if not len(kept):
            return
        for side, arrays, parts in found:
            side.tally.add(side.tally.reading.read({n: a[kept] for n, a in parts.items()}))
            side.keep_examples(arrays, kept.tolist())
        if self._task is Task.REGRESSION:
            self._numbers.append(truth[kept].astype(np.float64))
        else:
            self._truth.append(truth[kept].astype(np.intp))

    def _right_answers(self, chunk: Chunk) -> Floats | Codes:
        name = self._sides[0].layout.label
        assert name is not None  # noqa: S101 - golden data have labels
        values = chunk.columns[name]
        for index, value in enumerate(values):
            if value is None or value == "":
                place = self._table.where(chunk.first + index, name)
                raise DataError(f"{place}: the right answer is missing")
        if self._task is not Task.REGRESSION:
            return encode(self._codes, [canonical(value) for value in values])
        numbers = to_floats(self._table, chunk, name)
        if not np.isfinite(numbers).all():
            at = int(np.argmax(~np.isfinite(numbers)))
            place = self._table.where(chunk.first + at, name)
            raise DataError(f"{place}: the right answer {values[at]!r} is no finite number")
        return numbers


def evaluate(
    backend: Backend,
    table: Table,
    thresholds: Thresholds,
    *,
    old: Backend | None = None,
    reference: Table | None = None,
) -> Evaluation:
    """Run a model over golden data.

    Args:
        backend: the model, warmed up.
        table: golden data, with the right answers.
        thresholds: for what columns and outputs mean; limits are not looked at, but that of drift.
        old: the version to compare with, warmed up.
        reference: data as the model was trained on, or as clients send.

    Raises:
        DataError: the data do not fit the model.
        ModelError: the model answers none of the rows.
    """
    evaluator = _Evaluator(backend, table, thresholds)
    if old is not None:
        evaluator.compare_with(old)
    return evaluator.run(reference)
