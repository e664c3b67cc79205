"""gRPC messages: which model they are for, tensors in both forms, and the table of statuses."""

import ml_dtypes
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from canarium_runtime.backends.base import DTYPES
from canarium_runtime.batching.merge import Outputs, Run
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.rest.codec import Identity
from canarium_runtime.rest.errors import STATUS_OF_KIND as HTTP_STATUS_OF_KIND
from canarium_runtime.rpc import open_inference_pb2 as pb
from canarium_runtime.rpc import protogen
from canarium_runtime.rpc.codec import GrpcCodec, model_of
from canarium_runtime.rpc.statuses import STATUS_OF_KIND
from canarium_runtime.testing import model_spec, tensor

IDENTITY = Identity("m", "7", "r1")
RAW_ONLY = {"FP16", "BF16"}
VALUES = {
    "BOOL": [True, False],
    "BYTES": ["", "grün"],
    **{t: [1, 0] for t in DTYPES if "INT" in t},
    **{t: [0.5, -2.0] for t in ("FP16", "BF16", "FP32", "FP64")},
}


def codec_of(datatype: str) -> GrpcCodec:
    spec = model_spec([tensor("x", datatype, None)], [tensor("y", datatype, None)])
    return GrpcCodec(spec, IDENTITY)


def request_of(datatype: str) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", id="mine")
    request.inputs.add(name="x", datatype=datatype, shape=[2])
    return request


def array_of(datatype: str) -> np.ndarray:
    return np.array(VALUES[datatype], DTYPES[datatype])


@given(
    st.text(max_size=300), st.text(max_size=300), st.text(max_size=5), st.booleans(), st.binary()
)
def test_the_model_is_read_from_the_first_bytes_as_a_whole_parse_reads_it(
    name: str, version: str, request_id: str, has_input: bool, raw: bytes
) -> None:
    """For names of any length, empty ones among them."""
    request = pb.ModelInferRequest(model_name=name, model_version=version, id=request_id)
    if has_input:
        request.inputs.add(name="x")
        request.raw_input_contents.append(raw)
    assert model_of(request.SerializeToString()) == (name, version or None)


@given(st.binary(max_size=60))
def test_any_bytes_name_a_model_or_are_refused(body: bytes) -> None:
    """Never another error; where the bytes are a message, the same as its parse says."""
    try:
        found = model_of(body)
    except ServingError as error:
        assert error.kind is ErrorKind.MALFORMED
        return
    try:
        request = pb.ModelInferRequest.FromString(body)
    except DecodeError:
        return  # the careful parse comes later, and refuses it
    assert found == (request.model_name, request.model_version or None)


@pytest.mark.parametrize("datatype", sorted(set(DTYPES) - RAW_ONLY))
def test_typed_contents_go_both_ways(datatype: str) -> None:
    """A typed request makes the array, and its answer is typed, too."""
    codec = codec_of(datatype)
    answer = codec.response(
        codec.decode(_typed(codec, datatype), None), Outputs(Run([array_of(datatype)])), "r"
    )
    assert not answer.raw_output_contents
    again = pb.ModelInferRequest(model_name="m")
    output = answer.outputs[0]
    again.inputs.add(name="x", datatype=datatype, shape=output.shape).contents.CopyFrom(
        output.contents
    )
    array = codec.decode(again.SerializeToString(), None).inputs.arrays["x"]
    assert array.dtype == DTYPES[datatype]
    assert array.tolist() == array_of(datatype).tolist()


def _typed(codec: GrpcCodec, datatype: str) -> bytes:
    """Let the codec itself say which field is the datatype's."""
    raw = request_of(datatype)
    raw.raw_input_contents.append(_bytes(datatype))
    call = codec.decode(raw.SerializeToString(), None)
    call.binary = ()
    made = codec.response(call, Outputs(Run([array_of(datatype)])), "r")
    request = request_of(datatype)
    request.inputs[0].contents.CopyFrom(made.outputs[0].contents)
    return request.SerializeToString()


def _bytes(datatype: str) -> bytes:
    if datatype == "BYTES":
        return b"".join(len(v.encode()).to_bytes(4, "little") + v.encode() for v in VALUES["BYTES"])
    return array_of(datatype).tobytes()


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_raw_contents_go_both_ways(datatype: str) -> None:
    """A raw request makes the array, and its answer has the same bytes."""
    codec = codec_of(datatype)
    request = request_of(datatype)
    request.raw_input_contents.append(_bytes(datatype))
    call = codec.decode(request.SerializeToString(), None)
    assert call.inputs.arrays["x"].tolist() == array_of(datatype).tolist()
    assert call.id == "mine"
    body, _ = codec.encode(call, Outputs(Run([array_of(datatype)])), "r", {"degraded": True})
    answer = pb.ModelInferResponse.FromString(body)
    assert list(answer.raw_output_contents) == [_bytes(datatype)]
    assert (answer.id, answer.model_version, list(answer.outputs[0].shape)) == ("mine", "7", [2])
    assert answer.parameters["degraded"].bool_param is True


def test_sixteen_bits_are_raw_alone() -> None:
    """A typed request for them is refused; a typed request whose answer has them gets raw bytes."""
    for datatype in sorted(RAW_ONLY):
        with pytest.raises(ServingError, match="send raw_input_contents"):
            codec_of(datatype).decode(request_of(datatype).SerializeToString(), None)
    spec = model_spec([tensor("x", "FP32", None)], [tensor("y", "BF16", None)])
    codec = GrpcCodec(spec, IDENTITY)
    request = request_of("FP32")
    request.inputs[0].contents.fp32_contents.extend([1, 2])
    call = codec.decode(request.SerializeToString(), None)
    made = codec.response(call, Outputs(Run([np.array([1, 2], ml_dtypes.bfloat16)])), "r")
    assert len(made.raw_output_contents[0]) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.raw_input_contents.append(b""), r"raw_input_contents: expected 1 .*, got 2"),
        (lambda r: r.inputs[0].shape.append(-1), r"inputs\[0\].shape: expected an array of sizes"),
        (lambda r: r.inputs[0].shape.append(2**40), r"inputs\[0\].data: expected"),
        (
            lambda r: r.inputs[0].contents.fp32_contents.append(1),
            r"either contents or raw_input_contents",
        ),
        (lambda r: setattr(r.inputs[0], "datatype", "FP8"), r"datatype: expected one of"),
        (lambda r: setattr(r, "id", "x" * 300), r"id: expected a string of at most 256"),
    ],
)
def test_a_mistake_is_named(change: object, message: str) -> None:
    """World: a good raw request; event: one thing wrong with it; world: the field in the message."""
    request = request_of("FP32")
    request.raw_input_contents.append(_bytes("FP32"))
    change(request)  # type: ignore[operator]
    with pytest.raises(ServingError, match=message):
        codec_of("FP32").decode(request.SerializeToString(), None)


def test_text_that_is_none_is_refused() -> None:
    """BYTES are UTF-8 here."""
    request = request_of("BYTES")
    request.inputs[0].contents.bytes_contents.extend([b"\xff", b""])
    with pytest.raises(ServingError, match="UTF-8"):
        codec_of("BYTES").decode(request.SerializeToString(), None)


def test_each_kind_of_failure_has_a_status() -> None:
    """In both tables, and none of them is OK or UNKNOWN."""
    assert STATUS_OF_KIND.keys() == HTTP_STATUS_OF_KIND.keys() == set(ErrorKind)
    assert not {StatusCode.OK, StatusCode.UNKNOWN} & set(STATUS_OF_KIND.values())


def test_the_generated_messages_are_what_the_protocol_says() -> None:
    """`make generate` was run after the last change."""
    for path, text in protogen.generate().items():
        assert path.read_text(encoding="utf-8") == text, "run make generate"
