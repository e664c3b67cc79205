"""Synthetic requests before the first real one, and what they tell about the model.

The first runs of a session allocate arenas and start threads, which would cost the first clients; and they show how
long a run takes and whether rows really are independent. A model whose answer for a row depends on the other rows
(a mean over the batch, a first axis that is time) must never be batched: its clients would see one another's data.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from canarium_runtime.backends.base import DTYPES, Array, Backend, BackendError, ModelSpec
from canarium_runtime.errors import LoadError

_log = logging.getLogger(__name__)
_SEED = 20
_RELATIVE_TOLERANCE = 1e-3
_ABSOLUTE_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the warm-up found out."""

    rows_independent: bool = True
    """Joining rows of several requests changes no answer, as far as two rows can show."""
    seconds_per_run: float | None = None
    """Median time of one run with one row; None: no warm-up."""


def synthetic_inputs(
    spec: ModelSpec, rows: int, generator: np.random.Generator | None = None
) -> dict[str, Array]:
    """Make inputs of the declared shapes; other dimensions of any size are 1.

    Args:
        spec: the model's specs.
        rows: first axis, where the model can be batched.
        generator: source of floats; None: zeros. Other datatypes are always zeros, as they may be indices.
    """
    inputs: dict[str, Array] = {}
    for tensor in spec.inputs:
        shape = [d if isinstance(d, int) else 1 for d in tensor.shape]
        if spec.batchable:
            shape[0] = rows
        dtype = DTYPES[tensor.datatype]
        if dtype.kind == "O":
            inputs[tensor.name] = np.full(shape, "", dtype)
        elif generator is not None and dtype.kind == "f":
            inputs[tensor.name] = generator.standard_normal(shape).astype(dtype)
        else:
            inputs[tensor.name] = np.zeros(shape, dtype)
    return inputs


def warm_up(backend: Backend, *, requests: int, max_batch_size: int) -> Report:
    """Run synthetic requests at batch sizes from 1 to `max_batch_size`. Call in a worker thread.

    Args:
        backend: a loaded model.
        requests: how many; 0: none, and nothing is found out.
        max_batch_size: most rows.

    Raises:
        LoadError: WarmupFailed, when the model fails on zeros of its declared shapes.
    """
    if requests == 0:
        return Report()
    spec = backend.spec
    names = spec.output_names
    sizes = np.linspace(1, max_batch_size if spec.batchable else 1, requests).astype(int)
    try:
        for size in sizes:
            backend.infer(synthetic_inputs(spec, int(size)), names)
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            backend.infer(synthetic_inputs(spec, 1), names)
            seconds.append(time.perf_counter() - started)
    except BackendError as error:
        if any(
            not isinstance(d, int)
            for t in spec.inputs
            for d in t.shape[1 if spec.batchable else 0 :]
        ):
            # Sizes of 1 may be too small for it (an image network, say); real requests will tell.
            _log.warning(
                "warm-up skipped: the model has axes of any size and fails on size 1: %s", error
            )
            return Report()
        msg = f"the model fails on zeros of its own input shapes: {error}. Set model.warmup.requests to 0 if it must."
        raise LoadError("WarmupFailed", msg, permanent=True) from error
    independent = not spec.batchable or rows_are_independent(backend)
    if not independent:
        _log.warning(
            "rows of this model depend on one another: requests are run one by one, never joined"
        )
    return Report(rows_independent=independent, seconds_per_run=sorted(seconds)[1])


def rows_are_independent(backend: Backend) -> bool:
    """Whether two rows together give what each gives alone.

    A model that refuses random numbers is judged by zeros; one that refuses two rows cannot be batched.
    """
    spec = backend.spec
    for generator in (np.random.default_rng(_SEED), None):
        pair = synthetic_inputs(spec, 2, generator)
        try:
            alone = [
                backend.infer({n: a[i : i + 1] for n, a in pair.items()}, spec.output_names)
                for i in (0, 1)
            ]
        except BackendError:
            continue
        try:
            together = backend.infer(pair, spec.output_names)
        except BackendError:
            return False
        return all(
            _same_rows(both, (one, two)) for both, one, two in zip(together, *alone, strict=True)
        )
    return True


def _same_rows(both: Array, alone: Sequence[Array]) -> bool:
    if both.ndim == 0 or both.shape[0] != 2 or any(a.ndim == 0 or a.shape[0] != 1 for a in alone):
        return False
    expected = np.concatenate(alone)
    if expected.shape != both.shape:
        return False
    if both.dtype.kind in "fc":
        return bool(
            np.allclose(
                both, expected, rtol=_RELATIVE_TOLERANCE, atol=_ABSOLUTE_TOLERANCE, equal_nan=True
            )
        )
    return bool(np.array_equal(both, expected))
