"""Join the rows of several requests into one run, and give each its rows of the results back.

Arrays have shape (rows, ...). A batch that is one whole request passes through untouched, which is also how models
without a batch axis are served.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from canarium_runtime.backends.base import Array, BackendError

Inputs = Mapping[str, Array]


def stack(parts: Sequence[tuple[Inputs, slice | None]]) -> Inputs:
    """Join parts along the first axis, in order.

    Args:
        parts: arrays by input name, all with the same names, dtypes and trailing shapes, and the rows that are meant;
            None: the whole request.
    """
    if len(parts) == 1:
        inputs, rows = parts[0]
        return inputs if rows is None else {name: array[rows] for name, array in inputs.items()}
    return {
        name: np.concatenate(
            [inputs[name] if rows is None else inputs[name][rows] for inputs, rows in parts]
        )
        for name in parts[0][0]
    }


def split(outputs: Sequence[Array], counts: Sequence[int]) -> list[Sequence[Array]]:
    """Cut each output into runs of `counts` rows: one sequence of outputs for each part.

    Raises:
        BackendError: an output does not have one row for each row that went in.
    """
    total = sum(counts)
    for index, array in enumerate(outputs):
        if array.ndim == 0 or array.shape[0] != total:
            msg = f"output {index} has shape {list(array.shape)} for a batch of {total} rows"
            raise BackendError(msg)
    pieces: list[Sequence[Array]] = []
    start = 0
    for count in counts:
        stop = start + count
        pieces.append([array[start:stop] for array in outputs])
        start = stop
    return pieces


def join_outputs(pieces: Sequence[Sequence[Array]]) -> Sequence[Array]:
    """Put the outputs of one request's parts together again, in row order."""
    if len(pieces) == 1:
        return pieces[0]
    return [np.concatenate(columns) for columns in zip(*pieces, strict=True)]
