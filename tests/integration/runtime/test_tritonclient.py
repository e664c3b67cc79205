"""The Open Inference Protocol V2 as a client reads it that nobody here wrote: tritonclient, over HTTP and gRPC.

One server process, with a model that has an input and an output of every datatype.
"""

import asyncio
import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from onnx import TensorProto, helper
from tests.integration.runtime.servers import Server, free_port, status
from tritonclient.utils import InferenceServerException

from canarium_runtime.testing import echo_model, write_model

ROWS: dict[str, tuple[int, np.ndarray]] = {
    "BOOL": (TensorProto.BOOL, np.array([[True, False], [False, False]])),
    "UINT8": (TensorProto.UINT8, np.array([[0, 255], [1, 2]], np.uint8)),
    "UINT16": (TensorProto.UINT16, np.array([[0, 65535], [1, 2]], np.uint16)),
    "UINT32": (TensorProto.UINT32, np.array([[0, 2**32 - 1], [1, 2]], np.uint32)),
    "UINT64": (TensorProto.UINT64, np.array([[0, 2**64 - 1], [1, 2]], np.uint64)),
    "INT8": (TensorProto.INT8, np.array([[-128, 127], [1, 2]], np.int8)),
    "INT16": (TensorProto.INT16, np.array([[-(2**15), 2**15 - 1], [1, 2]], np.int16)),
    "INT32": (TensorProto.INT32, np.array([[-(2**31), 2**31 - 1], [1, 2]], np.int32)),
    "INT64": (TensorProto.INT64, np.array([[-(2**63), 2**63 - 1], [1, 2]], np.int64)),
    "FP16": (TensorProto.FLOAT16, np.array([[0.5, -65504], [1, 2]], np.float16)),
    "FP32": (TensorProto.FLOAT, np.array([[0.1, -3e38], [1, 2]], np.float32)),
    "FP64": (TensorProto.DOUBLE, np.array([[0.1, -1e308], [1, 2]], np.float64)),
    "BYTES": (TensorProto.STRING, np.array([["", "grün"], ["a", "b,c"]], object)),
}
"""ONNX type and two rows of two, by datatype."""


BRAIN = np.array([[0.5, -3e38], [1, 2]], ml_dtypes.bfloat16)
"""Rows of a second model: ONNX Runtime has bfloat16 and text in no model together."""


def _model(path: Path) -> Path:
    """Write a model whose output y_T is its input x_T, for every datatype T."""
    return write_model(
        path,
        [helper.make_node("Identity", [f"x_{t}"], [f"y_{t}"]) for t in ROWS],
        [(f"x_{t}", kind, ["N", 2]) for t, (kind, _) in ROWS.items()],
        [(f"y_{t}", kind, ["N", 2]) for t, (kind, _) in ROWS.items()],
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    uri = _model(folder / "model.onnx").as_uri()
    grpc_port = free_port()
    second = echo_model(folder / "bf16.onnx", TensorProto.BFLOAT16, "N", 2).as_uri()
    started = Server(
        folder,
        uri,
        model_name="every",
        model_version="7",
        grpc_port=str(grpc_port),
        models=json.dumps([{"name": "brain", "version": "2", "uri": second}]),
        model_control="true",
    )
    started.grpc_address = f"127.0.0.1:{grpc_port}"
    started.wait_ready()
    started.wait_for(lambda: status(f"{started.url}/v2/models/brain/ready") == 200)
    yield started
    started.terminate()
    assert started.exit_code() == 0


def _addresses(server: Server) -> dict[Any, str]:
    http, rpc = f"127.0.0.1:{server.port}", server.grpc_address
    return {tritonclient.http: http, tritonclient.grpc: rpc}


CLIENTS = [
    pytest.param(tritonclient.http, id="http"),
    pytest.param(tritonclient.grpc, id="grpc"),
]


@pytest.fixture
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Any]:
    library = request.param
    with library.InferenceServerClient(_addresses(server)[library]) as made:
        yield made


def _library(client: Any) -> Any:
    over_http = isinstance(client, tritonclient.http.InferenceServerClient)
    return tritonclient.http if over_http else tritonclient.grpc


def _inputs(library: Any, **more: Any) -> list[Any]:
    inputs = []
    for name, (_, array) in ROWS.items():
        tensor = library.InferInput(f"x_{name}", list(array.shape), name)
        tensor.set_data_from_numpy(_sent(array), **more)
        inputs.append(tensor)
    return inputs


def _sent(array: np.ndarray) -> np.ndarray:
    """The client takes text as bytes, and bfloat16 as 32-bit floats."""
    if array.dtype == ml_dtypes.bfloat16:
        return array.astype(np.float32)
    if array.dtype != object:
        return array
    return np.array([[text.encode() for text in row] for row in array], object)


def _check(result: Any, name: str, array: np.ndarray) -> None:
    """The output is the input, bit for bit and of its datatype."""
    got = result.as_numpy(f"y_{name}")
    if name == "BYTES":
        texts = [[t.decode() if isinstance(t, bytes) else t for t in row] for row in got.tolist()]
        assert texts == array.tolist()
        return
    sent = _sent(array)
    assert got.dtype == sent.dtype
    assert got.tobytes() == sent.tobytes()


@pytest.mark.parametrize("binary_out", [True, False], ids=["binary answer", "JSON answer"])
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary request", "JSON request"])
def test_every_datatype_goes_through_http_unchanged(
    server: Server, binary_in: bool, binary_out: bool
) -> None:
    """World: an array of each datatype; world: the same arrays, whatever form either side has."""
    library = tritonclient.http
    inputs = _inputs(library, binary_data=False) if not binary_in else _inputs(library)
    assert all((i._get_binary_data() is not None) == binary_in for i in inputs)
    outputs = [library.InferRequestedOutput(f"y_{t}", binary_data=binary_out) for t in ROWS]
    with library.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        result = client.infer("every", inputs, outputs=outputs, request_id="r-1")
    assert result.get_response()["id"] == "r-1"
    for name, (_, array) in ROWS.items():
        _check(result, name, array)


def test_every_datatype_goes_through_grpc_unchanged(server: Server) -> None:
    """The same over gRPC, where this client sends raw bytes."""
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        result = client.infer("every", _inputs(tritonclient.grpc), request_id="r-1")
    assert result.get_response().id == "r-1"
    assert len(result.get_response().raw_output_contents) == len(ROWS)
    for name, (_, array) in ROWS.items():
        _check(result, name, array)


@pytest.mark.parametrize("client", CLIENTS, indirect=True)
def test_two_outputs_are_chosen_in_the_clients_order(client: Any) -> None:
    """Only those that were asked for come, and in that order."""
    library = _library(client)
    wanted = [library.InferRequestedOutput("y_INT64"), library.InferRequestedOutput("y_BOOL")]
    result = client.infer("every", _inputs(library), outputs=wanted)
    response = result.get_response()
    outputs = response["outputs"] if isinstance(response, dict) else response.outputs
    names = [o["name"] if isinstance(o, dict) else o.name for o in outputs]
    assert names == ["y_INT64", "y_BOOL"]
    _check(result, "BOOL", ROWS["BOOL"][1])
    assert result.as_numpy("y_FP32") is None


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_read(server: Server, algorithm: str) -> None:
    """The client compresses JSON and binary data together."""
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        result = client.infer(
            "every",
            _inputs(tritonclient.http),
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
    _check(result, "FP64", ROWS["FP64"][1])


@pytest.mark.parametrize("client", CLIENTS, indirect=True)
def test_the_client_finds_the_server_live_and_ready(client: Any) -> None:
    """Server, model, and the version by name; another version is not there."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("every")
    assert client.is_model_ready("every", "7")


def _document(client: Any, name: str, *arguments: Any) -> Any:
    """Ask for what HTTP gives as JSON anyway, and gRPC on request."""
    method = getattr(client, name)
    if isinstance(client, tritonclient.grpc.InferenceServerClient):
        return method(*arguments, as_json=True)
    return method(*arguments)


@pytest.mark.parametrize("client", CLIENTS, indirect=True)
def test_metadata_and_configuration_describe_the_model(client: Any) -> None:
    """Server metadata, model metadata by name and by version, and what Triton's clients call the configuration."""
    about = _document(client, "get_server_metadata")
    assert about["name"] == "canarium"
    assert {"binary_tensor_data", "statistics", "model_repository"} <= set(about["extensions"])
    metadata = _document(client, "get_model_metadata", "every")
    assert metadata == _document(client, "get_model_metadata", "every", "7")
    assert metadata["versions"] == ["7"]
    assert [t["datatype"] for t in metadata["inputs"]] == list(ROWS)
    assert [list(map(int, t["shape"])) for t in metadata["outputs"]] == [[-1, 2]] * len(ROWS)
    config = _document(client, "get_model_config", "every")
    config = config.get("config", config)
    assert (config["name"], config["max_batch_size"]) == ("every", 32)
    assert [list(map(int, t["dims"])) for t in config["input"]] == [[2]] * len(ROWS)
    assert config["input"][-1]["data_type"] == "TYPE_STRING"


@pytest.mark.parametrize("client", CLIENTS, indirect=True)
def test_the_index_lists_the_model(client: Any) -> None:
    """One line for each version of each model."""
    index = _document(client, "get_model_repository_index")
    lines = index["models"] if isinstance(index, dict) else index
    assert [(line["name"], line["version"], line["state"]) for line in lines] == [
        ("every", "7", "READY"),
        ("brain", "2", "READY"),
    ]


@pytest.mark.parametrize("client", CLIENTS, indirect=True)
def test_bfloat16_goes_through_unchanged(client: Any) -> None:
    """The client gives and takes it as 32-bit floats; on the wire it is two bytes."""
    tensor = _library(client).InferInput("x", list(BRAIN.shape), "BF16")
    tensor.set_data_from_numpy(BRAIN.astype(np.float32))
    got = client.infer("brain", [tensor]).as_numpy("y")
    assert got.astype(ml_dtypes.bfloat16).tobytes() == BRAIN.tobytes()


@pytest.mark.parametrize("client", CLIENTS, indirect=True)
def test_another_model_is_unloaded_and_loaded(client: Any) -> None:
    """Unloaded it is not ready and not answered; loaded it is again; the first does not notice."""
    client.unload_model("brain")
    assert not client.is_model_ready("brain")
    assert client.is_model_ready("every")
    tensor = _library(client).InferInput("x", list(BRAIN.shape), "BF16")
    tensor.set_data_from_numpy(BRAIN.astype(np.float32))
    with pytest.raises(InferenceServerException, match="not ready"):
        client.infer("brain", [tensor])
    client.load_model("brain")
    assert client.is_model_ready("brain")
    assert client.infer("brain", [tensor]).as_numpy("y").shape == BRAIN.shape


@pytest.mark.parametrize("client", CLIENTS, indirect=True)
def test_load_is_idempotent_and_the_servers_own_model_is_not_unloaded(client: Any) -> None:
    """Load of what is loaded does nothing; unload of the only model is refused, and says why."""
    client.load_model("every")
    with pytest.raises(InferenceServerException, match="cannot be unloaded"):
        client.unload_model("every")
    with pytest.raises(InferenceServerException, match="no model 'other' here"):
        client.load_model("other")
    with pytest.raises(InferenceServerException, match="configured by the ModelDeployment"):
        client.load_model("every", config="{}")
    assert client.is_model_ready("every")


@pytest.mark.parametrize("client", CLIENTS, indirect=True)
def test_statistics_count_what_was_asked(client: Any) -> None:
    """An answer of two rows and a refusal more: counts go up by exactly that."""
    library = _library(client)

    def counted() -> dict[str, Any]:
        (stats,) = _document(client, "get_inference_statistics", "every")["model_stats"]
        (same,) = _document(client, "get_inference_statistics", "every", "7")["model_stats"]
        assert stats == same
        return stats

    client.infer("every", _inputs(library))
    before = counted()
    client.infer("every", _inputs(library))
    with pytest.raises(InferenceServerException):
        client.infer("every", _inputs(library)[:-1])
    after = counted()
    rise = {
        key: int(after[key]) - int(before[key]) for key in ("inference_count", "execution_count")
    }
    assert rise == {"inference_count": 2, "execution_count": 1}
    assert int(after["last_inference"]) >= int(before["last_inference"]) > 1.7e12
    for kind, more in (("success", 1), ("fail", 1), ("queue", 1), ("compute_infer", 1)):
        old, new = before["inference_stats"][kind], after["inference_stats"][kind]
        assert int(new["count"]) - int(old.get("count", 0)) == more, kind
        assert int(new.get("ns", 0)) >= int(old.get("ns", 0))
    sizes = {int(b["batch_size"]): int(b["compute_infer"]["count"]) for b in after["batch_stats"]}
    assert sizes[2] == int(after["execution_count"]) - sum(n for s, n in sizes.items() if s != 2)


@pytest.mark.parametrize("client", CLIENTS, indirect=True)
def test_a_mistake_names_the_field(client: Any) -> None:
    """Both protocols say the same words."""
    library = _library(client)
    inputs = _inputs(library)
    inputs[0] = library.InferInput("x_BOOL", [2, 2], "UINT8")
    inputs[0].set_data_from_numpy(np.zeros((2, 2), np.uint8))
    with pytest.raises(InferenceServerException) as refused:
        client.infer("every", inputs)
    assert refused.value.message() == "inputs[0].datatype: expected BOOL, got UINT8"
    with pytest.raises(InferenceServerException, match="has no version '8' here"):
        client.infer("every", inputs, model_version="8")
    with pytest.raises(InferenceServerException, match="no model 'other' here"):
        client.infer("other", inputs)


async def test_the_asyncio_clients_are_answered(server: Server) -> None:
    """Thirty requests at once by each of the asynchronous clients, each with its own id."""
    for library, address in (
        (tritonclient.http.aio, f"127.0.0.1:{server.port}"),
        (tritonclient.grpc.aio, server.grpc_address),
    ):
        async with library.InferenceServerClient(address) as client:
            assert await client.is_model_ready("every", "7")
            results = await asyncio.gather(
                *(
                    client.infer("every", _inputs(library), request_id=f"r{number}")
                    for number in range(30)
                )
            )
        for number, result in enumerate(results):
            response = result.get_response()
            got = response["id"] if isinstance(response, dict) else response.id
            assert got == f"r{number}"
            _check(result, "INT32", ROWS["INT32"][1])


def test_a_grpc_stream_answers_each_request_and_survives_a_mistake(server: Server) -> None:
    """Twenty requests and one mistake on one stream: each is answered once, the mistake by its words."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(20):
            client.async_stream_infer("every", _inputs(tritonclient.grpc), request_id=f"s{number}")
        client.async_stream_infer("every", _inputs(tritonclient.grpc)[1:], request_id="wrong")
        got = [answers.get(timeout=30) for _ in range(21)]
        client.stop_stream()
    ids = {result.get_response().id for result, error in got if error is None}
    assert ids == {f"s{number}" for number in range(20)}
    (error,) = [error for _, error in got if error is not None]
    assert "the input 'x_BOOL'" in error.message()


def test_a_deadline_of_the_client_is_its_own(server: Server) -> None:
    """A call whose time is over ends with DEADLINE_EXCEEDED, and the server goes on."""
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
            client.infer("every", _inputs(tritonclient.grpc), client_timeout=0.000001)
        _check(client.infer("every", _inputs(tritonclient.grpc)), "INT8", ROWS["INT8"][1])


def test_health_is_what_probes_ask_for(server: Server) -> None:
    """grpc.health.v1 says SERVING for the server and for the service."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "inference.GRPCInferenceService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
