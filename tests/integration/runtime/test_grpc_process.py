"""The gRPC door of a server process: leaving, credentials and TLS."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc import aio
from tests.integration.runtime.servers import Server, free_port, status
from tests.integration.runtime.test_process import slow_model

from canarium_runtime.rpc import open_inference_pb2 as pb
from canarium_runtime.rpc.door import SERVICE
from canarium_runtime.security.keys import hash_of
from canarium_runtime.testing import linear_model

KEY = "key-of-a-batch-job-1234567890"
StartServer = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartServer]:
    running: list[Server] = []
    (tmp_path / "keys").write_text(f"batch: {hash_of(KEY.encode())}\n")

    def make(model: Path, **settings: str) -> Server:
        port = free_port()
        server = Server(tmp_path, model.as_uri(), grpc_port=str(port), **settings)
        server.grpc_address = f"127.0.0.1:{port}"
        running.append(server)
        return server

    yield make
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def _request(*values: float, request_id: str = "") -> bytes:
    request = pb.ModelInferRequest(model_name="model", id=request_id)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, len(values)])
    tensor.contents.fp32_contents.extend(values)
    return request.SerializeToString()


def _answer(body: bytes) -> list[float]:
    response = pb.ModelInferResponse.FromString(body)
    return list(response.outputs[0].contents.fp32_contents)


async def test_calls_under_way_are_finished_and_streams_end(
    start: StartServer, tmp_path: Path
) -> None:
    """SIGTERM while calls run: all are answered, a stream ends after its answers, and the process leaves with 0."""
    server = start(slow_model(tmp_path / "slow.onnx"), drain_delay="0s", drain_timeout="60s")
    await asyncio.to_thread(server.wait_ready)
    async with aio.insecure_channel(server.grpc_address) as channel:
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")()
        await stream.write(_request(1, request_id="s"))
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        calls = [asyncio.ensure_future(_wait(infer(_request(1)))) for _ in range(8)]
        ready = channel.unary_unary(f"/{SERVICE}/ServerReady")
        await ready(b"")  # behind the calls on the same connection, so these have arrived
        assert not all(call.done() for call in calls), "the model is too quick for this test"
        server.terminate()
        answers = await asyncio.gather(*calls)
        assert all(pb.ModelInferResponse.FromString(body).outputs for body in answers)
        got = [pb.ModelStreamInferResponse.FromString(body) async for body in stream]
        assert [answer.infer_response.id for answer in got] == ["s"]
        assert await stream.code() is grpc.StatusCode.OK
    assert await asyncio.to_thread(server.exit_code) == 0


async def _wait(call: Any) -> bytes:
    return await call


def test_a_port_that_is_taken_is_said_in_the_termination_log(
    start: StartServer, tmp_path: Path
) -> None:
    """The process leaves with 1 and the reason."""
    model = linear_model(tmp_path / "m.onnx")
    first = start(model)
    first.wait_ready()
    port = first.grpc_address.rsplit(":", 1)[1]
    (tmp_path / "second").mkdir()
    second = Server(tmp_path / "second", model.as_uri(), grpc_port=port)
    assert second.exit_code() == 1
    assert "for gRPC cannot be had" in second.failure().message


def test_grpc_is_not_imported_where_it_is_off(start: StartServer, tmp_path: Path) -> None:
    """Nothing of it is in the memory of a server without the port."""
    model = linear_model(tmp_path / "m.onnx")
    server = Server(tmp_path, model.as_uri())
    server.wait_ready()
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    server.terminate()
    assert server.exit_code() == 0
    assert "onnxruntime" in maps
    assert "grpc" not in maps


def test_only_who_has_a_key_is_answered(start: StartServer, tmp_path: Path) -> None:
    """Predictions, streams, metadata and names of models ask for it; probes do not."""
    model = linear_model(tmp_path / "m.onnx")
    server = start(model, api_keys_path=str(tmp_path / "keys"), open_paths="Health,Metrics")
    server.wait_ready()
    with grpc.insecure_channel(server.grpc_address) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        metadata = channel.unary_unary(f"/{SERVICE}/ModelMetadata")
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        asked = pb.ModelMetadataRequest(name="other").SerializeToString()
        other = pb.ModelInferRequest(model_name="other").SerializeToString()
        for call in (
            lambda: infer(_request(3, 4)),
            lambda: infer(_request(3, 4), metadata=(("x-api-key", "wrong"),)),
            lambda: infer(other),
            lambda: metadata(asked),
            lambda: list(stream(iter([_request(3, 4)]))),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call()
            error: Any = refused.value
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "model" not in error.details()
        for given in (("x-api-key", KEY), ("authorization", f"Bearer {KEY}")):
            assert _answer(infer(_request(3, 4), metadata=(given,))) == [43.0]
        answers = list(stream(iter([_request(3, 4)]), metadata=(("x-api-key", KEY),)))
        assert len(answers) == 1
        for name, kind in (
            ("ServerLive", pb.ServerLiveRequest),
            ("ServerReady", pb.ServerReadyRequest),
        ):
            assert channel.unary_unary(f"/{SERVICE}/{name}")(kind().SerializeToString())
    assert KEY not in json.dumps(server.logs())


@pytest.mark.parametrize("certificates", ["None", "Required"])
def test_with_a_certificate_calls_are_encrypted(
    start: StartServer, tmp_path: Path, certificates: str
) -> None:
    """The same files as HTTP's: plain text is refused, and who must show a certificate is."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    made = ca.issue_cert("localhost")
    made.private_key_pem.write_to_path(tmp_path / "key.pem")
    for index, pem in enumerate(made.cert_chain_pems):
        pem.write_to_path(tmp_path / "cert.pem", append=index > 0)
    settings = {
        "tls_certificate_file": str(tmp_path / "cert.pem"),
        "tls_key_file": str(tmp_path / "key.pem"),
    }
    if certificates == "Required":
        settings["tls_client_ca_file"] = str(tmp_path / "ca.pem")
        settings["tls_client_certificates"] = certificates
    server = start(linear_model(tmp_path / "m.onnx"), **settings)
    port = server.grpc_address.rsplit(":", 1)[1]
    client = ca.issue_cert("client.example.com", common_name="batch")
    shown = (client.private_key_pem.bytes(), b"".join(p.bytes() for p in client.cert_chain_pems))
    root = ca.cert_pem.bytes()
    with_it = grpc.ssl_channel_credentials(root, *shown)
    without = grpc.ssl_channel_credentials(root)
    with grpc.secure_channel(f"localhost:{port}", with_it) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        server.wait_for(lambda: _code(channel, "ServerReady") is grpc.StatusCode.OK)
        server.wait_for(lambda: _is_ready(channel))
        assert _answer(infer(_request(3, 4), timeout=10)) == [43.0]
    with grpc.secure_channel(f"localhost:{port}", without) as channel:
        wanted = grpc.StatusCode.UNAVAILABLE if certificates == "Required" else grpc.StatusCode.OK
        assert _code(channel, "ServerLive") is wanted
    with grpc.insecure_channel(server.grpc_address) as channel:
        assert _code(channel, "ServerLive") is grpc.StatusCode.UNAVAILABLE
    assert status(server.url) is None


def _code(channel: grpc.Channel, method: str) -> grpc.StatusCode:
    try:
        channel.unary_unary(f"/{SERVICE}/{method}")(b"", timeout=5)
    except grpc.RpcError as error:
        failed: Any = error
        return failed.code()
    return grpc.StatusCode.OK


def _is_ready(channel: grpc.Channel) -> bool:
    body = channel.unary_unary(f"/{SERVICE}/ServerReady")(b"", timeout=5)
    return bool(pb.ServerReadyResponse.FromString(body).ready)
