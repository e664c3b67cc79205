"""The same little model in every format: y = x . [1, 10] and z = 2x, for rows of two floats.

Each maker writes an artefact and opens it. Exports of torch are made once for all tests: tracing takes seconds.
"""

import functools
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper

from canarium_api.v1alpha1 import ModelFormat
from canarium_runtime.backends import open_backend
from canarium_runtime.backends.base import Backend
from canarium_runtime.backends.options import Options
from canarium_runtime.testing import tensor, write_model

INPUTS = (tensor("x", "FP32", None, 2),)
OUTPUTS = (tensor("y", "FP32", None), tensor("z", "FP32", None, 2))

CODE = """
import numpy as np
from canarium_runtime.model import Tensor

class Model:
    inputs = [Tensor("x", "FP32", [-1, 2])]
    outputs = [Tensor("y", "FP32", [-1]), Tensor("z", "FP32", [-1, 2])]

    def predict(self, inputs):
        x = inputs["x"]
        return {"y": x @ np.array([1, 10], np.float32), "z": 2 * x}
"""
HALVES = """
from canarium_runtime.model import Tensor

class Halve:
    inputs = [Tensor("x", "FP32", [-1, 2])]
    outputs = [Tensor("half", "FP32", [-1, 2])]

    def predict(self, inputs):
        return {"half": inputs["x"] / 2}

class Double:
    inputs = [Tensor("y", "FP32", [-1])]
    outputs = [Tensor("y", "FP32", [-1])]

    def predict(self, inputs):
        return {"y": 2 * inputs["y"]}
"""
CHAIN = """
outputs = ["y", "z"]
[[steps]]
file = "halves.py"
format = "python"
entrypoint = "model:Halve"
[[steps]]
file = "linear.onnx"
format = "onnx"
inputs = {x = "half"}
outputs = {y = "half_y", z = "once"}
[[steps]]
file = "halves.py"
format = "python"
entrypoint = "model:Double"
inputs = {y = "half_y"}
[[steps]]
file = "linear.pt2"
format = "torch"
inputs = {x = "once"}
outputs = {y = "unused", z = "z"}
"""


class Linear(torch.nn.Module):
    """The model in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[1.0, 10.0]]))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Give y and z."""
        return {"y": self.linear(x).squeeze(-1), "z": 2 * x}


def write_onnx(path: Path) -> Path:
    """Write the ONNX file."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Squeeze", ["p", "axis"], ["y"]),
        helper.make_node("Add", ["x", "x"], ["z"]),
    ]
    weights = np.array([[1.0], [10.0]], np.float32)
    return write_model(
        path,
        nodes,
        [("x", TensorProto.FLOAT, ["N", 2])],
        [("y", TensorProto.FLOAT, ["N"]), ("z", TensorProto.FLOAT, ["N", 2])],
        {"w": weights, "axis": np.array([1], np.int64)},
    )


def export(module: torch.nn.Module, example: Mapping[str, Any], shapes: Any) -> Any:
    """Export a module with named inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(
            module.eval(), (), dict(example), dynamic_shapes=shapes, strict=False
        )


def save(program: Any, path: Path) -> Path:
    """Write a program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path)
    return path


@functools.cache
def _exported() -> Any:
    rows = torch.export.Dim("rows", min=1, max=4096)
    return export(Linear(), {"x": torch.ones(3, 2)}, {"x": {0: rows}})


def write_export(path: Path) -> Path:
    """Write the .pt2 file."""
    return save(_exported(), path)


def write_script(path: Path, module: torch.nn.Module | None = None) -> Path:
    """Write the TorchScript archive."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module or Linear().eval()), str(path))
    return path


def write_zip(path: Path, members: Mapping[str, str | bytes | Path]) -> Path:
    """Write an archive of texts, bytes and files."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.read_bytes() if isinstance(content, Path) else content)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a file."""
    path.write_text(text, encoding="utf-8")
    return path


def write_chain(folder: Path) -> Path:
    """Write a chain of a Python class, an ONNX model, another class and a torch program."""
    return write_zip(
        folder / "chain.zip",
        {
            "chain.toml": CHAIN,
            "halves.py": HALVES,
            "linear.onnx": write_onnx(folder / "linear.onnx"),
            "linear.pt2": write_export(folder / "linear.pt2"),
        },
    )


@dataclass(frozen=True)
class World:
    """One format."""

    platform: str
    format: ModelFormat
    write: Callable[[Path], Path]
    options: Mapping[str, Any] | None = None

    def open(self, folder: Path) -> Backend:
        """Write the model below a folder and open it."""
        options = Options(directory=folder / "work", **(self.options or {}))
        return open_backend(self.format, self.write(folder), options)


CODE_ALLOWED = {"allow_code": True}
WORLDS = {
    "onnx": World("onnx_onnxv1", ModelFormat.ONNX, lambda f: write_onnx(f / "m.onnx")),
    "torch.export": World("pytorch_export", ModelFormat.TORCH, lambda f: write_export(f / "m.pt2")),
    "TorchScript": World(
        "pytorch_torchscript",
        ModelFormat.TORCH,
        lambda f: write_script(f / "m.ts"),
        {"inputs": INPUTS, "outputs": OUTPUTS},
    ),
    "python file": World(
        "python", ModelFormat.PYTHON, lambda f: write_text(f / "m.py", CODE), CODE_ALLOWED
    ),
    "python archive": World(
        "python",
        ModelFormat.PYTHON,
        lambda f: write_zip(
            f / "m.zip", {"model.py": "from .inner import Model\n", "inner.py": CODE}
        ),
        CODE_ALLOWED,
    ),
    "chain": World("chain", ModelFormat.CHAIN, write_chain, CODE_ALLOWED),
}
