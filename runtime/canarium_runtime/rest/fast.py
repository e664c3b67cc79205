"""The common request straight into arrays: JSON's numbers by a SIMD parser, without a Python object for each.

It reads what most clients send (all inputs of the model, flat or in rows, numbers only, nothing that is rare) and gives
None for everything else, wrong requests included: the careful way in v2.py and plain.py then reads the same body again
and answers, or says what is wrong. So this module must be right, and need not be complete: whatever it accepts, the
careful way accepts with equal arrays (tests/property/test_fast_reader.py).

For 256 numbers this takes 6 microseconds where objects and their conversion take 16 to 20.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import simdjson

from canarium_runtime.backends.base import DTYPES, Array, ModelSpec, TensorSpec
from canarium_runtime.rest.codec import is_id
from canarium_runtime.validation import ValidatedInputs, sizes_agree

_NUMBERS: dict[str, tuple[str, type[Any]]] = {
    "FP32": ("d", np.float64),
    "FP64": ("d", np.float64),
    "INT64": ("i", np.int64),
    "INT32": ("i", np.int64),
}
"""Datatypes that are read here: type of the parser's buffer, and its numpy name."""
_NOT_COMMON = (ValueError, TypeError, KeyError, RuntimeError, IndexError, UnicodeDecodeError)
"""What the parser and its elements raise for anything unexpected."""
_PLAIN_DIMENSIONS = 2


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one input is read."""

    spec: TensorSpec
    buffer: str
    wire: type[Any]
    dtype: np.dtype[Any]


class FastReader:
    """See the module. Call from one thread.

    Args:
        spec: of the model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._plans: list[_Plan] = []
        self._parser = simdjson.Parser()
        for tensor in spec.inputs:
            if tensor.datatype not in _NUMBERS:
                self._plans = []
                break
            self._plans.append(_Plan(tensor, *_NUMBERS[tensor.datatype], DTYPES[tensor.datatype]))
        self._by_name = {p.spec.name: p for p in self._plans}

    def read_v2(self, body: bytes) -> tuple[ValidatedInputs, str | None] | None:
        """Read `{"inputs": [...]}`, with or without an id: the inputs and the id; None: not common."""
        plans = self._plans
        # The parser flattens nested arrays, so their number is held to what flat data has.
        if not plans or body.count(b"[") != 1 + 2 * len(plans):
            return None
        try:
            return self._read_v2(self._parser.parse(body))
        except _NOT_COMMON:
            return None

    def _read_v2(self, document: Any) -> tuple[ValidatedInputs, str | None] | None:
        client_id = None
        if len(document) != 1:
            client_id = document["id"]
            if len(document) != 2 or not is_id(client_id):
                return None
        tensors = document["inputs"]
        if len(tensors) != len(self._plans):
            return None
        arrays: dict[str, Array] = {}
        for tensor in tensors:
            plan = self._by_name[tensor["name"]]
            if len(tensor) != 4 or tensor["datatype"] != plan.spec.datatype:
                return None
            shape = tuple(tensor["shape"].as_list())
            array = _numbers(plan, tensor["data"], shape)
            if array is None:
                return None
            arrays[plan.spec.name] = array
        inputs = self._inputs(arrays)
        return None if inputs is None else (inputs, client_id)

    def read_plain(self, body: bytes) -> ValidatedInputs | None:
        """Read `{"instances": [[...], ...]}` for a model with one input of rows of numbers; None: not common."""
        plans = self._plans
        if len(plans) != 1 or len(plans[0].spec.shape) != _PLAIN_DIMENSIONS:
            return None
        try:
            return self._read_plain(plans[0], self._parser.parse(body), body)
        except _NOT_COMMON:
            return None

    def _read_plain(self, plan: _Plan, document: Any, body: bytes) -> ValidatedInputs | None:
        if len(document) != 1:
            return None
        rows = document.get("instances")
        if rows is None:
            inputs = document["inputs"]
            if len(inputs) != 1:
                return None
            rows = inputs[plan.spec.name]
        widths = {len(row) for row in rows}
        if len(widths) != 1 or body.count(b"[") != 1 + len(rows):
            return None
        array = _numbers(plan, rows, (len(rows), widths.pop()))
        return None if array is None else self._inputs({plan.spec.name: array})

    def _inputs(self, arrays: dict[str, Array]) -> ValidatedInputs | None:
        spec = self._spec
        if len(arrays) != len(self._plans) or not sizes_agree(spec, arrays):
            return None
        first = arrays[spec.inputs[0].name]
        names = spec.output_names
        key: Hashable = (names, *[a.shape[1:] for a in arrays.values()])
        if len(arrays) > 1:
            arrays = {t.name: arrays[t.name] for t in spec.inputs}
            key = (names, *[a.shape[1:] for a in arrays.values()])
        return ValidatedInputs(arrays, first.shape[0] if spec.batchable else 1, key, names)


def _numbers(plan: _Plan, data: Any, shape: tuple[int, ...]) -> Array | None:
    """Make the array of one input; None: it does not fit the input's declaration."""
    expected = plan.spec.shape
    if len(shape) != len(expected):
        return None
    count = 1
    for size, wanted in zip(shape, expected, strict=True):
        if type(size) is not int or size < 1 or (size != wanted and isinstance(wanted, int)):
            return None
        count *= size
    values = np.frombuffer(data.as_buffer(of_type=plan.buffer), plan.wire)
    if count != len(values):
        return None
    if plan.dtype != values.dtype:
        with np.errstate(over="ignore"):
            narrow = _narrowed(values, plan.dtype)
        return None if narrow is None else narrow.reshape(shape)
    return values.reshape(shape)


def _narrowed(values: Array, dtype: np.dtype[Any]) -> Array | None:
    """Convert to a smaller datatype; None: a number does not fit it."""
    narrow = values.astype(dtype)
    if dtype.kind == "f":
        # JSON has no infinities, so one here is a number that was too large.
        return narrow if np.isfinite(narrow).all() else None
    return narrow if np.array_equal(narrow, values) else None
