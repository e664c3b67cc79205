"""ONNX Runtime behind the Backend protocol, with models made on the spot."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from canarium_api.v1alpha1 import ModelFormat
from canarium_runtime.backends import open_backend
from canarium_runtime.backends.base import DTYPES, BackendError, Dimension, is_batchable
from canarium_runtime.backends.onnx import open_onnx
from canarium_runtime.backends.options import Options
from canarium_runtime.errors import LoadError
from canarium_runtime.testing import echo_model, linear_model, tensor, write_model

OPTIONS = Options()
ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def test_a_model_runs(tmp_path: Path) -> None:
    """Specs come from the file, and rows give their values."""
    backend = open_backend(ModelFormat.ONNX, linear_model(tmp_path / "m.onnx"), OPTIONS)
    assert backend.spec.platform == "onnx_onnxv1"
    assert backend.spec.inputs == (tensor("x", "FP32", "N", 2),)
    assert backend.spec.outputs == (tensor("y", "FP32", "N"),)
    assert backend.spec.batchable
    assert backend.spec.inputs[0].wire_shape == [-1, 2]
    (answer,) = backend.infer({"x": np.array([[3, 4], [1, 0]], np.float32)}, ["y"])
    assert answer.tolist() == [43, 1]
    backend.close()


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_every_datatype_goes_through(tmp_path: Path, datatype: str) -> None:
    """All tensor types of the protocol, strings too."""
    backend = open_onnx(echo_model(tmp_path / "m.onnx", ONNX_TYPES[datatype], None), OPTIONS)
    assert backend.spec.inputs[0].datatype == datatype
    value: Any = {"BOOL": True, "BYTES": "grün"}.get(datatype, 3)
    (answer,) = backend.infer({"x": np.array([value, value], DTYPES[datatype])}, ["y"])
    assert answer.tolist() == [value, value]


def test_a_failing_run_is_a_backend_error(tmp_path: Path) -> None:
    """The library's own exceptions do not leak."""
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    path = write_model(
        tmp_path / "m.onnx",
        [node],
        [("x", TensorProto.FLOAT, ["N", 2])],
        [("y", TensorProto.FLOAT, ["M"])],
        {"shape": np.array([2], np.int64)},
    )
    with pytest.raises(BackendError):
        open_onnx(path, OPTIONS).infer({"x": np.zeros((3, 2), np.float32)}, ["y"])


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08\x12\x00" * 100])
def test_an_unreadable_file_says_so(tmp_path: Path, content: bytes) -> None:
    """World: some bytes; world: a permanent failure with a remedy."""
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(LoadError, match="complete ONNX model") as caught:
        open_onnx(path, OPTIONS)
    assert (caught.value.failure.reason, caught.value.failure.permanent) == (
        "ModelUnreadable",
        True,
    )


def test_sklearns_zipmap_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """The default export of a scikit-learn classifier gives a list of maps, which no tensor protocol carries."""
    maps = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    )
    graph = helper.make_graph(
        [helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_value_info("y", helper.make_sequence_type_proto(maps))],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path = tmp_path / "m.onnx"
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    with pytest.raises(LoadError, match="'zipmap': False") as caught:
        open_onnx(path, OPTIONS)
    assert (caught.value.failure.reason, caught.value.failure.permanent) == (
        "ModelUnsupported",
        True,
    )


def test_a_type_without_a_datatype_is_refused(tmp_path: Path) -> None:
    """The protocol has no complex numbers."""
    path = echo_model(tmp_path / "m.onnx", TensorProto.COMPLEX64, None)
    with pytest.raises(LoadError) as caught:
        open_onnx(path, OPTIONS)
    assert caught.value.failure.reason in {"ModelUnsupported", "ModelUnreadable"}
    assert caught.value.failure.permanent


@pytest.mark.parametrize(
    ("inputs", "outputs", "batchable"),
    [
        pytest.param([("N", 3)], [("N",)], True, id="the same name"),
        pytest.param([(None, 3)], [(None, 2)], True, id="no names"),
        pytest.param(
            [("N", 3), ("N", 2)], [("N",), ()], True, id="an output without a shape says nothing"
        ),
        pytest.param([(1, 3)], [(1,)], False, id="a fixed input"),
        pytest.param([("N", 3)], [(1,)], False, id="a fixed output"),
        pytest.param([("N", 3), ("M", 3)], [("N",)], False, id="another name: rows and tokens"),
        pytest.param([("N", 3)], [("M",)], False, id="an output with another name"),
        pytest.param([()], [("N",)], False, id="a scalar input"),
        pytest.param([], [("N",)], False, id="no inputs"),
    ],
)
def test_only_a_common_free_first_axis_can_be_batched(
    inputs: list[tuple[Dimension, ...]], outputs: list[tuple[Dimension, ...]], batchable: bool
) -> None:
    """World: shapes; world: whether requests may be joined."""
    assert is_batchable(
        [tensor("x", "FP32", *s) for s in inputs], [tensor("y", "FP32", *s) for s in outputs]
    ) == (batchable)
