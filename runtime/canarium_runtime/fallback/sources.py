"""Where an answer comes from when the model does not give one: what all kinds offer, and the fixed answer.

Each kind (`other_model`, `other_server`) takes validated inputs and gives outputs of the same names, so that a client
sees the same shape of answer, with a mark that says who gave it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from canarium_api.runtime_config import FallbackEntry
from canarium_runtime.backends.base import DTYPES, Array, ModelSpec
from canarium_runtime.batching.batcher import Done
from canarium_runtime.batching.merge import Outputs, Run
from canarium_runtime.errors import ErrorKind, LoadError, ServingError
from canarium_runtime.validation import ValidatedInputs

Cancel = Callable[[], None]


class Fallback(Protocol):
    """Another way to an answer."""

    @property
    def name(self) -> str:
        """How answers and metrics call it."""
        ...

    @property
    def timeout_seconds(self) -> float | None:
        """How long it may take; None: as long as the request has."""
        ...

    def check(self, spec: ModelSpec) -> None:
        """See, before the model is served, whether this can stand in for it.

        Raises:
            LoadError: InvalidConfig.
        """
        ...

    def start(self, inputs: ValidatedInputs, deadline: float, done: Done) -> Cancel:
        """Begin to get an answer.

        Args:
            inputs: made for the model that failed.
            deadline: instant of `time.monotonic()`.
            done: called once with the outputs in the order of `inputs.outputs`, or a ServingError. Never called after
                the returned function was.

        Returns:
            Gives it up.

        Raises:
            ServingError: it cannot even begin; then `done` is not called.
        """
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


def _nothing() -> None:
    """Give up what is over already."""


class FixedAnswer:
    """The same outputs for each row.

    Args:
        outputs: one row of each output, by name; the whole output where the model has no rows.
        spec: gives the outputs of the model that it stands in for, once that is loaded.
    """

    name = "default"
    timeout_seconds = None

    def __init__(self, outputs: Mapping[str, Any], spec: Callable[[], ModelSpec]) -> None:
        self._outputs = outputs
        self._spec = spec

    def check(self, spec: ModelSpec) -> None:
        """See `Fallback`."""
        for output in spec.outputs:
            try:
                row = self._row(spec, output.name)
            except (ServingError, ValueError, TypeError, OverflowError) as error:
                text = f"the fixed answer of the fallbacks gives no {output.datatype} for {output.name!r}: {error}"
                raise LoadError("InvalidConfig", text, permanent=True) from error
            shape = output.shape[1:] if spec.batchable else output.shape
            fits = len(row.shape) == len(shape) and all(
                size == wanted or not isinstance(wanted, int)
                for size, wanted in zip(row.shape, shape, strict=True)
            )
            if not fits:
                what = "a row of the model's" if spec.batchable else "the model's"
                text = (
                    f"the fixed answer of the fallbacks has shape {list(row.shape)} for {output.name!r}, and {what} "
                    f"has {[d if isinstance(d, int) else -1 for d in shape]}: write the output as the model would"
                )
                raise LoadError("InvalidConfig", text, permanent=True)

    def start(self, inputs: ValidatedInputs, deadline: float, done: Done) -> Cancel:
        """See `Fallback`."""
        spec = self._spec()
        arrays: list[Array] = []
        for name in inputs.outputs:
            row = self._row(spec, name)
            if spec.batchable:
                row = np.broadcast_to(row, (inputs.rows, *row.shape)).copy()
            arrays.append(row)
        done(Outputs(Run(arrays)))
        return _nothing

    def _row(self, spec: ModelSpec, name: str) -> Array:
        if name not in self._outputs:
            text = f"the default answer has no output {name!r}"
            raise ServingError(ErrorKind.MODEL_FAILED, text)
        return np.array(self._outputs[name], DTYPES[spec.output_datatypes[name]])

    async def close(self) -> None:
        """See `Fallback`."""


def name_of(entry: FallbackEntry) -> str:
    """How answers and metrics call a fallback of the settings."""
    if entry.model is not None:
        return f"{entry.model}:{entry.version}" if entry.version else entry.model
    return host_of(entry.url) if entry.url is not None else FixedAnswer.name


def host_of(url: str) -> str:
    """Host that a URL names."""
    return urlsplit(url).hostname or ""
