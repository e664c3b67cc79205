"""`Options`: what a backend is opened with, whatever its format."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from canarium_api.model_types import ExecutionProvider, Precision
from canarium_runtime.backends.base import TensorSpec
from canarium_runtime.backends.devices import CPU, Device

DEFAULT_ENTRYPOINT = "model:Model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to open a model."""

    threads: int = 1
    """Threads for one run of the model."""
    device: Device = CPU
    """What it runs on."""
    provider: ExecutionProvider = ExecutionProvider.AUTO
    """ONNX: which execution provider."""
    precision: Precision | None = None
    """Arithmetic in 16 bits; None: the model's own."""
    compiled: bool = False
    """torch: compile it."""
    gpu_memory_bytes: int | None = None
    """ONNX: most memory that the GPU's arena takes; None: no limit."""
    inputs: tuple[TensorSpec, ...] = ()
    """Declared inputs, for a model that says nothing of them."""
    outputs: tuple[TensorSpec, ...] = ()
    """Declared outputs, likewise."""
    allow_code: bool = False
    """Whether Python code of the artefact may run."""
    entrypoint: str = DEFAULT_ENTRYPOINT
    """`module:Class` of a Python model."""
    directory: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    """Where archives are unpacked and compiled engines are kept."""
    max_bytes: int = 16 * 1024**3
    """Most bytes that an archive may unpack to."""
