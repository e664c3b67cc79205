"""Bodies of the Open Inference Protocol V2, JSON and with binary tensor data.

Binary data is the protocol's extension: the header `Inference-Header-Content-Length` says how many bytes are JSON, the
tensors' bytes follow in the order in which the JSON names them, each `parameters.binary_data_size` long. An answer's
outputs are binary where the request says so: `binary_data` of an output, or `binary_data_output` of the request.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from canarium_runtime.backends.base import DTYPES, Array, ModelSpec
from canarium_runtime.batching.merge import Outputs, Run
from canarium_runtime.errors import ErrorKind, ServingError, invalid
from canarium_runtime.rest import binary
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
from canarium_runtime.rest.wishes import wishes_of_parameters
from canarium_runtime.service import Marks
from canarium_runtime.validation import Converter, RawTensor, describe, malformed, validate


class V2Codec(Codec):
    """`{"inputs": [{"name", "shape", "datatype", "data"}]}`.

    Args:
        spec: of the model.
        identity: of the model.
        converter: takes values of other JSON types, where the rules for requests allow it.
    """

    def __init__(
        self, spec: ModelSpec, identity: Identity, converter: Converter | None = None
    ) -> None:
        self._spec = spec
        self._converter = converter
        self._inputs = {s.name: s for s in spec.inputs}
        self._fast = FastReader(spec)
        self._frames = binary.Frames()
        self._binary_texts: dict[Any, bytes] = {}
        """What stands behind the id in answers that are all binary, by outputs and shapes."""
        self._binary_rows = object()
        """Where a run keeps what `_row_blobs` has written of it."""
        self._begin = b'{"model_name":%b,"model_version":%b,"id":' % (
            orjson.dumps(identity.model_name),
            orjson.dumps(identity.model_version),
        )
        self._heads = {
            t.name: (
                t.datatype,
                b'{"name":%b,"datatype":"%b","shape":['
                % (orjson.dumps(t.name), t.datatype.encode()),
            )
            for t in spec.outputs
        }
        """Datatype of each output, and how it begins in an answer."""

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
            known = self._frames.read(body, json_bytes)
            if known is not None:
                return Call(known[0], None, known[1])
            tail = binary.Tail(memoryview(body)[json_bytes:])
        document = load_object(body if json_bytes is None else body[:json_bytes])
        client_id = read_id(document)
        try:
            tensors = self._tensors(document.get("inputs"), tail)
            if tail is not None:
                tail.check_end()
            names, as_binary = self._outputs(document)
            wishes = wishes_of_parameters(document.get("parameters"))
            inputs = validate(self._spec, tensors, names, self._converter)
            if json_bytes is not None and client_id is None and wishes is None:
                self._frames.remember(body, json_bytes, list(tensors), inputs, as_binary)
            return Call(inputs, client_id, as_binary, wishes)
        except ServingError as error:
            error.client_id = client_id
            raise

    def decode_together(self, bodies: Sequence[bytes]) -> Sequence[Call | None]:
        """Read those whose frames are equal and known; see `Codec`."""
        return [
            None if inputs is None else Call(inputs) for inputs in self._fast.read_together(bodies)
        ]

    def encode(
        self, call: Call, outputs: Outputs, request_id: str, marks: Marks | None = None
    ) -> tuple[bytes, int | None]:
        """Write an inference response; see `Codec`.

        Put together from prepared pieces: a JSON writer for the whole document takes nearly twice as long. Of a run
        for many single rows the numbers are written once for all.
        """
        begin = self._begin + orjson.dumps(call.id or request_id)
        if marks:
            begin += b',"parameters":' + orjson.dumps(marks)
        if outputs.shares and not call.binary:
            rows: Any = outputs.run.texts.get(self)
            if rows is None:
                rows = outputs.run.texts[self] = self._row_texts(call.inputs.outputs, outputs.run)
            if rows:
                return begin + rows[outputs.start], None
        if len(call.binary) == len(call.inputs.outputs):
            return self._all_binary(begin, call.inputs.outputs, outputs)
        arrays = outputs.arrays
        pieces = [begin, b',"outputs":[']
        blobs: list[bytes] = []
        for name, array in zip(call.inputs.outputs, arrays, strict=True):
            datatype, head = self._heads[name]
            pieces += (head, _shape_text(array.shape))
            if name in call.binary:
                blob = binary.write(datatype, array)
                blobs.append(blob)
                pieces.append(b'],"parameters":{"binary_data_size":%d}}' % len(blob))
            else:
                # In row-major order; NaN and infinities become null.
                flat = array if array.ndim == 1 else array.ravel()
                data = flat.tolist() if datatype in AS_LISTS else flat
                pieces += (b'],"data":', orjson.dumps(data, option=WRITE_ARRAYS), b"}")
            pieces.append(b",")
        pieces[-1] = b"]}"
        if not blobs:
            return b"".join(pieces), None
        document = b"".join(pieces)
        return b"".join((document, *blobs)), len(document)

    def _all_binary(
        self, begin: bytes, names: Sequence[str], outputs: Outputs
    ) -> tuple[bytes, int]:
        """Write an answer whose outputs are all binary. Of a run for many single rows they are written once for all."""
        if outputs.shares:
            rows: Any = outputs.run.texts.get(self._binary_rows)
            if rows is None:
                rows = self._row_blobs(names, outputs)
                outputs.run.texts[self._binary_rows] = rows
            text, blobs = rows
            if blobs:
                return b"%b%b%b" % (begin, text, blobs[outputs.start]), len(begin) + len(text)
        text, blobs = self._binary(names, outputs.arrays)
        return b"".join((begin, text, *blobs)), len(begin) + len(text)

    def _row_blobs(self, names: Sequence[str], outputs: Outputs) -> tuple[bytes, list[bytes]]:
        """Write the text that is the same for each row of a run, and the bytes of each; none where that is not so."""
        columns = []
        for name, array in zip(names, outputs.run.outputs, strict=True):
            size = array.nbytes // len(array)
            # Rows of texts have each a length of their own. Copying large ones twice saves nothing.
            if self._heads[name][0] == "BYTES" or not 0 < size <= _MAX_SHARED_BYTES:
                return b"", []
            whole = array.tobytes()
            columns.append([whole[at : at + size] for at in range(0, len(whole), size)])
        text, _ = self._binary(names, outputs.arrays)
        return text, [b"".join(cells) for cells in zip(*columns, strict=True)]

    def _binary(
        self, names: Sequence[str], arrays: Sequence[Array]
    ) -> tuple[bytes, Sequence[bytes]]:
        """Write outputs, and the text before them, which is made once for each shape."""
        blobs = [
            binary.write(self._heads[name][0], array)
            for name, array in zip(names, arrays, strict=True)
        ]
        key = (tuple(names), *[a.shape for a in arrays], *map(len, blobs))
        text = self._binary_texts.get(key)
        if text is None:
            outputs = [
                b'%b%b],"parameters":{"binary_data_size":%d}}'
                % (self._heads[name][1], _shape_text(array.shape), len(blob))
                for name, array, blob in zip(names, arrays, blobs, strict=True)
            ]
            text = b',"outputs":[%b]}' % b",".join(outputs)
            if len(self._binary_texts) >= _MAX_BINARY_TEXTS:
                self._binary_texts.clear()
            self._binary_texts[key] = text
        return text, blobs

    def _row_texts(self, names: Sequence[str], run: Run) -> list[bytes]:
        """Write the outputs of each row of a run; empty where that is not simply done."""
        columns: list[list[bytes]] = []
        for name, array in zip(names, run.outputs, strict=True):
            datatype, head = self._heads[name]
            if datatype in AS_LISTS or array.ndim > _MATRIX or array.size > _MAX_SHARED_NUMBERS:
                return []
            if not array.size:
                return []
            text = orjson.dumps(np.ascontiguousarray(array), option=WRITE_ARRAYS)
            if array.ndim == 1:
                cells, shape = text[1:-1].split(b","), b'1],"data":['
            else:
                cells, shape = text[2:-2].split(b"],["), b'1,%d],"data":[' % array.shape[1]
            columns.append([b"%b%b%b]}" % (head, shape, cell) for cell in cells])
        return [b',"outputs":[%b]}' % b",".join(cells) for cells in zip(*columns, strict=True)]

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


@lru_cache(maxsize=1024)
def _shape_text(shape: tuple[int, ...]) -> bytes:
    return b",".join([b"%d" % size for size in shape])


_MATRIX = 2
_MAX_BINARY_TEXTS = 256
_MAX_SHARED_BYTES = 4096
"""Of each row."""
_MAX_SHARED_NUMBERS = 4096
"""Above it writing all rows at once saves nothing, and would keep the event loop."""


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
