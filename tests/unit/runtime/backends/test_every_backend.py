"""One suite over every backend: what `Backend` promises holds whatever is behind it."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.runtime.backends.worlds import WORLDS, World

from canarium_api.v1alpha1 import ModelFormat
from canarium_runtime import samples, warmup
from canarium_runtime.backends.base import Backend, BackendError
from canarium_runtime.errors import LoadError

ROWS = np.array([[3, 4], [1, 0], [0, 2]], np.float32)


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def world(request: pytest.FixtureRequest) -> World:
    """Each format in turn."""
    found: World = request.param
    return found


@pytest.fixture
def backend(world: World, tmp_path: Path) -> Iterator[Backend]:
    """The model, open."""
    opened = world.open(tmp_path)
    yield opened
    opened.close()


def test_it_says_what_it_takes_and_gives(world: World, backend: Backend) -> None:
    """Names, datatypes, shapes, and that rows are free."""
    assert backend.spec.platform == world.platform
    (x,) = backend.spec.inputs
    assert (x.name, x.datatype, x.wire_shape) == ("x", "FP32", [-1, 2])
    assert [(o.name, o.datatype, o.wire_shape) for o in backend.spec.outputs] == [
        ("y", "FP32", [-1]),
        ("z", "FP32", [-1, 2]),
    ]
    assert backend.spec.batchable
    assert not backend.spec.streams
    assert backend.device == "cpu"
    assert backend.memory_bytes > 0
    assert backend.compute_bound == (world.format in {ModelFormat.ONNX, ModelFormat.TORCH})


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_rows_give_their_values(backend: Backend, rows: int) -> None:
    """One row or several: each has its own answer."""
    y, z = backend.infer({"x": ROWS[:rows]}, ["y", "z"])
    assert y.tolist() == [43, 1, 20][:rows]
    assert z.tolist() == (2 * ROWS[:rows]).tolist()
    assert (y.dtype, z.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("names", [["y"], ["z"], ["z", "y"]])
def test_outputs_come_as_they_were_asked_for(backend: Backend, names: list[str]) -> None:
    """A part of them, and in another order."""
    expected = {"y": [43, 1, 20], "z": (2 * ROWS).tolist()}
    answers = backend.infer({"x": ROWS}, names)
    assert [a.tolist() for a in answers] == [expected[n] for n in names]


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.frombuffer(ROWS.tobytes(), np.float32).reshape(3, 2), id="read-only"),
        pytest.param(np.asfortranarray(ROWS), id="by columns"),
        pytest.param(np.repeat(ROWS, 2, axis=0)[::2], id="every second row"),
    ],
)
def test_any_array_of_the_right_shape_will_do(backend: Backend, array: Any) -> None:
    """Validation gives read-only arrays, and slices of larger ones."""
    before = array.copy()
    (y,) = backend.infer({"x": array}, ["y"])
    assert y.tolist() == [43, 1, 20]
    assert array.tolist() == before.tolist()


def test_a_failing_run_is_a_backend_error(backend: Backend) -> None:
    """The library's own exceptions do not leak, and the next run is not harmed."""
    with pytest.raises(BackendError):
        backend.infer({"x": np.ones((2, 3), np.float32)}, ["y"])
    (y,) = backend.infer({"x": ROWS}, ["y"])
    assert y.tolist() == [43, 1, 20]


def test_threads_do_not_see_one_another(backend: Backend) -> None:
    """Four workers at once: each gets the answers to its own rows."""
    wrong: list[tuple[int, float]] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait(10)
        for _ in range(50):
            (y,) = backend.infer({"x": np.full((2, 2), number, np.float32)}, ["y"])
            if y.tolist() != [11 * number, 11 * number]:
                wrong.append((number, y.tolist()))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_the_warm_up_finds_its_rows_independent(backend: Backend) -> None:
    """So requests may be joined."""
    report = warmup.warm_up(backend, requests=2, max_batch_size=8)
    assert report.rows_independent
    assert report.seconds_per_run is not None


def test_declared_requests_run_through_the_whole_of_it(backend: Backend) -> None:
    """Both protocols' bodies, before ready; one that fails is named with the reason."""
    good = [
        samples.Sample("first", b'{"instances": [[3, 4], [1, 0]]}'),
        samples.Sample(
            "second",
            b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}',
        ),
    ]
    samples.run(backend, good)
    bad = samples.Sample("warmup.jsonl line 3", b'{"instances": [[1, 2, 3]]}')
    with pytest.raises(LoadError, match=r"warmup\.jsonl line 3 fails: .*shape \[-1, 2\]") as caught:
        samples.run(backend, [*good, bad])
    assert (caught.value.failure.reason, caught.value.failure.permanent) == ("WarmupFailed", True)


def test_closing_leaves_nothing_unpacked(world: World, tmp_path: Path) -> None:
    """A server that takes models in and lets them go must not fill its volume."""
    backend = world.open(tmp_path)
    backend.close()
    assert [p for p in (tmp_path / "work").rglob("*") if p.is_file()] == []
