"""Bodies of `/predict`: plain JSON, with as little around the numbers as can be."""

import math
from typing import Any

import orjson

from canarium_runtime.backends.base import Array, ModelSpec
from canarium_runtime.batching.merge import Outputs
from canarium_runtime.errors import ErrorKind, ServingError, invalid
from canarium_runtime.rest.codec import (
    AS_LISTS,
    WRITE_ARRAYS,
    Call,
    Codec,
    Identity,
    load_object,
    read_id,
)
from canarium_runtime.rest.fast import FastReader
from canarium_runtime.service import Marks
from canarium_runtime.validation import Converter, RawTensor, describe, malformed, validate


class PredictCodec(Codec):
    """`{"inputs": {name: nested arrays}}` or `{"instances": [row, ...]}`.

    Args:
        spec: of the model.
        identity: of the model.
        converter: takes values of other JSON types, where the rules for requests allow it.
    """

    def __init__(
        self, spec: ModelSpec, identity: Identity, converter: Converter | None = None
    ) -> None:
        self.spec = spec
        self._converter = converter
        self.datatypes = spec.output_datatypes
        self._fast = FastReader(spec)
        self._origin = {
            "model_name": identity.model_name,
            "model_version": identity.model_version,
            "revision": identity.revision,
        }

    def decode(self, body: bytes, json_bytes: int | None) -> Call:
        """Read a request; see `Codec`."""
        if json_bytes is not None:
            text = "binary tensor data is for the V2 routes: send plain JSON"
            raise ServingError(ErrorKind.UNSUPPORTED_ENCODING, text)
        inputs = self._fast.read_plain(body)
        if inputs is not None:
            return Call(inputs)
        document = load_object(body)
        client_id = read_id(document)
        try:
            tensors = self._tensors(document)
            return Call(validate(self.spec, tensors, None, self._converter), client_id)
        except ServingError as error:
            error.client_id = client_id
            raise

    def encode(
        self, call: Call, outputs: Outputs, request_id: str, marks: Marks | None = None
    ) -> tuple[bytes, int | None]:
        """Write an answer; see `Codec`."""
        document = {
            "outputs": {
                name: writable(self.datatypes[name], array)
                for name, array in zip(call.inputs.outputs, outputs.arrays, strict=True)
            },
            **self._origin,
            "id": call.id or request_id,
            **(marks or {}),
        }
        return orjson.dumps(document, option=WRITE_ARRAYS), None

    def _tensors(self, document: dict[str, Any]) -> dict[str, RawTensor]:
        if ("inputs" in document) == ("instances" in document):
            raise malformed("body", 'either "inputs" or "instances"', sorted(document))
        if "inputs" in document:
            inputs = document["inputs"]
            if type(inputs) is not dict:
                raise malformed("inputs", "an object from names of inputs to arrays", inputs)
            return {n: RawTensor(f"inputs.{n}", v) for n, v in inputs.items()}
        instances = document["instances"]
        if type(instances) is not list or not instances:
            raise malformed("instances", "an array with at least one row", instances)
        return self._columns(instances)

    def _columns(self, instances: list[Any]) -> dict[str, RawTensor]:
        """Turn rows into one array for each input."""
        spec = self.spec
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


def writable(datatype: str, array: Array) -> Any:
    """What orjson can write: it refuses some datatypes, and 0-dimensional and strided arrays."""
    if datatype in AS_LISTS:
        return array.tolist()
    if array.ndim == 0:
        value = array.item()
        return None if isinstance(value, float) and not math.isfinite(value) else value
    return array if array.flags.c_contiguous else array.copy()
