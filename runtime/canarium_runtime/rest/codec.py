"""JSON bodies of the two protocols: Open Inference Protocol V2, and the simple `/predict`.

Decoders give raw tensors (validation.py makes arrays of them); encoders write answers. Structure is checked here
(MALFORMED, 400), fit to the model in validation (INVALID, 422).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from canarium_runtime.backends.base import DTYPES, Array, ModelSpec
from canarium_runtime.errors import ErrorKind, ServingError, invalid
from canarium_runtime.validation import RawTensor, describe, malformed

_MAX_ID = 256


@dataclass(frozen=True, slots=True)
class Call:
    """A decoded request."""

    tensors: dict[str, RawTensor]
    outputs: Sequence[str] | None
    """Wanted outputs; None: all."""
    id: str | None
    """The client's id for the request."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What an answer says about its origin."""

    model_name: str
    model_version: str
    revision: str


class Codec(Protocol):
    """One protocol's bodies."""

    def decode(self, body: bytes, spec: ModelSpec) -> Call:
        """Read a request; raises ServingError."""
        ...

    def encode(
        self,
        spec: ModelSpec,
        names: Sequence[str],
        arrays: Sequence[Array],
        identity: Identity,
        request_id: str,
    ) -> bytes:
        """Write an answer."""
        ...


def _load(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ServingError(
            ErrorKind.MALFORMED, f"the body is not valid JSON: {error}", field=""
        ) from error
    if type(document) is not dict:
        raise malformed("body", "an object", document)
    return document


def _id(document: dict[str, Any]) -> str | None:
    value = document.get("id")
    if value is not None and (type(value) is not str or len(value) > _MAX_ID):
        raise malformed("id", f"a string of at most {_MAX_ID} characters", value)
    return value


def _values(datatype: str, array: Array) -> Any:
    """What orjson writes for the elements in row-major order; NaN and infinities become null."""
    return array.ravel().tolist() if datatype == "BYTES" else array.ravel()


_OUTPUT_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


class V2Codec:
    """`{"inputs": [{"name", "shape", "datatype", "data"}]}`."""

    def decode(self, body: bytes, spec: ModelSpec) -> Call:
        """Read an inference request; see `Codec`."""
        document = _load(body)
        inputs = document.get("inputs")
        if type(inputs) is not list:
            raise malformed("inputs", "an array of tensors", inputs)
        known = {s.name: s for s in spec.inputs}
        tensors: dict[str, RawTensor] = {}
        for index, tensor in enumerate(inputs):
            if type(tensor) is not dict:
                raise malformed(f"inputs[{index}]", "an object", tensor)
            name = tensor.get("name")
            if type(name) is not str:
                raise malformed(f"inputs[{index}].name", "a string", name)
            target = known.get(name)
            if target is None:
                raise invalid(f"inputs[{index}].name", f"one of {list(known)}", describe(name))
            if name in tensors:
                raise invalid(f"inputs[{index}].name", "each input once", f"{name!r} again")
            datatype = tensor.get("datatype")
            if datatype != target.datatype:
                self._refuse_datatype(index, target.datatype, datatype)
            shape = self._shape(index, tensor.get("shape"))
            if "data" not in tensor:
                raise malformed(f"inputs[{index}].data", "an array", None)
            tensors[name] = RawTensor(f"inputs[{index}].data", tensor["data"], shape)
        outputs = document.get("outputs")
        return Call(tensors, self._outputs(outputs, spec) if outputs else None, _id(document))

    def encode(
        self,
        spec: ModelSpec,
        names: Sequence[str],
        arrays: Sequence[Array],
        identity: Identity,
        request_id: str,
    ) -> bytes:
        """Write an inference response; see `Codec`."""
        datatypes = spec.output_datatypes
        return orjson.dumps(
            {
                "model_name": identity.model_name,
                "model_version": identity.model_version,
                "id": request_id,
                "outputs": [
                    {
                        "name": name,
                        "datatype": datatypes[name],
                        "shape": array.shape,
                        "data": _values(datatypes[name], array),
                    }
                    for name, array in zip(names, arrays, strict=True)
                ],
            },
            option=_OUTPUT_OPTIONS,
        )

    def _refuse_datatype(self, index: int, expected: str, got: Any) -> None:
        field = f"inputs[{index}].datatype"
        if type(got) is not str:
            raise malformed(field, "a datatype's name", got)
        if got not in DTYPES:
            raise malformed(field, f"one of {', '.join(DTYPES)}", got)
        raise invalid(field, expected, got)

    def _shape(self, index: int, value: Any) -> tuple[int, ...]:
        if type(value) is not list or not all(type(d) is int and d >= 0 for d in value):
            raise malformed(f"inputs[{index}].shape", "an array of sizes", value)
        return tuple(value)

    def _outputs(self, value: Any, spec: ModelSpec) -> list[str]:
        if type(value) is not list:
            raise malformed("outputs", "an array of objects with a name", value)
        names: list[str] = []
        for index, output in enumerate(value):
            if type(output) is not dict or type(output.get("name")) is not str:
                raise malformed(f"outputs[{index}]", "an object with a name", output)
            if output["name"] not in spec.output_names or output["name"] in names:
                expected = f"one of {list(spec.output_names)}, each once"
                raise invalid(f"outputs[{index}].name", expected, describe(output["name"]))
            parameters = output.get("parameters", {})
            if type(parameters) is not dict:
                raise malformed(f"outputs[{index}].parameters", "an object", parameters)
            if parameters.get("binary_data"):
                raise ServingError(
                    ErrorKind.UNSUPPORTED_ENCODING, "binary tensor data is not supported: use JSON"
                )
            names.append(output["name"])
        return names


class PredictCodec:
    """`{"inputs": {name: nested arrays}}` or `{"instances": [row, ...]}`."""

    def decode(self, body: bytes, spec: ModelSpec) -> Call:
        """Read a request; see `Codec`."""
        document = _load(body)
        if ("inputs" in document) == ("instances" in document):
            raise malformed("body", 'either "inputs" or "instances"', sorted(document))
        if "inputs" in document:
            inputs = document["inputs"]
            if type(inputs) is not dict:
                raise malformed("inputs", "an object from names of inputs to arrays", inputs)
            return Call(
                {n: RawTensor(f"inputs.{n}", v) for n, v in inputs.items()}, None, _id(document)
            )
        instances = document["instances"]
        if type(instances) is not list or not instances:
            raise malformed("instances", "an array with at least one row", instances)
        return Call(self._columns(instances, spec), None, _id(document))

    def encode(
        self,
        spec: ModelSpec,
        names: Sequence[str],
        arrays: Sequence[Array],
        identity: Identity,
        request_id: str,
    ) -> bytes:
        """Write an answer; see `Codec`."""
        datatypes = spec.output_datatypes
        return orjson.dumps(
            {
                "outputs": {
                    name: array.tolist() if datatypes[name] == "BYTES" else _contiguous(array)
                    for name, array in zip(names, arrays, strict=True)
                },
                "model_name": identity.model_name,
                "model_version": identity.model_version,
                "revision": identity.revision,
                "id": request_id,
            },
            option=_OUTPUT_OPTIONS,
        )

    def _columns(self, instances: list[Any], spec: ModelSpec) -> dict[str, RawTensor]:
        """Turn rows into one array for each input."""
        if type(instances[0]) is not dict:
            if len(spec.inputs) != 1:
                names = [s.name for s in spec.inputs]
                raise invalid(
                    "instances[0]", f"an object with the inputs {names}", describe(instances[0])
                )
            return {spec.inputs[0].name: RawTensor("instances", instances)}
        names = list(instances[0])
        for index, row in enumerate(instances):
            if type(row) is not dict or row.keys() != instances[0].keys():
                got = f"an object with {sorted(row)}" if type(row) is dict else describe(row)
                raise invalid(
                    f"instances[{index}]", f"an object with {sorted(names)}, like the first", got
                )
        return {n: RawTensor(f"instances[*].{n}", [row[n] for row in instances]) for n in names}


def _contiguous(array: Array) -> Any:
    """What orjson can write: it refuses 0-dimensional and strided arrays."""
    if array.ndim == 0:
        value = array.item()
        return None if isinstance(value, float) and not math.isfinite(value) else value
    return array if array.flags.c_contiguous else array.copy()
