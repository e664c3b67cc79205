"""Each answer goes to its own request: the whole way through queue, merge, run and split."""

import asyncio
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from canarium_runtime.backends.base import Array
from canarium_runtime.batching import merge
from canarium_runtime.batching.batcher import Batcher
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.metrics import Metrics
from canarium_runtime.testing import FakeBackend, model_spec, run_batched, tensor


@dataclass(frozen=True)
class Wanted:
    """One request: how many rows of which width, which outputs, and whether the model fails on it."""

    rows: int
    width: int
    outputs: tuple[str, ...]
    poisoned: bool


requests = st.lists(
    st.builds(
        Wanted,
        rows=st.integers(1, 11),
        width=st.integers(1, 2),
        outputs=st.sampled_from([("sum",), ("twice", "sum")]),
        poisoned=st.booleans().filter(lambda b: b)
        | st.just(False)
        | st.just(False)
        | st.just(False),
    ),
    min_size=1,
    max_size=25,
)
SPEC = model_spec(
    [tensor("x", "FP32", None, None)],
    [tensor("sum", "FP32", None), tensor("twice", "FP32", None, None)],
)


def values_of(number: int, wanted: Wanted) -> Array:
    values = (
        np.arange(wanted.rows * wanted.width, dtype=np.float32).reshape(wanted.rows, wanted.width)
        + 1000 * number
    )
    if wanted.poisoned:
        values[-1, -1] = np.nan
    return values


async def run_all(
    all_wanted: list[Wanted], workers: int, inline: bool
) -> tuple[FakeBackend, list[object]]:
    backend = FakeBackend(SPEC, lambda inputs: [inputs["x"].sum(axis=1), inputs["x"] * 2])
    metrics = Metrics(deployment="n/m", model_version="1", revision="r")
    batcher = Batcher(
        backend,
        capacity=100,
        max_rows=4,
        max_delay_seconds=0.001,
        workers=workers,
        observer=metrics,
    )
    if inline:
        batcher.placement.observe(0.0)
    deadline = asyncio.get_running_loop().time() + 60
    answers = await asyncio.gather(
        *(
            run_batched(
                batcher,
                {"x": values_of(number, w)},
                rows=w.rows,
                key=(w.width, w.outputs),
                outputs=w.outputs,
                deadline=deadline,
            )
            for number, w in enumerate(all_wanted)
        ),
        return_exceptions=True,
    )
    batcher.close()
    return backend, list(answers)


@settings(max_examples=60, deadline=None)
@given(requests, st.integers(1, 3), st.booleans())
def test_every_request_gets_its_own_answer(
    all_wanted: list[Wanted], workers: int, inline: bool
) -> None:
    """Whatever shares a run: right rows, right outputs, right order; and only a request that fails is failed."""
    backend, answers = asyncio.run(run_all(all_wanted, workers, inline))
    for number, (wanted, answer) in enumerate(zip(all_wanted, answers, strict=True)):
        if wanted.poisoned:
            assert isinstance(answer, ServingError)
            assert answer.kind is ErrorKind.MODEL_FAILED
            continue
        values = values_of(number, wanted)
        expected = {"sum": values.sum(axis=1), "twice": values * 2}
        assert isinstance(answer, (list, tuple))
        assert len(answer) == len(wanted.outputs)
        for name, array in zip(wanted.outputs, answer, strict=True):
            np.testing.assert_array_equal(array, expected[name])
    assert max(backend.batch_rows) <= 4


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_split_undoes_stack(counts: list[int]) -> None:
    """Rows come back to the part that brought them."""
    arrays = [np.arange(n * 2).reshape(n, 2) + 100 * i for i, n in enumerate(counts)]
    stacked = merge.stack([{"x": a} for a in arrays])
    for piece, array in zip(merge.split([stacked["x"]], counts), arrays, strict=True):
        np.testing.assert_array_equal(piece.arrays[0], array)
