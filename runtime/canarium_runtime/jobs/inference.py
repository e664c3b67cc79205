"""From rows to answers, by the service that answers all other requests. The only module here that knows it.

Rows of a chunk are validated together; if one does not fit, each by itself, so that it fails alone. Rows that may share
a run do. Where a run fails, it is halved until the rows are found that the model fails on.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from canarium_runtime.backends.base import Array, ModelSpec
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.jobs.chunks import Answer, Failure
from canarium_runtime.jobs.errors import TransientError
from canarium_runtime.service import InferenceService
from canarium_runtime.validation import RawTensor, ValidatedInputs, describe, validate

_RUN_SECONDS: Final = 600.0
"""For one run of the model: nobody waits for a batch job as for a request."""
_OF_THE_ROW: Final = frozenset({ErrorKind.MALFORMED, ErrorKind.INVALID, ErrorKind.MODEL_FAILED})
"""Kinds that say something of the row; every other one says something of this server."""
_AHEAD: Final = 2
"""Runs that wait for each that is running, so that the model is never idle."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that may share a run."""

    places: Sequence[int]
    """Of the rows in their chunk."""
    inputs: ValidatedInputs

    def cut(self, start: int, end: int) -> "_Part":
        """Give some of the rows; only of a model that can be batched."""
        places = self.places[start:end]
        arrays = {name: array[start:end] for name, array in self.inputs.arrays.items()}
        inputs = ValidatedInputs(arrays, len(places), self.inputs.key, self.inputs.outputs)
        return _Part(places, inputs)


class RowRunner:
    """Answers rows.

    Args:
        service: the model, ready.
    """

    def __init__(self, service: InferenceService) -> None:
        self._service = service
        self._slots = asyncio.Semaphore(service.config.workers * _AHEAD)

    @property
    def spec(self) -> ModelSpec:
        """Inputs and outputs of the model.

        Raises:
            ServingError: NOT_READY while no model is loaded.
        """
        return self._service.spec

    async def run(self, rows: Sequence[Any]) -> list[Answer]:
        """Answer rows.

        Args:
            rows: each an object from names of inputs to values, or the value itself for a model with one input.

        Returns:
            An answer for each row, in order.

        Raises:
            TransientError: this server could not; the rows are not to blame.
        """
        answers: list[Answer | None] = [None] * len(rows)
        joins, size = self._service.joins_rows, self._service.config.max_batch_size
        try:
            together = self._together(rows) if joins and rows else None
            parts = self._alone(rows, answers) if together is None else [together]
            if joins:
                parts = [
                    part.cut(start, start + size)
                    for part in parts
                    for start in range(0, len(part.places), size)
                ]
            async with asyncio.TaskGroup() as tasks:
                for part in parts:
                    tasks.create_task(self._answer(part, answers))
        except* ServingError as errors:
            raise TransientError(str(errors.exceptions[0])) from errors
        return [a if a is not None else Failure("internal_error", "no answer") for a in answers]

    def _together(self, rows: Sequence[Any]) -> _Part | None:
        """Validate all rows at once, which is many times quicker; None: one of them does not fit."""
        spec = self.spec
        names = [tensor.name for tensor in spec.inputs]
        tensors: dict[str, RawTensor] = {}
        if type(rows[0]) is not dict:
            if len(names) != 1 or any(type(row) is dict for row in rows):
                return None
            tensors[names[0]] = RawTensor(names[0], rows)
        else:
            keys = rows[0].keys()
            if any(type(row) is not dict or row.keys() != keys for row in rows):
                return None
            tensors = {name: RawTensor(name, [row[name] for row in rows]) for name in keys}
        try:
            inputs = validate(spec, tensors, None)
        except ServingError:
            return None
        return _Part(range(len(rows)), inputs) if inputs.rows == len(rows) else None

    def _alone(self, rows: Sequence[Any], answers: list[Answer | None]) -> list[_Part]:
        """Validate each row by itself, and join those that may share a run; answers those that do not fit."""
        groups: dict[Hashable, list[tuple[int, ValidatedInputs]]] = defaultdict(list)
        for at, row in enumerate(rows):
            try:
                inputs = self._validated(row)
            except ServingError as error:
                answers[at] = failure_of(error)
                continue
            # Without batching a row is a run of its own.
            groups[inputs.key if self._service.joins_rows else at].append((at, inputs))
        return [_joined(group) for group in groups.values()]

    def _validated(self, row: Any) -> ValidatedInputs:
        spec = self.spec
        if isinstance(row, dict):
            values = row
        elif len(spec.inputs) == 1:
            values = {spec.inputs[0].name: row}
        else:
            names = [tensor.name for tensor in spec.inputs]
            message = f"expected an object with the inputs {names}, got {describe(row)}"
            raise ServingError(ErrorKind.MALFORMED, message)
        one = (lambda value: [value]) if spec.batchable else (lambda value: value)
        tensors = {name: RawTensor(name, one(value)) for name, value in values.items()}
        try:
            return validate(spec, tensors, None)
        except ServingError as error:
            raise _of_row(error, list(values), spec.batchable) from error

    async def _answer(self, part: _Part, answers: list[Answer | None]) -> None:
        count = len(part.places)
        try:
            async with self._slots:
                outputs = await self._predict(part.inputs)
        except ServingError as error:
            if error.kind not in _OF_THE_ROW:
                raise
            if count == 1:
                answers[part.places[0]] = failure_of(error)
                return
            await self._answer(part.cut(0, count // 2), answers)
            await self._answer(part.cut(count // 2, count), answers)
            return
        names = part.inputs.outputs
        if not self.spec.batchable:
            told = (array.tolist() for array in outputs)
            answers[part.places[0]] = dict(zip(names, told, strict=True))
            return
        columns = [array.tolist() for array in outputs]
        for at, *values in zip(part.places, *columns, strict=True):
            answers[at] = dict(zip(names, values, strict=True))

    async def _predict(self, inputs: ValidatedInputs) -> Sequence[Array]:
        prediction = self._service.admit()
        prediction.deadline = time.monotonic() + _RUN_SECONDS
        try:
            outputs = await self._service.predict(prediction, inputs)
        except BaseException as error:
            prediction.close(error)
            raise
        prediction.close()
        return outputs.arrays


def _joined(group: Sequence[tuple[int, ValidatedInputs]]) -> _Part:
    places, all_inputs = [at for at, _ in group], [inputs for _, inputs in group]
    first = all_inputs[0]
    if len(group) == 1:
        return _Part(places, first)
    arrays = {name: np.concatenate([i.arrays[name] for i in all_inputs]) for name in first.arrays}
    return _Part(places, ValidatedInputs(arrays, len(group), first.key, first.outputs))


def _of_row(error: ServingError, names: Sequence[str], batchable: bool) -> ServingError:
    """Say an error of one row: without the array that the row was put into."""
    field = error.field
    if field is None or not batchable:
        return error
    for name in names:
        if field.startswith(f"{name}[0]"):
            field = name + field.removeprefix(f"{name}[0]")
    if error.expected is None:
        return error
    message = f"{field}: expected {error.expected}, got {error.got}"
    return ServingError(error.kind, message, field=field, expected=error.expected, got=error.got)


def failure_of(error: ServingError) -> Failure:
    """Say of a row why it has no answer."""
    return Failure(error.kind.value, error.message, error.field)
