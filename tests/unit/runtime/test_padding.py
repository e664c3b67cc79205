"""Padding: what can be declared of a model, which requests share a run, and what is refused."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from canarium_api.padding import PaddingSpec
from canarium_runtime.backends.base import BackendError, ModelSpec
from canarium_runtime.batching import padding as module
from canarium_runtime.batching.padding import plan
from canarium_runtime.errors import LoadError
from canarium_runtime.testing import FakeBackend, make_service, model_spec, tensor
from canarium_runtime.validation import RawTensor, validate

TEXT = model_spec([tensor("x", "FP32", None, "T")], [tensor("y", "FP32", None)])
IDS = model_spec([tensor("ids", "INT64", None, "T")], [tensor("y", "FP32", None, "T", 3)])
UNNAMED = model_spec([tensor("x", "FP32", None, None)], [tensor("y", "FP32", None, None)])
TWO = model_spec(
    [tensor("x", "FP32", None, "T"), tensor("mask", "FP32", None, "T")], [tensor("y", "FP32", None)]
)


def declare(*entries: dict[str, Any]) -> list[PaddingSpec]:
    return [PaddingSpec.model_validate(e) for e in entries]


def test_shapes_are_equal_but_for_the_padded_axis() -> None:
    """Then requests may share a run; and only if they want the same outputs."""
    padding = plan(declare({"input": "x"}), TEXT)
    assert padding is not None
    short, long = {"x": np.zeros((1, 3))}, {"x": np.zeros((2, 9))}
    assert padding.key(short, ("y",)) == padding.key(long, ("y",))
    assert padding.key(short, ("y",)) != padding.key(short, ())


def test_inputs_are_filled_up_behind_and_outputs_cut_back() -> None:
    """The example of the module."""
    padding = plan(declare({"input": "ids", "value": 9, "multiple": 4}), IDS)
    assert padding is not None
    padded = padding.join([{"ids": np.array([[1, 2, 3]])}, {"ids": np.array([[4] * 5, [5] * 5])}])
    assert padded is not None
    assert padded.inputs["ids"].tolist() == [
        [1, 2, 3, 9, 9, 9, 9, 9],
        [4, 4, 4, 4, 4, 9, 9, 9],
        [5, 5, 5, 5, 5, 9, 9, 9],
    ]
    pieces = padding.split([np.zeros((3, 8, 3), np.float32)], ["y"], padded)
    assert [p.arrays[0].shape for p in pieces] == [(1, 3, 3), (2, 5, 3)]


@pytest.mark.parametrize(
    ("model", "entries", "words"),
    [
        (TEXT, [{"input": "z"}], "names the input 'z': the model has"),
        (TEXT, [{"input": "x", "axis": 2}], "axis 2 of the input 'x'"),
        (IDS, [{"input": "ids", "value": 0.5}], "use a value that fits"),
        (IDS, [{"input": "ids", "value": 1e30}], "use a value that fits"),
        (model_spec([tensor("x", "FP32", None, 4)]), [{"input": "x"}], "name one that is -1"),
        (model_spec([tensor("x", "BYTES", None, "T")]), [{"input": "x"}], "only numbers"),
        (
            model_spec([tensor("x", "FP32", 1, "T")], batchable=False),
            [{"input": "x"}],
            "cannot be joined",
        ),
        (TWO, [{"input": "x"}], "leaves out axis 1 of the input 'mask'"),
        (TWO, [{"input": "x", "multiple": 2}, {"input": "mask"}], "two multiples"),
        (UNNAMED, [{"input": "x"}], "which axis of the output 'y'"),
        (UNNAMED, [{"input": "x", "outputs": {"z": 1}}], "names the output 'z'"),
    ],
)
def test_what_does_not_fit_the_model_keeps_the_server_from_becoming_ready(
    model: ModelSpec, entries: list[dict[str, Any]], words: str
) -> None:
    """The reason says what to change."""
    with pytest.raises(LoadError, match=words) as caught:
        plan(declare(*entries), model)
    assert caught.value.failure.reason == "InvalidConfig"
    assert caught.value.failure.permanent


@pytest.mark.parametrize(("outputs", "shape"), [({"y": 1}, (1, 3)), ({}, (1, 8))])
def test_dimensions_without_names_are_named_by_the_declaration(
    outputs: dict[str, int], shape: tuple[int, ...]
) -> None:
    """None at all: nothing is cut."""
    padding = plan(declare({"input": "x", "multiple": 8, "outputs": outputs}), UNNAMED)
    assert padding is not None
    padded = padding.join([{"x": np.zeros((1, 3), np.float32)}])
    assert padded is not None
    (piece,) = padding.split([np.zeros((1, 8))], ["y"], padded)
    assert piece.arrays[0].shape == shape


@pytest.mark.parametrize("shape", [(3, 5, 3), (2, 8, 3), (3,), ()])
def test_an_output_that_does_not_follow_its_input_is_an_error(shape: tuple[int, ...]) -> None:
    """Rather than an answer cut in the wrong place."""
    padding = plan(declare({"input": "ids", "multiple": 8}), IDS)
    assert padding is not None
    padded = padding.join([{"ids": np.zeros((3, 5), np.int64)}])
    assert padded is not None
    with pytest.raises(BackendError):
        padding.split([np.zeros(shape)], ["y"], padded)


async def ask(service: Any, rows: list[list[float]]) -> list[float]:
    prediction = service.admit()
    inputs = validate(service.spec, {"x": RawTensor("x", rows)}, None)
    outputs = await service.predict(prediction, inputs)
    prediction.close()
    return [float(v) for v in outputs.arrays[0]]


async def gathered(service: Any, backend: FakeBackend, gate: threading.Event) -> list[list[float]]:
    """Ask with three lengths while the model is busy, so that they are together in line."""
    first = asyncio.create_task(ask(service, [[1.0]]))
    async with asyncio.timeout(10):
        while not backend.started.is_set():  # noqa: ASYNC110 - set by a thread
            await asyncio.sleep(0.001)
    rest = [asyncio.create_task(ask(service, [[1.0] * n])) for n in (2, 5, 3)]
    async with asyncio.timeout(10):
        while service.waiting < 3:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
    gate.set()
    return await asyncio.gather(first, *rest)


@pytest.mark.parametrize(
    ("settings", "runs"),
    [({"model_padding": declare({"input": "x"})}, [1, 3]), ({}, [1, 1, 1, 1])],
)
async def test_requests_of_different_lengths_share_a_run_where_that_is_declared(
    settings: dict[str, Any], runs: list[int]
) -> None:
    """Else each length runs by itself; the answers are the same."""
    gate = threading.Event()
    backend = FakeBackend(TEXT, gate=gate)
    service = make_service(backend, **settings)
    assert await gathered(service, backend, gate) == [[1], [2], [5], [3]]
    assert backend.batch_rows == runs
    service.close()


async def test_what_padding_would_make_too_large_runs_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One long request among short ones does not cost memory without bound."""
    monkeypatch.setattr(module, "MAX_VALUES", 14)
    gate = threading.Event()
    backend = FakeBackend(TEXT, gate=gate)
    service = make_service(backend, model_padding=declare({"input": "x"}))
    assert await gathered(service, backend, gate) == [[1], [2], [5], [3]]
    assert backend.batch_rows == [1, 1, 1, 1]
    service.close()
