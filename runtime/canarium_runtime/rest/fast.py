"""The common request straight into arrays: JSON's numbers by a SIMD parser, without a Python object for each.

It reads what most clients send (all inputs of the model, flat or in rows, numbers only, nothing that is rare) and gives
None for everything else, wrong requests included: the careful way in v2.py and plain.py then reads the same body again
and answers, or says what is wrong. So this module must be right, and need not be complete: whatever it accepts, the
careful way accepts with equal arrays (tests/property/test_fast_reader.py).

For 256 numbers this takes 6 microseconds where objects and their conversion take 16 to 20.

A client's requests mostly differ in their numbers alone. So for a model with one input, what stands before and behind
the numbers is remembered once a whole request with it was read; in the next one with the same frame, only the array is
parsed; of requests that came together, the arrays of all. That is sound because a JSON text stays valid, and keeps its
meaning elsewhere, when one value in it is replaced by another; that the array is the tensor's data is proved with an
empty one in its place.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simdjson

from canarium_runtime.backends.base import DTYPES, Array, ModelSpec, TensorSpec
from canarium_runtime.rest.codec import is_id
from canarium_runtime.validation import ONE_THREAD, ValidatedInputs, sizes_agree

_NUMBERS: dict[str, tuple[str, type[Any]]] = {
    "FP32": ("d", np.float64),
    "FP64": ("d", np.float64),
    "INT64": ("i", np.int64),
    "INT32": ("i", np.int64),
}
"""Datatypes that are read here: type of the parser's buffer, and its numpy name."""
_NOT_COMMON = (
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    IndexError,
    AttributeError,
    OverflowError,
)
"""What the parser and its elements raise for anything unexpected."""
_PLAIN_DIMENSIONS = 2
_MAX_FRAMES = 64
_MAX_FRAME_BYTES = 4096
_SAFE_SQUARES = 1e75
"""Numbers whose squares add up to less fit 32-bit floats, by far."""
_SAFE = 1e37


def _fit_floats(values: Array) -> bool:
    """Tell whether 64-bit floats are far from the bounds of 32-bit ones."""
    if len(values) <= ONE_THREAD:
        return bool(values.dot(values) < _SAFE_SQUARES)
    return bool(values.max() < _SAFE and values.min() > -_SAFE)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one input is read."""

    spec: TensorSpec
    buffer: str
    wire: type[Any]
    dtype: np.dtype[Any]

    def fits(self, shape: tuple[Any, ...]) -> bool:
        """Whether a shape is one that the input may have, and not empty."""
        expected = self.spec.shape
        return len(shape) == len(expected) and all(
            type(size) is int and size > 0 and (size == wanted or not isinstance(wanted, int))
            for size, wanted in zip(shape, expected, strict=True)
        )

    def numbers(self, data: Any, count: int) -> Array | None:
        """Make the flat array of a parsed one; None: not so many numbers, or one that does not fit the datatype."""
        values = np.frombuffer(data.as_buffer(of_type=self.buffer), self.wire)
        if len(values) != count:
            return None
        if self.dtype == values.dtype:
            return values
        if self.dtype.kind == "f":
            return values.astype(self.dtype) if _fit_floats(values) else None
        narrow = values.astype(self.dtype)
        return narrow if np.array_equal(narrow, values) else None


@dataclass(frozen=True, slots=True)
class _Frame:
    """What stood around the numbers of a request, and what it means."""

    suffix: bytes
    plan: _Plan
    narrows: bool
    """The numbers are 64-bit floats on the wire and 32-bit ones in the model."""
    shape: tuple[int, ...]
    count: int
    rows: int
    key: Hashable


class FastReader:
    """See the module. Call from one thread.

    Args:
        spec: of the model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._outputs = spec.output_names
        self._parser = simdjson.Parser()
        readable = all(t.datatype in _NUMBERS for t in spec.inputs)
        self._plans = {
            t.name: _Plan(t, *_NUMBERS[t.datatype], DTYPES[t.datatype])
            for t in (spec.inputs if readable else ())
        }
        self._only = next(iter(self._plans.values())) if len(self._plans) == 1 else None
        self._frames: dict[bytes, _Frame] = {}

    def read_v2(self, body: bytes) -> tuple[ValidatedInputs, str | None] | None:
        """Read `{"inputs": [...]}`, with or without an id: the inputs and the id; None: not common."""
        plans = self._plans
        try:
            known = self._known(body)
            if known is not None:
                inputs = self._framed(*known)
                if inputs is not None:
                    return inputs, None
            # The parser flattens nested arrays, so their number is held to what flat data has.
            if not plans or body.count(b"[") != 1 + 2 * len(plans):
                return None
            read = self._read_v2(self._parser.parse(body))
            if read is not None and read[1] is None and self._only is not None:
                self._remember(body, read[0])
        except _NOT_COMMON:
            return None
        return read

    def read_together(self, bodies: Sequence[bytes]) -> Sequence[ValidatedInputs | None]:
        """Read V2 bodies whose frame is known and that of the first; None: to be read by itself. Empty: all are.

        Between the brackets of each are only numbers and commas: the parser takes nothing else for numbers. So the
        arrays cannot run into each other, and each must have as many elements as the frame says.
        """
        shared: _Frame | None = None
        texts: list[bytes] = []
        places: list[int] = []
        for place, body in enumerate(bodies):
            known = self._known(body)
            if known is not None and (shared is None or known[0] is shared):
                shared, text = known
                texts.append(text)
                places.append(place)
        if shared is None or len(texts) == 1:
            return ()
        try:
            parsed = self._parser.parse(b"[%b]" % b",".join(texts))
            values = self._rows(shared, parsed, len(texts))
        except _NOT_COMMON:
            return ()
        if values is None:
            return ()
        read: list[ValidatedInputs | None] = [None] * len(bodies)
        name = shared.plan.spec.name
        for place, array in zip(places, values, strict=True):
            read[place] = ValidatedInputs(
                {name: array}, shared.rows, shared.key, self._outputs, finite=True
            )
        return read

    def _known(self, body: bytes) -> tuple[_Frame, bytes] | None:
        """Give the frame of a body and the array in it, brackets and all; None: it is not known, or not all of it."""
        start = body.find(b"[", body.find(b'"data"'))
        frame = self._frames.get(body[:start])
        if frame is None:
            return None
        end = body.find(b"]", start) + 1
        text = body[start:end]
        return (frame, text) if body[end:] == frame.suffix and text.find(b"[", 1) < 0 else None

    @staticmethod
    def _rows(frame: _Frame, parsed: Any, count: int) -> Array | None:
        """Make one array of `count` parsed ones, of shape (count, shape of the frame)."""
        if len(parsed) != count or {len(array) for array in parsed} != {frame.count}:
            return None
        values = frame.plan.numbers(parsed, count * frame.count)
        return None if values is None else values.reshape((count, *frame.shape))

    def _framed(self, frame: _Frame, numbers: bytes) -> ValidatedInputs | None:
        plan = frame.plan
        parsed: Any = self._parser.parse(numbers)
        if frame.narrows:
            # `plan.numbers` without the questions: half of all the time that reading takes.
            values = np.frombuffer(parsed.as_buffer(of_type="d"), np.float64)
            if len(values) != frame.count or not _fit_floats(values):
                return None
            array = values.astype(np.float32)
        else:
            found = plan.numbers(parsed, frame.count)
            if found is None:
                return None
            array = found
        return ValidatedInputs(
            {plan.spec.name: array.reshape(frame.shape)},
            frame.rows,
            frame.key,
            self._outputs,
            finite=True,
        )

    def _remember(self, body: bytes, inputs: ValidatedInputs) -> None:
        start = body.find(b"[", body.find(b'"data"'))
        end = body.find(b"]", start) + 1
        prefix, suffix = body[:start], body[end:]
        if len(prefix) + len(suffix) > _MAX_FRAME_BYTES:
            return
        document: Any = self._parser.parse(b"%b[]%b" % (prefix, suffix))
        if len(document["inputs"][0]["data"]) == 0:
            if len(self._frames) >= _MAX_FRAMES:
                self._frames.clear()
            (array,) = inputs.arrays.values()
            plan = self._plans[self._spec.inputs[0].name]
            narrows = plan.spec.datatype == "FP32"
            self._frames[prefix] = _Frame(
                suffix, plan, narrows, array.shape, array.size, inputs.rows, inputs.key
            )

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
            plan = self._plans[tensor["name"]]
            shape = tuple(tensor["shape"].as_list())
            if len(tensor) != 4 or tensor["datatype"] != plan.spec.datatype or not plan.fits(shape):
                return None
            array = plan.numbers(tensor["data"], math.prod(shape))
            if array is None:
                return None
            arrays[plan.spec.name] = array.reshape(shape)
        inputs = self._inputs(arrays)
        return None if inputs is None else (inputs, client_id)

    def read_plain(self, body: bytes) -> ValidatedInputs | None:
        """Read `{"instances": [[...], ...]}` for a model with one input of rows of numbers; None: not common."""
        plan = self._only
        if plan is None or len(plan.spec.shape) != _PLAIN_DIMENSIONS:
            return None
        try:
            return self._read_plain(plan, self._parser.parse(body), body)
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
        shape = (len(rows), widths.pop())
        if not plan.fits(shape):
            return None
        array = plan.numbers(rows, shape[0] * shape[1])
        return None if array is None else self._inputs({plan.spec.name: array.reshape(shape)})

    def _inputs(self, arrays: dict[str, Array]) -> ValidatedInputs | None:
        spec = self._spec
        if len(arrays) != len(self._plans) or not sizes_agree(spec, arrays):
            return None
        ordered = {t.name: arrays[t.name] for t in spec.inputs}
        names = spec.output_names
        rows = ordered[spec.inputs[0].name].shape[0] if spec.batchable else 1
        key: Hashable = (names, *[a.shape[1:] for a in ordered.values()])
        return ValidatedInputs(ordered, rows, key, names, finite=True)
