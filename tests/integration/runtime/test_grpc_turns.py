"""gRPC calls are traced, and say their priority and patience, as HTTP's requests do."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc import aio
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.integration.runtime.doors import MODEL, SERVICE, World, world

from canarium_runtime.rpc import open_inference_pb2 as pb
from canarium_runtime.testing import FakeBackend
from canarium_runtime.tracing.spans import SpanWriter, resource_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def ask(w: World, metadata: tuple[tuple[str, str], ...] = (), **parameters: int) -> Any:
    request = pb.ModelInferRequest(model_name=MODEL)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    tensor.contents.fp32_contents.extend([1, 2])
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    method = w.channel.unary_unary(f"/{SERVICE}/ModelInfer")
    return await method(request.SerializeToString(), metadata=metadata, timeout=10)


async def test_a_call_belongs_to_its_callers_trace() -> None:
    """Its span has gRPC's words."""
    exporter = InMemorySpanExporter()
    async with world(FakeBackend()) as w:
        writer = SpanWriter(exporter, resource_of(w.models.config, {}))
        w.models.trace_with(writer)
        await ask(w, (("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"),))
        await asyncio.to_thread(writer._processor.force_flush)
    own = next(s for s in exporter.get_finished_spans() if s.name == f"{SERVICE}/ModelInfer")
    assert own.context is not None
    assert f"{own.context.trace_id:032x}" == TRACE
    assert dict(own.attributes or {})["rpc.grpc.status_code"] == 0


@pytest.mark.parametrize(
    ("metadata", "parameters", "code"),
    [
        ((("x-canarium-priority", "low"),), {}, None),
        ((), {"priority": 3, "timeout": 5_000_000}, None),
        ((("x-canarium-priority", "urgent"),), {}, grpc.StatusCode.INVALID_ARGUMENT),
        ((), {"priority": 9}, grpc.StatusCode.INVALID_ARGUMENT),
        ((), {"priority": 1}, grpc.StatusCode.PERMISSION_DENIED),
        ((), {"timeout": 1}, grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
async def test_wishes_are_those_of_http(
    metadata: tuple[tuple[str, str], ...], parameters: dict[str, int], code: Any
) -> None:
    """Metadata are headers, and the request's parameters are the body's."""
    async with world(FakeBackend()) as w:
        if code is None:
            await ask(w, metadata, **parameters)
            return
        with pytest.raises(aio.AioRpcError) as caught:
            await ask(w, metadata, **parameters)
        assert caught.value.code() is code
