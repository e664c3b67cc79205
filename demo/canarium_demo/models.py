"""Three versions of a model that reads handwritten digits, trained on the spot and exported to ONNX.

The data are the 1,797 scanned digits that come with scikit-learn. Two thirds train the models; the rest, which no model
has seen, become the requests. `python -m canarium_demo.models FOLDER` writes the versions as files.
"""

import argparse
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

from canarium_demo import cropping
from canarium_demo.cropping import Pixels

INPUT = "pixels"
"""Name of the input of all versions."""
PIXELS = cropping.SIDE**2
_SEED = 3
_HELD_OUT = 1 / 3
_OPSETS = {"": 17, "ai.onnx.ml": 3}


@dataclass(frozen=True, kw_only=True)
class Digits:
    """Images as rows of 64 pixels, 0 to 16 each, and the digits that they show."""

    train: Pixels
    train_labels: npt.NDArray[np.int64]
    held_out: Pixels
    held_out_labels: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """One version of the model."""

    version: str
    summary: str
    """What it is, in words."""
    content: bytes
    """The ONNX file."""
    score: float
    """Share of the held-out digits that it reads right, as its author's notebook says."""

    @property
    def sha256(self) -> str:
        """Digest of the file."""
        return hashlib.sha256(self.content).hexdigest()


def load_data() -> Digits:
    """Load the digits and put the requests aside."""
    pixels, labels = load_digits(return_X_y=True)
    train, held_out, train_labels, held_out_labels = train_test_split(
        pixels.astype(np.float32), labels, test_size=_HELD_OUT, random_state=_SEED, stratify=labels
    )
    return Digits(
        train=train,
        train_labels=train_labels,
        held_out=held_out,
        held_out_labels=held_out_labels,
    )


def train_v1(data: Digits) -> Artefact:
    """Make the first version: quick work that reads most digits."""
    forest = _forest(data.train, data.train_labels, trees=3, leaves=24)
    return Artefact(
        version="v1",
        summary="a forest of 3 small trees",
        content=_export(forest, INPUT, PIXELS).SerializeToString(),
        score=_score(forest, data.held_out, data.held_out_labels),
    )


def train_v2(data: Digits) -> Artefact:
    """Make the second version: more and larger trees, clearly better."""
    forest = _forest(data.train, data.train_labels, trees=30, leaves=50)
    return Artefact(
        version="v2",
        summary="a forest of 30 larger trees",
        content=_export(forest, INPUT, PIXELS).SerializeToString(),
        score=_score(forest, data.held_out, data.held_out_labels),
    )


def train_v3(data: Digits) -> Artefact:
    """Make the third version: it also sees the image cropped, and its export does that wrongly (see `cropping`)."""
    forest = _forest(cropping.add_cropped(data.train), data.train_labels, trees=40, leaves=60)
    inner = _export(forest, "features", cropping.FEATURES)
    return Artefact(
        version="v3",
        summary="40 trees, with the image cropped inside the model",
        content=cropping.with_cropping(inner).SerializeToString(),
        score=_score(forest, cropping.add_cropped(data.held_out), data.held_out_labels),
    )


TRAINERS: tuple[Callable[[Digits], Artefact], ...] = (train_v1, train_v2, train_v3)


def _forest(pixels: Pixels, labels: npt.NDArray[np.int64], *, trees: int, leaves: int) -> Any:
    forest = RandomForestClassifier(trees, max_leaf_nodes=leaves, random_state=_SEED)
    return forest.fit(pixels, labels)


def _score(forest: Any, pixels: Pixels, labels: npt.NDArray[np.int64]) -> float:
    return float(forest.score(pixels, labels))


def _export(forest: Any, name: str, columns: int) -> ModelProto:
    """Export with probabilities as one tensor: servers cannot carry scikit-learn's list of dictionaries."""
    model: ModelProto = to_onnx(
        forest,
        initial_types=[(name, FloatTensorType([None, columns]))],
        options={id(forest): {"zipmap": False}},
        target_opset=_OPSETS,
    )
    return model


def main(arguments: Sequence[str] | None = None) -> int:
    """Write all versions as FOLDER/vN.onnx."""
    parser = argparse.ArgumentParser(description="Train the demo's models and write them as files.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    data = load_data()
    for train in TRAINERS:
        artefact = train(data)
        path = folder / f"{artefact.version}.onnx"
        path.write_bytes(artefact.content)
        print(f"{path}  {len(artefact.content) / 1024:.0f} KiB  sha256 {artefact.sha256}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
