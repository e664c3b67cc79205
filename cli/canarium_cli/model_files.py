"""What a model's file says of itself: its format, its digest, and, for ONNX, its inputs and outputs."""

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, Final

from canarium_cli.drafting import ModelFile

_FORMATS: Final = {".onnx": "onnx", ".pt2": "torch", ".pt": "torch"}
_PICKLES: Final = (".pkl", ".pickle", ".joblib", ".pth", ".bin", ".ckpt", ".h5", ".keras")
_TYPES: Final = {
    "float": "FP32",
    "double": "FP64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "string": "BYTES",
    "bool": "BOOL",
}
"""ONNX' names of types in the Open Inference Protocol; integers have theirs in capitals."""


class InitError(Exception):
    """No manifest can be written; the message says what to do."""


def read(path: Path) -> ModelFile:
    """Read a model's file.

    Raises:
        InitError: it is not there, or not of a format that is served.
    """
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise InitError(
            f"{path}: files of this kind run code when they are loaded, or are read by their framework alone, and are "
            "refused: export the model to ONNX (scikit-learn: skl2onnx; torch: torch.export to .pt2), see "
            "docs/tutorial/first-canary.md and docs/howto/serve-torch-models.md"
        )
    if suffix not in _FORMATS:
        kinds = ", ".join(_FORMATS)
        raise InitError(
            f"{path}: its name does not end in one of {kinds}, which are what is served from a file"
        )
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InitError(f"{path}: {error.strerror}") from error
    inputs, outputs = _signature(path) if suffix == ".onnx" else ((), ())
    return ModelFile(
        path=path.absolute(),
        format=_FORMATS[suffix],
        sha256=digest,
        size=size,
        inputs=inputs,
        outputs=outputs,
    )


def _signature(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if importlib.util.find_spec("onnxruntime") is None:
        print(
            "canarium init: inputs and outputs are not read, since onnxruntime is missing: "
            "pip install 'canarium[onnx]'",
            file=sys.stderr,
        )
        return (), ()
    import onnxruntime as ort  # only this needs it

    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises a class of its own for each status
        raise InitError(f"{path} cannot be read as an ONNX model: {error}") from error
    return (
        tuple(_tensor(tensor) for tensor in session.get_inputs()),
        tuple(_tensor(tensor) for tensor in session.get_outputs()),
    )


def _tensor(tensor: Any) -> str:
    word = str(tensor.type).removeprefix("tensor(").removesuffix(")")
    shape = ", ".join(str(size) if isinstance(size, int) else "?" for size in tensor.shape)
    return f"{tensor.name} {_TYPES.get(word, word.upper())} [{shape}]"
