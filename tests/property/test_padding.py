"""Padded together, each request gets the very answer that it gets alone; nothing is swapped."""

import asyncio
import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from canarium_api.padding import PaddingSpec
from canarium_runtime.backends.base import Array
from canarium_runtime.batching.batcher import Batcher
from canarium_runtime.batching.merge import Inputs, Outputs
from canarium_runtime.batching.padding import plan
from canarium_runtime.metrics import Metrics
from canarium_runtime.testing import FakeBackend, model_spec, run_batched, tensor

SPEC = model_spec(
    [tensor("x", "FP32", None, "T"), tensor("mask", "INT64", None, "T"), tensor("w", "FP32", None)],
    [tensor("total", "FP32", None), tensor("each", "FP32", None, "T")],
)
DECLARED = [PaddingSpec(input="x", value=7), PaddingSpec(input="mask")]


def model(inputs: Inputs) -> list[Array]:
    """Masks what is padded: a weighted sum of each row, and its running sum."""
    kept = inputs["x"] * inputs["mask"] * inputs["w"][:, None]
    return [kept.sum(axis=1), kept.cumsum(axis=1)]


@st.composite
def requests(draw: st.DrawFn) -> Inputs:
    rows, length = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    # Whole numbers, so that sums are exact in any order.
    numbers = st.lists(st.integers(-50, 50), min_size=rows * length, max_size=rows * length)
    flags = st.lists(st.integers(0, 1), min_size=rows * length, max_size=rows * length)
    weights = st.lists(st.integers(1, 9), min_size=rows, max_size=rows)
    return {
        "x": np.array(draw(numbers), np.float32).reshape(rows, length),
        "mask": np.array(draw(flags), np.int64).reshape(rows, length),
        "w": np.array(draw(weights), np.float32),
    }


@settings(max_examples=60, deadline=None)
@given(
    st.lists(requests(), min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(1, 7),
    st.permutations(["total", "each"]),
)
def test_a_padded_batch_answers_as_each_request_alone(
    sent: list[Inputs], multiple: int, max_rows: int, outputs: list[str]
) -> None:
    """Whatever is joined, split into parts, rounded up, and asked for."""
    declared = [d.model_copy(update={"multiple": multiple}) for d in DECLARED]
    padding = plan(declared, SPEC)
    assert padding is not None
    widths: list[int] = []

    def compute(inputs: Inputs) -> list[Array]:
        assert inputs["x"].shape == inputs["mask"].shape
        widths.append(inputs["x"].shape[1])
        return model(inputs)

    async def run() -> list[list[Array]]:
        batcher = Batcher(
            FakeBackend(SPEC, compute),
            capacity=20,
            max_rows=max_rows,
            max_delay_seconds=0.01,
            workers=1,
            observer=Metrics(deployment="n/m", model_version="1", revision="r"),
            padding=padding,
        )
        try:
            return [
                [*arrays]
                for arrays in await asyncio.gather(
                    *(
                        run_batched(
                            batcher,
                            inputs,
                            rows=len(inputs["x"]),
                            key=padding.key(inputs, tuple(outputs)),
                            outputs=outputs,
                            deadline=time.monotonic() + 30,
                        )
                        for inputs in sent
                    )
                )
            ]
        finally:
            batcher.close()

    for inputs, got in zip(sent, asyncio.run(run()), strict=True):
        alone = dict(zip(SPEC.output_names, model(inputs), strict=True))
        for name, array in zip(outputs, got, strict=True):
            assert array.shape == alone[name].shape
            np.testing.assert_array_equal(array, alone[name])
    assert all(width % multiple == 0 for width in widths)


@given(st.lists(requests(), min_size=1, max_size=6))
def test_rows_keep_their_order(sent: list[Inputs]) -> None:
    """What goes in as the n-th comes out as the n-th."""
    padding = plan(DECLARED, SPEC)
    assert padding is not None
    padded = padding.join(sent)
    lengths = {inputs["x"].shape[1] for inputs in sent}
    assert (padded is None) == (len(lengths) == 1)
    if padded is None:
        return
    pieces: list[Outputs] = padding.split([padded.inputs["x"]], ["each"], padded)
    for inputs, piece in zip(sent, pieces, strict=True):
        np.testing.assert_array_equal(piece.arrays[0], inputs["x"])
