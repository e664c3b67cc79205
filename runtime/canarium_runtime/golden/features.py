"""Samples of the features as the model gets them, and what they tell against a reference."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from canarium_api.golden import Thresholds
from canarium_runtime.backends.base import Array, ModelSpec
from canarium_runtime.golden import profile
from canarium_runtime.golden.layout import Layout, arrays_of, make_layout
from canarium_runtime.golden.profile import Feature, Sample, Words
from canarium_runtime.golden.table import DataError, Table

MAX_FEATURES: Final = 1000
"""Features that are described; of more, as many at even distances."""
Inputs = dict[str, Array]
Floats = NDArray[np.float64]


class Features:
    """Gathers samples of the features, as the model gets them."""

    def __init__(self, spec: ModelSpec, layout: Layout) -> None:
        self._spec = spec
        self._layout = layout
        self._words = {t.name: Words() for t in spec.inputs if t.datatype == "BYTES"}
        self._names: list[str] = []
        self._text: list[bool] = []
        self._chosen: NDArray[np.intp] | None = None
        self._sample: Sample | None = None

    def add(self, arrays: Inputs) -> None:
        """Take some rows of the golden data."""
        if self._sample is None:
            self._prepare(arrays)
            assert self._chosen is not None  # noqa: S101 - made just now
            self._sample = Sample(len(self._chosen))
        self._sample.add(self._flat(arrays))

    def _prepare(self, arrays: Inputs) -> None:
        for tensor in self._spec.inputs:
            columns = self._layout.inputs[tensor.name]
            width = int(np.prod(arrays[tensor.name].shape[1:], dtype=np.int64))
            if len(columns) == width:
                self._names += columns
            else:
                self._names += [f"{columns[0]}[{i}]" for i in range(width)]
            self._text += [tensor.datatype == "BYTES"] * width
        most = min(len(self._names), MAX_FEATURES)
        self._chosen = np.linspace(0, len(self._names) - 1, most).round().astype(np.intp)

    def _flat(self, arrays: Inputs) -> Floats:
        parts = []
        for tensor in self._spec.inputs:
            array = arrays[tensor.name].reshape(len(arrays[tensor.name]), -1)
            if tensor.name in self._words:
                words = self._words[tensor.name]
                parts.append(words.codes(array.ravel().tolist()).reshape(array.shape))
            else:
                parts.append(array.astype(np.float64))
        return np.concatenate(parts, axis=1)[:, self._chosen]

    def describe(
        self, reference: Table | None, thresholds: Thresholds
    ) -> tuple[list[Feature], int, int | None]:
        """Describe all features; gives how many there are in all, and the rows of the reference, too."""
        assert self._sample is not None  # noqa: S101 - there are rows
        assert self._chosen is not None  # noqa: S101
        base = None if reference is None else self._read(reference, thresholds)
        values = self._sample.values()
        other = None if base is None else base.values()
        features = [
            profile.profile(
                self._names[column],
                values[:, i],
                None if other is None else other[:, i],
                is_text=self._text[column],
                threshold=thresholds.drift.score,
                features=len(self._chosen),
            )
            for i, column in enumerate(self._chosen.tolist())
        ]
        return features, len(self._names), None if base is None else base.rows

    def _read(self, table: Table, thresholds: Thresholds) -> Sample:
        layout = make_layout(table, self._spec, thresholds, labelled=False)
        if layout.features != self._layout.features:
            raise DataError(
                f"{table.name}: its features {', '.join(layout.features[:8])} are not those of the golden data, "
                f"{', '.join(self._layout.features[:8])}: the order counts, too"
            )
        assert self._chosen is not None  # noqa: S101
        sample = Sample(len(self._chosen))
        for chunk in table.chunks():
            sample.add(self._flat(arrays_of(table, chunk, layout, self._spec)))
        return sample
