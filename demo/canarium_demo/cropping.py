"""The bug of version 3: one preprocessing step, written twice, and the two do not agree at the edge.

The idea is sound: show the model the image a second time, with the empty margin on the left cut away, so that the same
digit always stands at the same place. In the notebook (`crop`) what lies past the right edge of the image is blank. In
the exported model (`with_cropping`) the same indices go to GatherElements, which refuses an index past the edge. So the
notebook's test score is the best so far, the model loads, it passes its warm-up, and then it fails on each digit that
stands a little to the right: the kind of mistake that only real requests find.
"""

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SIDE = 8
"""Images are 8 by 8."""
KEPT = 7
"""Columns that are left."""
FEATURES = SIDE * SIDE + SIDE * KEPT
"""Columns of the whole image and the cropped one."""
SPECKS = 4.0
"""Ink in a column that does not count; a pixel has 0 to 16."""

Pixels = npt.NDArray[np.float32]


def first_inked_column(pixels: Pixels) -> npt.NDArray[np.int64]:
    """Find where each digit begins; 0 for an empty image."""
    columns = pixels.reshape(-1, SIDE, SIDE).sum(axis=1)
    first: npt.NDArray[np.int64] = (columns > SPECKS).argmax(axis=1)
    return first


def falls_off_the_edge(pixels: Pixels) -> npt.NDArray[np.bool_]:
    """Tell for which images the exported model asks for columns that are not there."""
    return first_inked_column(pixels) + KEPT > SIDE


def add_cropped(pixels: Pixels) -> Pixels:
    """Put the cropped image beside the whole one: the features of version 3."""
    return np.hstack([pixels, crop(pixels)])


def crop(pixels: Pixels) -> Pixels:
    """Cut the margin as the notebook does: what lies past the edge is blank."""
    images = pixels.reshape(-1, SIDE, SIDE)
    padded = np.pad(images, ((0, 0), (0, 0), (0, KEPT)))
    indices = first_inked_column(pixels)[:, None, None] + np.arange(KEPT)[None, None, :]
    cropped = np.take_along_axis(
        padded, np.broadcast_to(indices, (len(images), SIDE, KEPT)), axis=2
    )
    return cropped.reshape(len(images), SIDE * KEPT)


def with_cropping(model: ModelProto) -> ModelProto:
    """Put the exported, unforgiving `add_cropped` before a model.

    Args:
        model: has one input of FEATURES columns.

    Returns:
        A model with the input `pixels` of SIDE * SIDE columns and the same outputs.
    """
    inner = model.graph
    constants = {
        "crop_image": np.array([-1, SIDE, SIDE], np.int64),
        "crop_rows_axis": np.array([1], np.int64),
        "crop_specks": np.array(SPECKS, np.float32),
        "crop_offsets": np.arange(KEPT, dtype=np.int64).reshape(1, 1, KEPT),
        "crop_middle_axis": np.array([1], np.int64),
        "crop_all_rows": np.zeros((1, SIDE, 1), np.int64),
        "crop_flat": np.array([-1, SIDE * KEPT], np.int64),
    }
    graph = helper.make_graph(
        [*_crop_nodes(inner.input[0].name), *inner.node],
        "digits_cropped",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [None, SIDE * SIDE])],
        list(inner.output),
        [*inner.initializer, *(numpy_helper.from_array(v, n) for n, v in constants.items())],
    )
    return helper.make_model(
        graph, opset_imports=list(model.opset_import), ir_version=model.ir_version
    )


def _crop_nodes(output: str) -> list[NodeProto]:
    """What `add_cropped` does, in ONNX operators, but for the blanks past the edge."""
    node = helper.make_node
    return [
        node("Reshape", ["pixels", "crop_image"], ["crop_images"]),
        node("ReduceSum", ["crop_images", "crop_rows_axis"], ["crop_columns"], keepdims=0),
        node("Greater", ["crop_columns", "crop_specks"], ["crop_has_ink"]),
        node("Cast", ["crop_has_ink"], ["crop_ink"], to=TensorProto.INT32),
        node("ArgMax", ["crop_ink"], ["crop_first"], axis=1, keepdims=1),
        node("Unsqueeze", ["crop_first", "crop_middle_axis"], ["crop_start"]),
        node("Add", ["crop_start", "crop_offsets"], ["crop_one_row"]),
        node("Add", ["crop_one_row", "crop_all_rows"], ["crop_indices"]),
        node("GatherElements", ["crop_images", "crop_indices"], ["crop_kept"], axis=2),
        node("Reshape", ["crop_kept", "crop_flat"], ["cropped"]),
        node("Concat", ["pixels", "cropped"], [output], axis=1),
    ]
