"""The three models, always the same, and one sample with its answer for each. Runs in the tools' environment.

`python -m benchmarks.runtime.models FOLDER` writes `T.onnx`, `T.json` and so on. All have one input `x` [N, columns]
and one output `y` [N, classes], both FP32.

T  logistic regression, 30 features: what a server costs beside a model that costs nothing.
M  MLP 256 -> 1024 -> 1024 -> 16: batching saves nine tenths of its time.
L  8 dense layers of 1024, each with GELU and layer norm, and 16 outputs: the cores decide.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

OPSET = 20
IR_VERSION = 9
SEED = 20
CLASSES = 16


class Layers:
    """Builds a chain of layers from `x` to `y`, with weights from one generator."""

    def __init__(self, columns: int) -> None:
        self.columns = self.width = columns
        self._random = np.random.default_rng(SEED)
        self._nodes: list[NodeProto] = []
        self._weights: list[TensorProto] = []
        self._last = "x"

    def dense(self, width: int) -> None:
        """Add x W + b, scaled so that values keep their size from layer to layer."""
        scale = (2 / self.width) ** 0.5
        weights = self._random.standard_normal((self.width, width)) * scale
        bias = self._random.standard_normal(width) * 0.1
        self._add("Gemm", [self._weight(weights), self._weight(bias)])
        self.width = width

    def layer_norm(self) -> None:
        """Add a layer norm over the last axis."""
        scale = 1 + self._random.standard_normal(self.width) * 0.1
        bias = self._random.standard_normal(self.width) * 0.1
        self._add("LayerNormalization", [self._weight(scale), self._weight(bias)], axis=-1)

    def apply(self, operator: str) -> None:
        """Add an elementwise operator."""
        self._add(operator, [])

    def model(self, name: str) -> ModelProto:
        """Make the model of what was added."""
        self._nodes[-1].output[0] = "y"
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", self.columns])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", self.width])],
            self._weights,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        checker.check_model(made, full_check=True)
        return made

    def _weight(self, values: Any) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def _add(self, operator: str, weights: list[str], **attributes: Any) -> None:
        output = f"h{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(operator, [self._last, *weights], [output], **attributes)
        )
        self._last = output


def model_t() -> ModelProto:
    """Make T."""
    layers = Layers(30)
    layers.dense(1)
    layers.apply("Sigmoid")
    return layers.model("T")


def model_m() -> ModelProto:
    """Make M."""
    layers = Layers(256)
    for width in (1024, 1024):
        layers.dense(width)
        layers.apply("Relu")
    layers.dense(CLASSES)
    return layers.model("M")


def model_l() -> ModelProto:
    """Make L."""
    layers = Layers(1024)
    for _ in range(8):
        layers.dense(1024)
        layers.apply("Gelu")
        layers.layer_norm()
    layers.dense(CLASSES)
    return layers.model("L")


def model_s() -> ModelProto:
    """Make the soak test's: y = x . [1, 10], exact for whole numbers up to 2**24, so each input has its own answer."""
    weights = numpy_helper.from_array(np.array([[1.0], [10.0]], np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "S",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [weights],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


MODELS = {"T": model_t, "M": model_m, "L": model_l, "S": model_s}


def write(folder: Path) -> None:
    """Write all models and their samples."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MODELS.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(make().SerializeToString())
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        columns = session.get_inputs()[0].shape[1]
        # Three digits, as clients send them: random doubles with 17 would measure the JSON parsers' worst case.
        row = np.random.default_rng(SEED).standard_normal((1, columns)).round(3)
        (expected,) = session.run(["y"], {"x": row.astype(np.float32)})
        sample = {"row": row[0].tolist(), "expected": expected[0].tolist()}
        (folder / f"{name}.json").write_text(json.dumps(sample))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
