"""ONNX Runtime on the CPU.

One session, shared by all workers: its `run` is thread-safe and lets go of the interpreter lock. Execution providers
for other devices are not chosen here yet.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from canarium_runtime.backends.base import Array, BackendError, Dimension, ModelSpec, TensorSpec
from canarium_runtime.errors import LoadError

PLATFORM = "onnx_onnxv1"
_FATAL_ONLY = 4
"""ONNX Runtime raises every failed run as an exception too; its own line for each on stderr would have no bound."""
_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class OnnxBackend:
    """A model in an ONNX Runtime session."""

    compute_bound = True
    """On the CPU, where the calling thread is one of those that compute."""

    def __init__(self, session: Any, spec: ModelSpec, memory_bytes: int) -> None:
        self.spec = spec
        self.memory_bytes = memory_bytes
        self._session = session

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Sequence[Array]:
        """Run the session once; see `Backend.infer`."""
        try:
            result: Sequence[Array] = self._session.run(outputs, inputs)
        except (
            Exception
        ) as error:  # the library raises a class of its own for each status, and RuntimeError
            raise BackendError(str(error)) from error
        return result

    def close(self) -> None:
        """Drop the session and the memory that it holds."""
        self._session = None


def open_onnx(path: Path, threads: int) -> OnnxBackend:
    """Open a model file.

    Raises:
        LoadError: ModelUnreadable when the library refuses the file, ModelUnsupported when an input or output has a
            type that the protocol cannot carry.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    # Spinning threads burn the pod's CPU quota between runs and are then throttled during them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        why = str(error).rstrip(".")
        msg = f"ONNX Runtime cannot open the model: {why}. Check that the file is a complete ONNX model."
        raise LoadError("ModelUnreadable", msg, permanent=True) from error
    # The weights, which dominate; arenas grow with use.
    return OnnxBackend(session, _spec_of(session), path.stat().st_size)


def _spec_of(session: Any) -> ModelSpec:
    inputs = tuple(_tensor(node, "input") for node in session.get_inputs())
    outputs = tuple(_tensor(node, "output") for node in session.get_outputs())
    return ModelSpec(
        platform=PLATFORM, inputs=inputs, outputs=outputs, batchable=is_batchable(inputs, outputs)
    )


def _tensor(node: Any, role: str) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        remedy = "Export it with tensors of the datatypes that the protocol knows."
        if node.type.startswith("seq(map("):
            remedy = (
                "This is scikit-learn's ZipMap: export with "
                "options={'zipmap': False} (skl2onnx.to_onnx), so that probabilities are one tensor."
            )
        msg = f"{role} {node.name!r} has type {node.type}, which cannot be served. {remedy}"
        raise LoadError("ModelUnsupported", msg, permanent=True)
    shape: tuple[Dimension, ...] = tuple(node.shape)
    return TensorSpec(name=node.name, datatype=datatype, shape=shape)


def is_batchable(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    """Whether the first axis of every tensor may be any number of rows, the same for all.

    A fixed first axis, or two differently named ones (`rows` and `tokens`), means no. An output without a declared
    shape says nothing, and the warm-up finds out.
    """
    if not inputs or any(not t.shape for t in inputs):
        return False
    first = [t.shape[0] for t in (*inputs, *outputs) if t.shape]
    names = {d for d in first if isinstance(d, str)}
    return not any(isinstance(d, int) for d in first) and len(names) <= 1
