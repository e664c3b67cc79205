"""What a model runs on, decided from what was asked for and what the process can see.

Asked for a GPU, a server has one or leaves: a model that quietly runs on the CPU at a hundredth of the speed is an
outage that nobody is told of. Only `auto` may end on the CPU, and it says so in the log. Everything but `look` is pure.

Limitation: one GPU for one server, the first that it sees. Pods are given whole devices, or MIG slices, by the cluster.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from canarium_api.model_types import Accelerator, ExecutionProvider, Precision
from canarium_runtime.errors import LoadError

_log = logging.getLogger(__name__)
_DRIVER_FILES: Final = ("nvidiactl", "nvidia0", "dxg")
"""Device files of NVIDIA's driver, by themselves or (dxg) through Windows' subsystem for Linux."""
_NONE_VISIBLE: Final = frozenset({"", "none", "void", "-1", "NoDevFiles"})

ProviderChoice = tuple[str, dict[str, Any]]
"""Name of an ONNX Runtime execution provider, and its options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device."""

    kind: str
    """`cpu` or `cuda`."""
    index: int = 0
    required: bool = False
    """Nothing else will do."""

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


CPU: Final = Device(kind="cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """What the process can see of GPUs."""

    driver: bool
    """A device file of the driver exists."""
    nvidia_devices: str | None = None
    """NVIDIA_VISIBLE_DEVICES: what the container runtime let in."""
    cuda_devices: str | None = None
    """CUDA_VISIBLE_DEVICES: what CUDA is told to see."""

    def missing(self) -> str | None:
        """Why no GPU can be used; None: one can, as far as this shows."""
        for name, value in (
            ("NVIDIA_VISIBLE_DEVICES", self.nvidia_devices),
            ("CUDA_VISIBLE_DEVICES", self.cuda_devices),
        ):
            if value is not None and value.strip() in _NONE_VISIBLE:
                return f"{name} is {value.strip()!r}"
        return None if self.driver else "no device file of NVIDIA's driver is in /dev"


def look(environ: Mapping[str, str], devices: Path = Path("/dev")) -> Visible:
    """See what this process can see."""
    return Visible(
        driver=any((devices / name).exists() for name in _DRIVER_FILES),
        nvidia_devices=environ.get("NVIDIA_VISIBLE_DEVICES"),
        cuda_devices=environ.get("CUDA_VISIBLE_DEVICES"),
    )


def choose(accelerator: Accelerator, visible: Visible) -> Device:
    """Choose the device.

    Raises:
        LoadError: AcceleratorUnavailable, when a GPU was asked for and none can be seen. Not permanent: the pod may
            come to another node.
    """
    if accelerator is Accelerator.NONE:
        return CPU
    missing = visible.missing()
    if missing is None:
        return Device(kind="cuda", required=accelerator is Accelerator.GPU)
    if accelerator is Accelerator.GPU:
        msg = (
            f"a GPU was asked for and none can be used: {missing}. Add nvidia.com/gpu to serving.resources.limits and "
            "check the node's driver and device plugin, or set serving.execution.accelerator to none."
        )
        raise LoadError("AcceleratorUnavailable", msg)
    _log.info("no GPU: the model runs on the CPU", extra={"reason": missing})
    return CPU


def library_lacks(device: Device, why: str) -> Device:
    """Give up a device that a library cannot use: the CPU instead, where that is allowed.

    Raises:
        LoadError: AcceleratorUnavailable, when nothing else will do.
    """
    if device.required:
        msg = (
            f"a GPU was asked for and {why}: use a runtime image made for GPUs (serving.image), or set "
            "serving.execution.accelerator to none"
        )
        raise LoadError("AcceleratorUnavailable", msg)
    _log.warning("the GPU is not used, the model runs on the CPU", extra={"reason": why})
    return CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """What the options of ONNX Runtime's execution providers are made from."""

    threads: int
    precision: Precision | None = None
    gpu_memory_bytes: int | None = None
    cache: Path
    """Where compiled engines are kept."""


_PROVIDERS: Final = {
    ExecutionProvider.CPU: "CPUExecutionProvider",
    ExecutionProvider.CUDA: "CUDAExecutionProvider",
    ExecutionProvider.TENSORRT: "TensorrtExecutionProvider",
    ExecutionProvider.OPENVINO: "OpenVINOExecutionProvider",
}
_ON_GPU: Final = frozenset({ExecutionProvider.CUDA, ExecutionProvider.TENSORRT})


def onnx_providers(
    asked: ExecutionProvider,
    device: Device,
    available: Sequence[str],
    settings: ProviderSettings,
) -> tuple[Device, list[ProviderChoice]]:
    """Choose ONNX Runtime's execution providers, the wanted one first; each takes what the one before it cannot run.

    TensorRT is never chosen unasked: it compiles for minutes at the first start.

    Args:
        asked: `auto`, or one of them.
        device: what `choose` chose.
        available: what the library was built with.
        settings: for their options.

    Returns:
        The device that it comes to, and the providers.

    Raises:
        LoadError: InvalidConfig, when the provider does not run on the device; AcceleratorUnavailable, when the library
            lacks it.
    """
    if asked is ExecutionProvider.AUTO:
        if device.kind == "cuda" and _PROVIDERS[ExecutionProvider.CUDA] not in available:
            device = library_lacks(device, "this ONNX Runtime was built without CUDA")
        asked = ExecutionProvider.CUDA if device.kind == "cuda" else ExecutionProvider.CPU
    elif (asked in _ON_GPU) != (device.kind == "cuda"):
        where = "a GPU" if asked in _ON_GPU else "the CPU"
        msg = (
            f"execution provider {asked} runs on {where}, and this server runs on {device}: change "
            "serving.execution.provider or serving.execution.accelerator"
        )
        raise LoadError("InvalidConfig", msg, permanent=True)
    if _PROVIDERS[asked] not in available:
        msg = (
            f"execution provider {asked} is not in this ONNX Runtime, which has {', '.join(available)}: use a runtime "
            "image that has it (serving.image), or set serving.execution.provider to auto"
        )
        raise LoadError("AcceleratorUnavailable", msg, permanent=True)
    chosen = [(_PROVIDERS[asked], _options(asked, device, settings))]
    if asked is ExecutionProvider.TENSORRT and _PROVIDERS[ExecutionProvider.CUDA] in available:
        cuda = _options(ExecutionProvider.CUDA, device, settings)
        chosen.append((_PROVIDERS[ExecutionProvider.CUDA], cuda))
    if asked is not ExecutionProvider.CPU:
        chosen.append((_PROVIDERS[ExecutionProvider.CPU], {}))
    return device, chosen


def _options(
    provider: ExecutionProvider, device: Device, settings: ProviderSettings
) -> dict[str, Any]:
    """Options by provider; their libraries want all values as text."""
    if provider is ExecutionProvider.CUDA:
        options = {
            "device_id": str(device.index),
            # Powers of two would take up to twice the memory, which models on one GPU share.
            "arena_extend_strategy": "kSameAsRequested",
            # The exhaustive search tries all algorithms anew for each new batch size.
            "cudnn_conv_algo_search": "HEURISTIC",
        }
        if settings.gpu_memory_bytes is not None:
            options["gpu_mem_limit"] = str(settings.gpu_memory_bytes)
        return options
    if provider is ExecutionProvider.TENSORRT:
        options = {
            "device_id": str(device.index),
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(settings.cache),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(settings.cache),
        }
        if settings.precision is not None:
            options[f"trt_{settings.precision}_enable"] = "True"
        if settings.gpu_memory_bytes is not None:
            options["trt_max_workspace_size"] = str(settings.gpu_memory_bytes)
        return options
    if provider is ExecutionProvider.OPENVINO:
        return {
            "device_type": "CPU",
            "num_of_threads": str(settings.threads),
            "cache_dir": str(settings.cache),
        }
    return {}
