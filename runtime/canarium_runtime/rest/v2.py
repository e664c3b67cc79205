"""Bodies of the Open Inference Protocol V2, JSON and with binary tensor data.

Binary data is the protocol's extension: the header `Inference-Header-Content-Length` says how many bytes are JSON, the
tensors' bytes follow in the order in which the JSON names them, each `parameters.binary_data_size` long. An answer's
outputs are binary where the request says so: `binary_data` of an output, or `binary_data_output` of the request.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from canarium_runtime.backends.base import DTYPES, Array, ModelSpec
from canarium_runtime.errors import ErrorKind, ServingError, invalid
from canarium_runtime.rest import binary
from canarium_runtime.rest.codec import WRITE_ARRAYS, Call, Identity, load_object, read_id
from canarium_runtime.rest.fast import FastReader
from canarium_runtime.validation import RawTensor, describe, malformed, validate


class V2Codec:
    """`{"inputs": [{"name", "shape", "datatype", "data"}]}`.

    Args:
        spec: of the model.
        identity: of the model.
    """

    def __init__(self, spec: ModelSpec, identity: Identity) -> None:
        self._spec = spec
        self._inputs = {s.name: s for s in spec.inputs}
        self._datatypes = spec.output_datatypes
        self._fast = FastReader(spec)
        self._name = identity.model_name
        self._version = identity.model_version

    def decode(self, body: bytes, json_bytes: int | None) -> Call:
        """Read an inference request; see `Codec`."""
        if json_bytes is None:
            fast = self._fast.read_v2(body)
            if fast is not None:
                return Call(*fast)
            tail = None
        else:
            if json_bytes > len(body):
                raise malformed(
                    "Inference-Header-Content-Length", f"at most {len(body)}", json_bytes
                )
            tail = binary.Tail(memoryview(body)[json_bytes:])
            body = body[:json_bytes]
        document = load_object(body)
        client_id = read_id(document)
        try:
            tensors = self._tensors(document.get("inputs"), tail)
            if tail is not None:
                tail.check_end()
            names, as_binary = self._outputs(document)
            return Call(validate(self._spec, tensors, names), client_id, as_binary)
        except ServingError as error:
            error.client_id = client_id
            raise

    def encode(
        self, call: Call, arrays: Sequence[Array], request_id: str
    ) -> tuple[bytes, int | None]:
        """Write an inference response; see `Codec`."""
        outputs: list[dict[str, Any]] = []
        blobs: list[bytes] = []
        datatypes = self._datatypes
        for name, array in zip(call.inputs.outputs, arrays, strict=True):
            datatype = datatypes[name]
            output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": array.shape}
            if name in call.binary:
                blob = binary.write(datatype, array)
                output["parameters"] = {"binary_data_size": len(blob)}
                blobs.append(blob)
            else:
                # In row-major order; orjson writes NaN and infinities as null.
                flat = array if array.ndim == 1 else array.ravel()
                output["data"] = flat.tolist() if datatype in _AS_LISTS else flat
            outputs.append(output)
        document = orjson.dumps(
            {
                "model_name": self._name,
                "model_version": self._version,
                "id": call.id or request_id,
                "outputs": outputs,
            },
            option=WRITE_ARRAYS,
        )
        return (b"".join((document, *blobs)), len(document)) if blobs else (document, None)

    def _tensors(self, inputs: Any, tail: binary.Tail | None) -> dict[str, RawTensor]:
        if type(inputs) is not list:
            raise malformed("inputs", "an array of tensors", inputs)
        tensors: dict[str, RawTensor] = {}
        for index, tensor in enumerate(inputs):
            if type(tensor) is not dict:
                raise malformed(f"inputs[{index}]", "an object", tensor)
            name = tensor.get("name")
            if type(name) is not str:
                raise malformed(f"inputs[{index}].name", "a string", name)
            target = self._inputs.get(name)
            if target is None:
                raise invalid(
                    f"inputs[{index}].name", f"one of {list(self._inputs)}", describe(name)
                )
            if name in tensors:
                raise invalid(f"inputs[{index}].name", "each input once", f"{name!r} again")
            datatype = tensor.get("datatype")
            if datatype != target.datatype:
                _refuse_datatype(index, target.datatype, datatype)
            shape = _shape(index, tensor.get("shape"))
            size = _binary_size(index, tensor.get("parameters"))
            field = f"inputs[{index}].data"
            if size is None:
                if "data" not in tensor:
                    raise malformed(field, "an array", None)
                tensors[name] = RawTensor(field, tensor["data"], shape)
            elif "data" in tensor:
                raise malformed(field, "either data or binary_data_size", tensor["data"])
            elif tail is None:
                text = f"{field}: binary data needs the header Inference-Header-Content-Length"
                raise ServingError(ErrorKind.MALFORMED, text, field=field)
            else:
                array = binary.read(tail.take(field, size), target.datatype, shape, field)
                tensors[name] = RawTensor(field, array, shape)
        return tensors

    def _outputs(self, document: dict[str, Any]) -> tuple[list[str] | None, Sequence[str]]:
        """Names of the wanted outputs (None: all), and of those that are wanted as binary data."""
        all_binary = _flag("parameters", document.get("parameters"), "binary_data_output")
        known = self._spec.output_names
        value = document.get("outputs")
        if not value:
            if value is not None and type(value) is not list:
                raise malformed("outputs", "an array of objects with a name", value)
            return None, known if all_binary else ()
        if type(value) is not list:
            raise malformed("outputs", "an array of objects with a name", value)
        names: list[str] = []
        as_binary: list[str] = []
        for index, output in enumerate(value):
            if type(output) is not dict or type(output.get("name")) is not str:
                raise malformed(f"outputs[{index}]", "an object with a name", output)
            name = output["name"]
            if name not in known or name in names:
                expected = f"one of {list(known)}, each once"
                raise invalid(f"outputs[{index}].name", expected, describe(name))
            field = f"outputs[{index}].parameters"
            wanted = _flag(field, output.get("parameters"), "binary_data")
            if all_binary if wanted is None else wanted:
                as_binary.append(name)
            names.append(name)
        return names, as_binary


_AS_LISTS = frozenset({"BYTES", "BF16"})
"""Datatypes whose arrays orjson does not write."""


def _refuse_datatype(index: int, expected: str, got: Any) -> None:
    field = f"inputs[{index}].datatype"
    if type(got) is not str:
        raise malformed(field, "a datatype's name", got)
    if got not in DTYPES:
        raise malformed(field, f"one of {', '.join(DTYPES)}", got)
    raise invalid(field, expected, got)


def _shape(index: int, value: Any) -> tuple[int, ...]:
    if type(value) is not list or not all(type(d) is int and d >= 0 for d in value):
        raise malformed(f"inputs[{index}].shape", "an array of sizes", value)
    return tuple(value)


def _binary_size(index: int, parameters: Any) -> int | None:
    if parameters is None:
        return None
    field = f"inputs[{index}].parameters"
    if type(parameters) is not dict:
        raise malformed(field, "an object", parameters)
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise malformed(f"{field}.binary_data_size", "a number of bytes", size)
    return size


def _flag(field: str, parameters: Any, name: str) -> bool | None:
    if parameters is None:
        return None
    if type(parameters) is not dict:
        raise malformed(field, "an object", parameters)
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise malformed(f"{field}.{name}", "a boolean", value)
    return value
