"""Doubles and tiny models for tests of the runtime and of whatever talks to it.

`FakeBackend` computes in Python and records its runs. `linear_model`, `echo_model` and their kin write ONNX files; they
need the `onnx` package, which the server itself does not.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.backends.base import Array, BackendError, Dimension, ModelSpec, TensorSpec
from canarium_runtime.batching.batcher import Batcher
from canarium_runtime.batching.merge import Outputs
from canarium_runtime.errors import ServingError
from canarium_runtime.models import Models
from canarium_runtime.service import InferenceService
from canarium_runtime.warmup import Report

Compute = Callable[[Mapping[str, Array]], Sequence[Array]]


def tensor(name: str, datatype: str, *shape: Dimension) -> TensorSpec:
    """Make a tensor spec."""
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def model_spec(
    inputs: Sequence[TensorSpec] = (tensor("x", "FP32", None, 2),),
    outputs: Sequence[TensorSpec] = (tensor("y", "FP32", None),),
    *,
    batchable: bool = True,
) -> ModelSpec:
    """Make a model's specs; by default rows of two floats to one float."""
    return ModelSpec(
        platform="fake", inputs=tuple(inputs), outputs=tuple(outputs), batchable=batchable
    )


class FakeBackend:
    """A backend that computes in Python: by default the sum of each row of `x`.

    Args:
        spec: what it declares.
        compute: from inputs to all outputs, in the spec's order.
        gate: when given, each run waits until it is set.
    """

    compute_bound = False
    device = "cpu"
    memory_bytes = 1000

    def __init__(
        self,
        spec: ModelSpec | None = None,
        compute: Compute | None = None,
        gate: threading.Event | None = None,
    ) -> None:
        self.spec = spec or model_spec()
        self.batch_rows: list[int] = []
        self.threads: list[str] = []
        self.started = threading.Event()
        self.closed = False
        self._compute = compute or (lambda inputs: [inputs["x"].sum(axis=1)])
        self._gate = gate

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Sequence[Array]:
        """Compute; NaN in an input is this model's way to fail."""
        first = next(iter(inputs.values()))
        self.batch_rows.append(first.shape[0] if first.ndim else 1)
        self.threads.append(threading.current_thread().name)
        self.started.set()
        if self._gate is not None:
            self._gate.wait(10)
        if first.dtype.kind == "f" and np.isnan(first).any():
            msg = "secret detail: NaN"
            raise BackendError(msg)
        results = dict(zip(self.spec.output_names, self._compute(inputs), strict=True))
        return [results[name] for name in outputs]

    def close(self) -> None:
        """Note it."""
        self.closed = True


async def run_batched(
    batcher: Batcher, inputs: Mapping[str, Array], **more: Any
) -> Sequence[Array]:
    """Submit a request to a batcher and wait for its outcome.

    Args:
        batcher: where to.
        inputs: validated arrays.
        more: as `Batcher.submit` takes it.

    Raises:
        ServingError: as it came.
    """
    future: asyncio.Future[Outputs | ServingError] = asyncio.get_running_loop().create_future()
    ticket = batcher.submit(inputs, done=future.set_result, **more)
    try:
        outcome = await future
    except asyncio.CancelledError:
        batcher.cancel(ticket)
        raise
    if isinstance(outcome, ServingError):
        raise outcome
    return outcome.arrays


def make_models(
    backend: FakeBackend | None = None, *, serving: bool = True, **settings: Any
) -> Models:
    """Make the models of a server with one, around a backend. Call on the event loop.

    Args:
        backend: default: a fresh `FakeBackend`.
        serving: False leaves it loading.
        settings: fields of `RuntimeConfig`.
    """
    values = {"model_uri": "file:///m.onnx", "model_version": "7", "revision": "r1", **settings}
    models = Models(RuntimeConfig(**values))
    if serving:
        models.primary.begin_warming()
        models.primary.serve(backend or FakeBackend(), Report())
    return models


def make_service(
    backend: FakeBackend | None = None, *, serving: bool = True, **settings: Any
) -> InferenceService:
    """Make a service around a backend; see `make_models`."""
    return make_models(backend, serving=serving, **settings).primary


def write_model(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[tuple[str, int, Sequence[Dimension]]],
    outputs: Sequence[tuple[str, int, Sequence[Dimension]]],
    constants: Mapping[str, Array] | None = None,
) -> Path:
    """Write an ONNX model of `onnx.helper.make_node` nodes; tensors are (name, TensorProto type, shape)."""
    from onnx import helper, numpy_helper, save

    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(n, t, list(s)) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, list(s)) for n, t, s in outputs],
        [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save(model, str(path))
    return path


def linear_model(path: Path, *, rows: Dimension = "N") -> Path:
    """Write y = x . [1, 10] for rows of two floats: [3, 4] gives 43."""
    from onnx import TensorProto, helper

    weights = np.array([[1.0], [10.0]], np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Squeeze", ["p", "axis"], ["y"]),
    ]
    return write_model(
        path,
        nodes,
        [("x", TensorProto.FLOAT, [rows, 2])],
        [("y", TensorProto.FLOAT, [rows])],
        {"w": weights, "axis": np.array([1], np.int64)},
    )


def echo_model(path: Path, onnx_type: int, *shape: Dimension) -> Path:
    """Write y = x for any type and shape."""
    from onnx import helper

    return write_model(
        path,
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", onnx_type, shape)],
        [("y", onnx_type, shape)],
    )
