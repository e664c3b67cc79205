"""What both a spec and a server say about a model.

Apart from the CRD's other types: those take long to import, and a server needs none of them.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from canarium_api.base import ApiModel


class ModelFormat(StrEnum):
    """Formats that the runtime can load."""

    ONNX = "onnx"
    """An ONNX file."""
    TORCH = "torch"
    """A program of torch.export (.pt2) or a TorchScript archive; never a pickle."""
    PYTHON = "python"
    """A Python class, in one file or a zip archive."""
    CHAIN = "chain"
    """A zip archive of steps, each of one of the other formats, and chain.toml."""


class Datatype(StrEnum):
    """Datatypes of the Open Inference Protocol."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"


class TensorDeclaration(ApiModel):
    """One input or output of a model whose file does not say what it takes and gives."""

    name: str = Field(min_length=1, max_length=256)
    """Name in requests and answers."""
    datatype: Datatype
    """Datatype."""
    shape: list[Annotated[int, Field(ge=-1)]] = Field(max_length=32)
    """Sizes; -1 is any size. The first is the number of rows, and -1 for a model whose requests may be joined."""


class Accelerator(StrEnum):
    """Whether a model runs on a GPU."""

    AUTO = "auto"
    """Where there is one."""
    GPU = "gpu"
    """On a GPU or not at all."""
    NONE = "none"
    """On the CPU."""


class ExecutionProvider(StrEnum):
    """What runs an ONNX model."""

    AUTO = "auto"
    """CUDA on a GPU, else the CPU provider."""
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """Datatype of a model's arithmetic."""

    FP16 = "fp16"
    BF16 = "bf16"
