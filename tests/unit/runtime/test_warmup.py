"""What the warm-up runs and finds out."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from canarium_runtime.backends.base import Array, BackendError, InputError, ModelSpec
from canarium_runtime.errors import LoadError
from canarium_runtime.testing import FakeBackend, model_spec, tensor
from canarium_runtime.warmup import Report, rows_are_independent, synthetic_inputs, warm_up

Inputs = Mapping[str, Array]


def test_batch_sizes_go_from_one_to_the_most() -> None:
    """Arenas and threads are made for every size that clients can cause."""
    backend = FakeBackend()
    report = warm_up(backend, requests=3, max_batch_size=32)
    assert backend.batch_rows[:3] == [1, 16, 32]
    assert report.rows_independent
    assert report.seconds_per_run is not None


def test_no_requests_means_that_nothing_runs() -> None:
    """Zero warm-up requests is what the user asked for."""
    backend = FakeBackend()
    assert warm_up(backend, requests=0, max_batch_size=32) == Report()
    assert backend.batch_rows == []


def test_inputs_have_the_declared_datatypes_and_shapes() -> None:
    """Axes of any size are 1; strings are empty."""
    spec = model_spec(
        [tensor("a", "FP32", "N", 3), tensor("b", "BYTES", "N"), tensor("c", "INT64", "N", "S")]
    )
    inputs = synthetic_inputs(spec, 4, np.random.default_rng(1))
    assert {n: (a.shape, a.dtype) for n, a in inputs.items()} == {
        "a": ((4, 3), np.float32),
        "b": ((4,), object),
        "c": ((4, 1), np.int64),
    }
    assert inputs["a"].any()
    assert not inputs["c"].any()


def centred(inputs: Inputs) -> Sequence[Array]:
    return [(inputs["x"] - inputs["x"].mean(axis=0)).sum(axis=1)]


def one_for_all(inputs: Inputs) -> Sequence[Array]:
    return [inputs["x"].sum(axis=(0, 1), keepdims=True)[0]]


def only_one_row(inputs: Inputs) -> Sequence[Array]:
    return (
        [inputs["x"].sum(axis=1)] if inputs["x"].shape[0] == 1 else [np.full(2, np.nan, np.float32)]
    )


def no_random_numbers(inputs: Inputs) -> Sequence[Array]:
    return [np.where(inputs["x"].any(axis=1), np.float32(np.nan), np.float32(0))]


@pytest.mark.parametrize(
    ("compute", "independent"),
    [
        pytest.param(lambda i: [i["x"].sum(axis=1)], True, id="each row for itself"),
        pytest.param(centred, False, id="minus the mean of the batch"),
        pytest.param(one_for_all, False, id="one output for all rows"),
        pytest.param(only_one_row, False, id="another answer for two rows"),
        pytest.param(no_random_numbers, True, id="NaN is equal to NaN"),
    ],
)
def test_rows_that_depend_on_one_another_are_found(compute: object, independent: bool) -> None:
    """World: a model; world: whether it may ever be batched."""
    assert rows_are_independent(FakeBackend(compute=compute)) is independent  # type: ignore[arg-type]


def failing(spec: ModelSpec) -> FakeBackend:
    """A model that fails on zeros, for which it has NaN."""
    from canarium_runtime.backends.base import BackendError

    def compute(_: Inputs) -> Sequence[Array]:
        msg = "division by zero"
        raise BackendError(msg)

    return FakeBackend(spec, compute)


def test_a_model_that_fails_on_its_own_shapes_is_not_served() -> None:
    """All sizes are known, so the failure is the model's."""
    with pytest.raises(LoadError, match="division by zero") as caught:
        warm_up(failing(model_spec()), requests=1, max_batch_size=4)
    assert caught.value.failure.reason == "WarmupFailed"
    assert caught.value.failure.permanent


def test_a_model_with_axes_of_any_size_is_given_the_benefit_of_the_doubt() -> None:
    """A size of 1 may be too small for it, so nothing is known."""
    spec = model_spec([tensor("x", "FP32", "N", 3, "H", "W")])
    assert warm_up(failing(spec), requests=1, max_batch_size=4) == Report()


def refusing_zeros(inputs: Mapping[str, Array]) -> Sequence[Array]:
    """A model that means to refuse what the warm-up makes of itself."""
    if not inputs["x"].all():
        msg = "x must not be zero"
        raise InputError(msg)
    return [inputs["x"].sum(axis=1)]


def test_a_model_that_refuses_zeros_is_served() -> None:
    """It says so to clients, and does not fail."""
    report = warm_up(FakeBackend(compute=refusing_zeros), requests=3, max_batch_size=4)
    assert report == Report()


def test_examples_take_the_place_of_zeros() -> None:
    """Their rows go through at all batch sizes, and the time of a run is known."""
    backend = FakeBackend(compute=refusing_zeros)
    example = {"x": np.array([[1, 2], [3, 4]], np.float32)}
    report = warm_up(backend, requests=3, max_batch_size=4, examples=[example])
    assert backend.batch_rows[:6] == [1, 2, 4, 1, 1, 1]
    assert report.seconds_per_run is not None
    assert report.rows_independent


def test_a_dependence_that_only_examples_show_is_found() -> None:
    """Random rows between -3 and 3 go another way through this model than real ones, which are large."""

    def compute(inputs: Mapping[str, Array]) -> Sequence[Array]:
        total = inputs["x"].sum(axis=1)
        return [total - total.mean() if total.max() > 100 else total]

    example = {"x": np.array([[100, 200], [300, 400]], np.float32)}
    backend = FakeBackend(compute=compute)
    assert warm_up(backend, requests=1, max_batch_size=4).rows_independent
    report = warm_up(backend, requests=1, max_batch_size=4, examples=[example])
    assert not report.rows_independent


def test_an_example_that_fails_in_a_batch_fails_the_warm_up() -> None:
    """It went through alone, so the model cannot do what it declares."""

    def compute(inputs: Mapping[str, Array]) -> Sequence[Array]:
        if inputs["x"].shape[0] > 1:
            msg = "one at a time"
            raise BackendError(msg)
        return [inputs["x"].sum(axis=1)]

    example = {"x": np.ones((1, 2), np.float32)}
    with pytest.raises(LoadError, match="fails on examples in a batch: one at a time"):
        warm_up(FakeBackend(compute=compute), requests=2, max_batch_size=4, examples=[example])
