"""Join the rows of several requests into one run, and give each its rows of the results back.

Arrays have shape (rows, ...). A batch that is one whole request passes through untouched, which is also how models
without a batch axis are served.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from canarium_runtime.backends.base import Array, BackendError

Inputs = Mapping[str, Array]


def rows_of(inputs: Inputs, start: int, stop: int) -> Inputs:
    """Give some rows of a request."""
    return {name: array[start:stop] for name, array in inputs.items()}


def stack(requests: Sequence[Inputs]) -> Inputs:
    """Join requests along the first axis, in order.

    Args:
        requests: arrays by input name, all with the same names, dtypes and trailing shapes.
    """
    return {name: np.concatenate([inputs[name] for inputs in requests]) for name in requests[0]}


class Run:
    """What one run of the model gave: for all its rows, before anybody cuts it up.

    Args:
        outputs: arrays of shape (rows, ...), or of any shape where the run was for one request alone.
    """

    __slots__ = ("outputs", "texts")

    def __init__(self, outputs: Sequence[Array]) -> None:
        self.outputs = outputs
        self.texts: dict[object, object] = {}
        """What encoders have written of it, by encoder: writing all rows at once costs a fraction of each alone."""


class Outputs:
    """The part of a run that is one request's.

    Args:
        run: the run.
        start: its first row in the run.
        stop: one after its last; None: the whole run is this request's, whatever the shapes.
    """

    __slots__ = ("run", "start", "stop")

    def __init__(self, run: Run, start: int = 0, stop: int | None = None) -> None:
        self.run = run
        self.start = start
        self.stop = stop

    @property
    def arrays(self) -> Sequence[Array]:
        """The request's rows of each output."""
        if self.stop is None:
            return self.run.outputs
        return [array[self.start : self.stop] for array in self.run.outputs]

    @property
    def shares(self) -> bool:
        """Whether this is one row of several: an encoder does better to write the whole run."""
        return self.stop is not None and self.stop - self.start == 1


def split(outputs: Sequence[Array], counts: Sequence[int]) -> list[Outputs]:
    """Cut a run into parts of `counts` rows.

    Raises:
        BackendError: an output does not have one row for each row that went in.
    """
    total = sum(counts)
    for index, array in enumerate(outputs):
        if array.ndim == 0 or array.shape[0] != total:
            msg = f"output {index} has shape {list(array.shape)} for a batch of {total} rows"
            raise BackendError(msg)
    run = Run(outputs)
    pieces: list[Outputs] = []
    start = 0
    for count in counts:
        stop = start + count
        pieces.append(Outputs(run, start, stop))
        start = stop
    return pieces


def join_outputs(pieces: Sequence[Outputs]) -> Outputs:
    """Put the outputs of one request's parts together again, in row order."""
    columns = zip(*(p.arrays for p in pieces), strict=True)
    return Outputs(Run([np.concatenate(c) for c in columns]))
