"""Tiny ONNX models, made on the spot: one that is right, one that fails on some inputs, one that is slow."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

FEATURES = 4


@dataclass(frozen=True)
class Artefact:
    """A model's bytes."""

    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def config_map(self, name: str, namespace: str) -> dict[str, object]:
        """Wrap it as a ConfigMap with the key model.onnx."""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
            "binaryData": {"model.onnx": base64.b64encode(self.content).decode()},
        }


def _model(
    nodes: list[object],
    constants: dict[str, np.ndarray],
    features: int = FEATURES,
    *,
    output: str = "score",
    columns: int = 1,
) -> Artefact:
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, columns])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model: ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    return Artefact(model.SerializeToString())


@cache
def good(seed: int) -> Artefact:
    """Make a linear model; another seed gives other weights, hence another revision."""
    weights = np.random.default_rng(seed).normal(size=(FEATURES, 1)).astype(np.float32)
    return _model([helper.make_node("MatMul", ["input", "w"], ["score"])], {"w": weights})


@cache
def wider() -> Artefact:
    """Make a model that wants one feature more than its clients send."""
    weights = np.ones((FEATURES + 1, 1), dtype=np.float32)
    node = helper.make_node("MatMul", ["input", "w"], ["score"])
    return _model([node], {"w": weights}, FEATURES + 1)


@cache
def failing() -> Artefact:
    """Make a model whose preprocessing breaks when the first feature is 1 or more: an index out of bounds."""
    return _model(
        [
            helper.make_node("Gather", ["input", "first"], ["feature"], axis=1),
            helper.make_node("Cast", ["feature"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["score"], axis=0),
        ],
        {"first": np.array([0], dtype=np.int64), "table": np.array([0.5], dtype=np.float32)},
    )


@cache
def slow(size: int = 768) -> Artefact:
    """Make a model that multiplies big matrices for nothing, tens of milliseconds of one core."""
    nodes = [
        helper.make_node("MatMul", ["input", "w"], ["linear"]),
        helper.make_node("ReduceSum", ["linear"], ["total"], keepdims=1),
        # The matrix is made by the model itself: a file with it would be too large for a ConfigMap.
        helper.make_node("ConstantOfShape", ["shape"], ["ones"]),
        helper.make_node("Add", ["ones", "total"], ["m0"]),
        *(helper.make_node("MatMul", [f"m{n}", "m0"], [f"m{n + 1}"]) for n in range(4)),
        helper.make_node("ReduceMean", ["m4"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["linear", "nothing"], ["score"]),
    ]
    weights = np.full((FEATURES, 1), 0.001, dtype=np.float32)
    shape = np.array([size, size], dtype=np.int64)
    return _model(nodes, {"w": weights, "shape": shape, "zero": np.array(0, dtype=np.float32)})


@cache
def classifier(*, strange: bool = False) -> Artefact:
    """Make a model of two classes; the strange one turns its scores around where the first feature is 1 or more."""
    weights = np.array([[0, 0], [1, -1], [1, -1], [1, -1]], dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["input", "w"], ["plain"])]
    if strange:
        nodes += [
            helper.make_node("Gather", ["input", "first"], ["feature"], axis=1),
            helper.make_node("Less", ["feature", "one"], ["usual"]),
            helper.make_node("Neg", ["plain"], ["turned"]),
            helper.make_node("Where", ["usual", "plain", "turned"], ["scores"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["plain"], ["scores"]))
    constants = {"w": weights}
    if strange:
        constants |= {"first": np.array([0], dtype=np.int64), "one": np.array(1, dtype=np.float32)}
    return _model(nodes, constants, output="scores", columns=2)
