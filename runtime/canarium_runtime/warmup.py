"""Synthetic requests before the first real one, and what they tell about the model.

The first runs of a session allocate arenas and start threads, which would cost the first clients; and they show how
long a run takes and whether rows really are independent. A model whose answer for a row depends on the other rows
(a mean over the batch, a first axis that is time) must never be batched: its clients would see one another's data.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from canarium_runtime.backends.base import (
    DTYPES,
    Array,
    Backend,
    BackendError,
    InputError,
    ModelSpec,
    is_floating,
)
from canarium_runtime.errors import LoadError

_log = logging.getLogger(__name__)
_SEED = 20
_RELATIVE_TOLERANCE = 1e-3
_ABSOLUTE_TOLERANCE = 1e-4
_BF16_TOLERANCE = 2**-6
"""Two of its steps: it has eight bits of precision."""


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
        elif generator is not None and is_floating(dtype):
            inputs[tensor.name] = generator.standard_normal(shape).astype(dtype)
        else:
            inputs[tensor.name] = np.zeros(shape, dtype)
    return inputs


Inputs = Mapping[str, Array]


def warm_up(
    backend: Backend, *, requests: int, max_batch_size: int, examples: Sequence[Inputs] = ()
) -> Report:
    """Run requests at batch sizes from 1 to `max_batch_size`. Call in a worker thread.

    Args:
        backend: a loaded model.
        requests: how many; 0: none, and nothing is found out.
        max_batch_size: most rows.
        examples: inputs that the model has answered already. Their rows take the place of zeros, which a model may
            refuse, or take another way through.

    Raises:
        LoadError: WarmupFailed, when the model fails on zeros of its declared shapes, or on an example in a batch.
    """
    if requests == 0:
        return Report()
    spec = backend.spec
    names = spec.output_names
    sizes = np.linspace(1, max_batch_size if spec.batchable else 1, requests).astype(int)
    try:
        for size in sizes:
            backend.infer(_inputs(spec, int(size), examples), names)
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            backend.infer(_inputs(spec, 1, examples), names)
            seconds.append(time.perf_counter() - started)
    except BackendError as error:
        if not examples and (isinstance(error, InputError) or _has_free_axes(spec)):
            # Sizes of 1 may be too small for it (an image network), or it means to refuse: real requests will tell.
            _log.warning(
                "warm-up skipped: the model fails on zeros; declare requests in model.warmup.samples: %s",
                error,
            )
            return Report()
        what = "examples in a batch" if examples else "zeros of its own input shapes"
        msg = f"the model fails on {what}: {error}. Set model.warmup.requests to 0 if it must."
        raise LoadError("WarmupFailed", msg, permanent=True) from error
    independent = not spec.batchable or rows_are_independent(backend, examples)
    if not independent:
        _log.warning(
            "rows of this model depend on one another: requests are run one by one, never joined"
        )
    return Report(rows_independent=independent, seconds_per_run=sorted(seconds)[1])


def _has_free_axes(spec: ModelSpec) -> bool:
    skipped = 1 if spec.batchable else 0
    return any(not isinstance(d, int) for t in spec.inputs for d in t.shape[skipped:])


def _inputs(spec: ModelSpec, rows: int, examples: Sequence[Inputs]) -> Inputs:
    if not examples:
        return synthetic_inputs(spec, rows)
    if not spec.batchable:
        return examples[0]
    return {name: np.repeat(array[:1], rows, axis=0) for name, array in examples[0].items()}


def rows_are_independent(backend: Backend, examples: Sequence[Inputs] = ()) -> bool:
    """Whether two rows together give what each gives alone.

    Rows of examples are looked at first, then random ones. A model that refuses those is judged by zeros; one that
    refuses two rows cannot be batched.
    """
    spec = backend.spec
    pair = _pair_of(examples)
    if pair is not None and _told_apart(backend, pair) is False:
        return False
    for generator in (np.random.default_rng(_SEED), None):
        found = _told_apart(backend, synthetic_inputs(spec, 2, generator))
        if found is not None:
            return found
    return True


def _pair_of(examples: Sequence[Inputs]) -> Inputs | None:
    """Two rows that differ and could share a batch; None: there are none."""
    rows = [
        {name: array[i : i + 1] for name, array in inputs.items()}
        for inputs in examples
        for i in range(next(iter(inputs.values())).shape[0])
    ]
    for one in rows[:1]:
        for other in rows[1:]:
            if all(one[n].shape == other[n].shape for n in one) and any(
                not np.array_equal(one[n], other[n]) for n in one
            ):
                return {n: np.concatenate([one[n], other[n]]) for n in one}
    return None


def _told_apart(backend: Backend, pair: Inputs) -> bool | None:
    """Whether two rows get the same answers together as alone; None: the model refuses one alone."""
    names = backend.spec.output_names
    try:
        alone = [backend.infer({n: a[i : i + 1] for n, a in pair.items()}, names) for i in (0, 1)]
    except BackendError:
        return None
    try:
        together = backend.infer(pair, names)
    except BackendError:
        return False
    return all(
        _same_rows(both, (one, two)) for both, one, two in zip(together, *alone, strict=True)
    )


def _same_rows(both: Array, alone: Sequence[Array]) -> bool:
    if both.ndim == 0 or both.shape[0] != 2 or any(a.ndim == 0 or a.shape[0] != 1 for a in alone):
        return False
    expected = np.concatenate(alone)
    if expected.shape != both.shape:
        return False
    if is_floating(both.dtype):
        relative = _BF16_TOLERANCE if both.dtype == DTYPES["BF16"] else _RELATIVE_TOLERANCE
        one, other = both.astype(np.float64), expected.astype(np.float64)
        return bool(
            np.allclose(one, other, rtol=relative, atol=_ABSOLUTE_TOLERANCE, equal_nan=True)
        )
    return bool(np.array_equal(both, expected))
