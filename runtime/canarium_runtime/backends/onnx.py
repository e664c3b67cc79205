"""ONNX Runtime, on the CPU, CUDA, TensorRT or OpenVINO (devices.py chooses).

One session, shared by all workers: its `run` is thread-safe and lets go of the interpreter lock. On a GPU, and for
bfloat16, which the library does not take from numpy, values are bound instead.

Limitation: CUDA and TensorRT are written from their documentation and have not been run, but for their failing to
start; binding has, on the CPU, and OpenVINO has, on the CPU, by hand.
"""

import ctypes
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from canarium_api.model_types import ExecutionProvider
from canarium_runtime.backends import devices
from canarium_runtime.backends.base import (
    DTYPES,
    Array,
    BackendError,
    Dimension,
    ModelSpec,
    TensorSpec,
    is_batchable,
)
from canarium_runtime.backends.devices import Device
from canarium_runtime.backends.options import Options
from canarium_runtime.errors import LoadError

PLATFORM = "onnx_onnxv1"
_FATAL_ONLY = 4
"""ONNX Runtime raises every failed run as an exception too; its own line for each on stderr would have no bound."""
_BFLOAT16 = 16
"""Number of the type in ONNX's TensorProto."""
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
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class OnnxBackend:
    """A model in an ONNX Runtime session."""

    def __init__(
        self, session: Any, spec: ModelSpec, *, device: str = "cpu", memory_bytes: int = 0
    ) -> None:
        self.spec = spec
        # On the CPU, the calling thread is one of those that compute.
        self.compute_bound = device == "cpu"
        self.device = device
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


class BoundOnnxBackend(OnnxBackend):
    """A session whose inputs and outputs are bound to memory of a device.

    Inputs go to the device in one copy each, outputs are made there and come back in one copy when all are done:
    between them nothing waits for the host. Texts and bfloat16 outputs are bound to the host's memory.
    """

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Sequence[Array]:
        """Run the session once; see `Backend.infer`."""
        device, _, index = self.device.partition(":")
        number = int(index or 0)
        try:
            binding = self._session.io_binding()
            held = [
                self._bind(binding, name, array, device, number) for name, array in inputs.items()
            ]
            for name in outputs:
                on_host = self.spec.output_datatypes[name] in {"BF16", "BYTES"}
                binding.bind_output(name, "cpu" if on_host else device, 0 if on_host else number)
            self._session.run_with_iobinding(binding)
            values = binding.get_outputs()
            del held  # the arrays had to live until here
            return [
                _bfloat16(value) if self.spec.output_datatypes[name] == "BF16" else value.numpy()
                for name, value in zip(outputs, values, strict=True)
            ]
        except Exception as error:
            raise BackendError(str(error)) from error

    def _bind(self, binding: Any, name: str, array: Array, device: str, index: int) -> object:
        array = np.ascontiguousarray(array).reshape(array.shape)  # it makes scalars an axis
        if array.dtype == DTYPES["BF16"]:
            value = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
                array.view(np.uint16), _BFLOAT16
            )
        elif array.dtype.kind == "O" or device == "cpu":
            binding.bind_cpu_input(name, array)
            return array
        else:
            value = ort.OrtValue.ortvalue_from_numpy(array, device, index)
        binding.bind_ortvalue_input(name, value)
        return array, value


def _bfloat16(value: Any) -> Array:
    """Copy a tensor that the library cannot give to numpy."""
    shape = value.shape()
    size = int(np.prod(shape, dtype=np.int64))
    if size == 0:
        return np.empty(shape, DTYPES["BF16"])
    source = (ctypes.c_uint16 * size).from_address(value.data_ptr())
    copied: Array = np.ctypeslib.as_array(source).copy().view(DTYPES["BF16"]).reshape(shape)
    return copied


def open_onnx(path: Path, options: Options) -> OnnxBackend:
    """Open a model file.

    Raises:
        LoadError: ModelUnreadable when the library refuses the file, ModelUnsupported when an input or output has a
            type that the protocol cannot carry, AcceleratorUnavailable and InvalidConfig as `devices.onnx_providers`
            says.
    """
    settings = devices.ProviderSettings(
        threads=options.threads,
        precision=options.precision,
        gpu_memory_bytes=options.gpu_memory_bytes,
        cache=options.directory / "engines",
    )
    device, providers = devices.onnx_providers(
        options.provider, options.device, ort.get_available_providers(), settings
    )
    if options.precision is not None and providers[0][0] != "TensorrtExecutionProvider":
        msg = (
            f"precision {options.precision} is for torch models and for TensorRT: convert the ONNX file itself, "
            "or remove serving.execution.precision"
        )
        raise LoadError("InvalidConfig", msg, permanent=True)
    if providers[0][1].keys() & {"trt_engine_cache_path", "cache_dir"}:
        settings.cache.mkdir(parents=True, exist_ok=True)
    if device.kind == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds CUDA's libraries where pip puts them
    session = _session(path, options.threads, providers)
    device = _device_of(session, providers[0][0], device, options.provider)
    spec = _spec_of(session)
    bound = device.kind != "cpu" or any(t.datatype == "BF16" for t in (*spec.inputs, *spec.outputs))
    backend = BoundOnnxBackend if bound else OnnxBackend
    return backend(session, spec, device=str(device), memory_bytes=path.stat().st_size)


def _session(path: Path, threads: int, providers: Sequence[devices.ProviderChoice]) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    # Spinning threads burn the pod's CPU quota between runs and are then throttled during them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Weights in files beside the model are not covered by its digest. The library looks for them beside the path that
    # it is given, so it is given one in an empty folder.
    with tempfile.TemporaryDirectory(prefix="canarium-") as folder:
        alone = Path(folder) / "model.onnx"
        alone.symlink_to(path.resolve())
        try:
            return ort.InferenceSession(str(alone), sess_options=options, providers=list(providers))
        except Exception as error:
            why = str(error).replace(str(alone), path.name).replace(folder, path.name).rstrip(".")
            raise _unreadable(why) from error


def _unreadable(why: str) -> LoadError:
    if "external" in why.lower():
        msg = (
            f"the model keeps weights in other files, which its digest does not cover: {why}. Save it as one file "
            "(onnx.save_model with save_as_external_data=False)."
        )
        return LoadError("ModelUnsupported", msg, permanent=True)
    msg = (
        f"ONNX Runtime cannot open the model: {why}. Check that the file is a complete ONNX model."
    )
    return LoadError("ModelUnreadable", msg, permanent=True)


def _device_of(session: Any, wanted: str, device: Device, asked: ExecutionProvider) -> Device:
    """Say what a session really runs on: a provider that does not start is left out, with a line in the library's log.

    Raises:
        LoadError: AcceleratorUnavailable, where nothing else will do. Not permanent: another node may have the driver.
    """
    if wanted in session.get_providers():
        return device
    why = f"ONNX Runtime could not start {wanted} with the driver and the libraries that are here"
    if asked is ExecutionProvider.AUTO:
        return devices.library_lacks(device, why)
    msg = f"{why}: use a runtime image that has them (serving.image), or set serving.execution.provider to auto"
    raise LoadError("AcceleratorUnavailable", msg)


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
