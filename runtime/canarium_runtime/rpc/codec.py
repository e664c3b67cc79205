"""Messages of `ModelInfer`: a codec like those of REST, so that the same exchanges drive it.

Tensors are typed (`contents`) or raw bytes (`raw_input_contents`, as REST's binary data); an answer has the form of its
request. FP16 and BF16 have no typed form: an answer that has one of them is raw.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson
from google.protobuf.message import DecodeError

from canarium_runtime.backends.base import DTYPES, Array, ModelSpec
from canarium_runtime.batching.merge import Outputs
from canarium_runtime.errors import ErrorKind, ServingError, invalid
from canarium_runtime.rest import binary
from canarium_runtime.rest.codec import Call, Codec, Identity, is_id
from canarium_runtime.rest.wishes import wishes_of_parameters
from canarium_runtime.rpc import open_inference_pb2 as pb
from canarium_runtime.service import Marks
from canarium_runtime.validation import Converter, RawTensor, describe, malformed, validate

_FIELDS: Final[dict[str, str]] = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where the elements of a datatype are; others travel as raw bytes alone."""
_NAME: Final = 0x0A
_VERSION: Final = 0x12
"""First bytes of the fields 1 and 2 of a message, which are strings."""
_SHORT: Final = 128
"""Lengths below it are one byte."""


def model_of(body: bytes) -> tuple[str, str | None]:
    """Read which model a request is for, and which version; None: any. Writers put these first, so that little is read.

    Raises:
        ServingError: MALFORMED.
    """
    name, at = _short_string(body, 0, _NAME)
    version, at = _short_string(body, at, _VERSION)
    if name is None or (at < len(body) and body[at] in {_NAME, _VERSION}):
        request = parse(body)
        return request.model_name, request.model_version or None
    return name, version or None


def _short_string(body: bytes, at: int, tag: int) -> tuple[str | None, int]:
    if at + 1 >= len(body) or body[at] != tag or body[at + 1] >= _SHORT:
        return None, at
    end = at + 2 + body[at + 1]
    try:
        return body[at + 2 : end].decode(), end
    except UnicodeDecodeError:
        return None, at


def parse(body: bytes) -> pb.ModelInferRequest:
    """Read a message.

    Raises:
        ServingError: MALFORMED.
    """
    try:
        return pb.ModelInferRequest.FromString(body)
    except DecodeError as error:
        text = "the message is not a ModelInferRequest of the Open Inference Protocol V2"
        raise ServingError(ErrorKind.MALFORMED, text, field="") from error


class GrpcCodec(Codec):
    """`ModelInferRequest` and `ModelInferResponse`, as bytes.

    Args:
        spec: of the model.
        identity: of the model.
        converter: takes values of other types, where the rules for requests allow it.
    """

    def __init__(
        self, spec: ModelSpec, identity: Identity, converter: Converter | None = None
    ) -> None:
        self._converter = converter
        self._spec = spec
        self._inputs = {s.name: s for s in spec.inputs}
        self._identity = identity

    def decode(self, body: bytes, json_bytes: int | None) -> Call:
        """Read an inference request; see `Codec`. `json_bytes` has no meaning here."""
        request = parse(body)
        client_id = request.id or None
        if client_id is not None and not is_id(client_id):
            raise malformed("id", "a string of at most 256 characters", client_id)
        try:
            raw = len(request.raw_input_contents) > 0
            tensors = self._tensors(request, raw)
            names = self._names(request)
            wishes = wishes_of_parameters(_parameters(request))
            inputs = validate(self._spec, tensors, names, self._converter)
        except ServingError as error:
            error.client_id = client_id
            raise
        return Call(inputs, client_id, inputs.outputs if raw else (), wishes)

    def encode(
        self, call: Call, outputs: Outputs, request_id: str, marks: Marks | None = None
    ) -> tuple[bytes, int | None]:
        """Write an inference response; see `Codec`."""
        return self.response(call, outputs, request_id, marks).SerializeToString(), None

    def response(
        self, call: Call, outputs: Outputs, request_id: str, marks: Marks | None = None
    ) -> pb.ModelInferResponse:
        """Make an inference response; see `Codec.encode`."""
        identity = self._identity
        message = pb.ModelInferResponse(
            model_name=identity.model_name,
            model_version=identity.model_version,
            id=call.id or request_id,
        )
        datatypes = self._spec.output_datatypes
        names = call.inputs.outputs
        raw = bool(call.binary) or any(datatypes[name] not in _FIELDS for name in names)
        for name, array in zip(names, outputs.arrays, strict=True):
            datatype = datatypes[name]
            output = message.outputs.add(name=name, datatype=datatype, shape=array.shape)
            if raw:
                message.raw_output_contents.append(binary.write(datatype, array))
            else:
                field = getattr(output.contents, _FIELDS[datatype])
                field.extend(_elements(datatype, array))
        for name, value in (marks or {}).items():
            _mark(message.parameters[name], value)
        return message

    def _tensors(self, request: pb.ModelInferRequest, raw: bool) -> dict[str, RawTensor]:
        if raw and len(request.raw_input_contents) != len(request.inputs):
            expected = f"{len(request.inputs)} of them, as there are inputs"
            got = f"{len(request.raw_input_contents)}"
            raise invalid("raw_input_contents", expected, got, kind=ErrorKind.MALFORMED)
        tensors: dict[str, RawTensor] = {}
        for index, tensor in enumerate(request.inputs):
            target = self._inputs.get(tensor.name)
            if target is None:
                expected = f"one of {list(self._inputs)}"
                raise invalid(f"inputs[{index}].name", expected, describe(tensor.name))
            if tensor.name in tensors:
                got = f"{tensor.name!r} again"
                raise invalid(f"inputs[{index}].name", "each input once", got)
            if tensor.datatype != target.datatype:
                _refuse_datatype(index, target.datatype, tensor.datatype)
            shape = tuple(tensor.shape)
            if any(size < 0 for size in shape):
                raise malformed(f"inputs[{index}].shape", "an array of sizes", list(shape))
            field = f"inputs[{index}].data"  # as REST names it, so that the messages are the same
            values: Any
            if not raw:
                values = _values(field, target.datatype, tensor)
            elif tensor.HasField("contents"):
                text = f"{field}: expected either contents or raw_input_contents, got both"
                raise ServingError(ErrorKind.MALFORMED, text, field=field)
            else:
                data = memoryview(request.raw_input_contents[index])
                values = binary.read(data, target.datatype, shape, field)
            tensors[tensor.name] = RawTensor(field, values, shape)
        return tensors

    def _names(self, request: pb.ModelInferRequest) -> list[str] | None:
        """Names of the wanted outputs; None: all."""
        known = self._spec.output_names
        names: list[str] = []
        for index, output in enumerate(request.outputs):
            if output.name not in known or output.name in names:
                expected = f"one of {list(known)}, each once"
                raise invalid(f"outputs[{index}].name", expected, describe(output.name))
            names.append(output.name)
        return names or None


def _refuse_datatype(index: int, expected: str, got: str) -> None:
    field = f"inputs[{index}].datatype"
    if got not in DTYPES:
        raise malformed(field, f"one of {', '.join(DTYPES)}", got)
    raise invalid(field, expected, got)


def _parameters(request: pb.ModelInferRequest) -> dict[str, Any] | None:
    """Give the request's parameters as JSON would have them."""
    if not request.parameters:
        return None
    chosen = {name: (p, p.WhichOneof("parameter_choice")) for name, p in request.parameters.items()}
    return {name: getattr(p, which) for name, (p, which) in chosen.items() if which is not None}


def _values(
    field: str, datatype: str, tensor: pb.ModelInferRequest.InferInputTensor
) -> Sequence[Any]:
    name = _FIELDS.get(datatype)
    if name is None:
        text = f"{field}: {datatype} has no typed contents: send raw_input_contents"
        raise ServingError(ErrorKind.MALFORMED, text, field=field)
    values = list(getattr(tensor.contents, name))
    if datatype != "BYTES":
        return values
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise invalid(field, "UTF-8 text (BYTES)", "other bytes") from error


def _mark(parameter: pb.InferParameter, value: Any) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = value if isinstance(value, str) else orjson.dumps(value).decode()


def _elements(datatype: str, array: Array) -> list[Any]:
    values: list[Any] = array.ravel().tolist()
    if datatype == "BYTES":
        return [v.encode() if isinstance(v, str) else bytes(v) for v in values]
    return values
