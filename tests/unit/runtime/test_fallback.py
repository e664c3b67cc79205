"""Who answers when the model does not, in which order, and what is said of it."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from canarium_api.metric_names import FAILED_STATUSES, PredictionStatus
from canarium_api.runtime_config import FallbackEntry, ModelEntry, RuntimeConfig
from canarium_runtime.backends.base import BackendError, ModelSpec
from canarium_runtime.batching.batcher import Asker
from canarium_runtime.batching.merge import Outputs, Run
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.fallback.chain import Chain
from canarium_runtime.fallback.other_server import OtherServer
from canarium_runtime.fallback.sources import Cancel, FixedAnswer
from canarium_runtime.metrics import render
from canarium_runtime.models import Models
from canarium_runtime.resilience.breaker import BreakerPolicy
from canarium_runtime.service import Prediction
from canarium_runtime.testing import FakeBackend, make_service, model_spec, tensor
from canarium_runtime.validation import ValidatedInputs
from canarium_runtime.warmup import Report

Outcome = Outputs | ServingError
POLICY = BreakerPolicy(failures=2, first_pause_seconds=1000, longest_pause_seconds=1000)


def row(value: float = 1) -> ValidatedInputs:
    return ValidatedInputs({"x": np.array([[value, 0]], np.float32)}, 1, "k", ("y",))


class Scripted:
    """A fallback that does what it is told."""

    timeout_seconds = None

    def __init__(self, name: str, outcome: float | ErrorKind) -> None:
        self.name = name
        self.outcome = outcome
        self.asked = 0
        self.given_up = 0

    def check(self, _: ModelSpec) -> None:
        """It can."""

    def start(self, _: ValidatedInputs, __: float, done: Callable[[Outcome], None]) -> Cancel:
        self.asked += 1
        if isinstance(self.outcome, ErrorKind):
            done(ServingError(self.outcome, f"{self.name} fails"))
        elif self.outcome >= 0:
            done(Outputs(Run([np.array([self.outcome], np.float32)])))

        def give_up() -> None:
            self.given_up += 1

        return give_up

    async def close(self) -> None:
        """Nothing is held."""


class World:
    """A chain before a model that the test plays itself."""

    def __init__(self, *fallbacks: Scripted, policy: BreakerPolicy | None = POLICY) -> None:
        self.service = make_service()
        self.model: float | ErrorKind = 1.0
        self.asked = 0
        self.chain = Chain(self.submit, lambda _: None, fallbacks, None, 0.0, policy)

    def submit(
        self, _: ValidatedInputs, __: float, done: Callable[[Outcome], None], ___: Asker
    ) -> int:
        self.asked += 1
        if self.model is ErrorKind.QUEUE_FULL:
            raise ServingError(ErrorKind.QUEUE_FULL, "full")
        if isinstance(self.model, ErrorKind):
            done(ServingError(self.model, "the model fails"))
        else:
            done(Outputs(Run([np.array([self.model], np.float32)])))
        return 1

    def ask(self) -> tuple[Any, Prediction]:
        prediction = self.service.admit()
        got: list[Outcome] = []
        self.chain.run(prediction, row(), got.append)
        (outcome,) = got
        shown = outcome.kind if isinstance(outcome, ServingError) else outcome.arrays[0].tolist()
        return shown, prediction


async def test_a_model_that_answers_needs_nobody() -> None:
    """And nothing is marked."""
    second = Scripted("b", 5)
    w = World(second)
    shown, prediction = w.ask()
    assert (shown, prediction.marks, second.asked) == ([1.0], None, 0)


@pytest.mark.parametrize(
    ("kind", "stands_in"),
    [
        (ErrorKind.MODEL_FAILED, True),
        (ErrorKind.DEADLINE, True),
        (ErrorKind.QUEUE_FULL, True),
        (ErrorKind.NOT_READY, True),
        (ErrorKind.INTERNAL, True),
        (ErrorKind.STOPPING, False),
        (ErrorKind.INVALID, False),
    ],
)
async def test_who_is_to_blame_decides_whether_somebody_stands_in(
    kind: ErrorKind, stands_in: bool
) -> None:
    """World: a failure of the model; world: the other's answer, marked and counted, or the failure itself."""
    w = World(Scripted("b", 5))
    w.model = kind
    shown, prediction = w.ask()
    assert shown == ([5.0] if stands_in else kind)
    assert prediction.marks == ({"fallback": "b"} if stands_in else None)
    assert w.chain.answered["b"] == stands_in


async def test_they_are_tried_in_order() -> None:
    """The first that answers does."""
    first, second, third = Scripted("a", ErrorKind.MODEL_FAILED), Scripted("b", 6), Scripted("c", 7)
    w = World(first, second, third)
    w.model = ErrorKind.MODEL_FAILED
    shown, prediction = w.ask()
    assert (shown, prediction.marks, third.asked) == ([6.0], {"fallback": "b"}, 0)


async def test_when_nobody_answers_the_client_learns_the_models_failure() -> None:
    """Not the last one's, which it knows nothing of."""
    w = World(Scripted("a", ErrorKind.NOT_READY))
    w.model = ErrorKind.DEADLINE
    assert w.ask()[0] is ErrorKind.DEADLINE


async def test_a_model_that_keeps_failing_is_left_alone() -> None:
    """After two failures in a row it is not asked, and the other answers at once."""
    w = World(Scripted("b", 5))
    w.model = ErrorKind.MODEL_FAILED
    for _ in range(5):
        assert w.ask()[0] == [5.0]
    assert w.asked == 2
    assert w.chain.problems() == {"model": "the model fails"}


async def test_being_busy_is_no_fault() -> None:
    """A full queue does not open the breaker."""
    w = World(Scripted("b", 5))
    w.model = ErrorKind.QUEUE_FULL
    for _ in range(5):
        assert w.ask()[0] == [5.0]
    assert w.asked == 5
    assert w.chain.problems() == {}


async def test_a_fallback_that_keeps_failing_is_left_alone_too() -> None:
    """The next in line is asked at once."""
    broken, good = Scripted("a", ErrorKind.MODEL_FAILED), Scripted("b", 5)
    w = World(broken, good)
    w.model = ErrorKind.QUEUE_FULL
    for _ in range(5):
        assert w.ask()[0] == [5.0]
    assert (broken.asked, good.asked) == (2, 5)


async def test_a_client_that_leaves_ends_the_search() -> None:
    """Whoever is asked just then is told."""
    silent, next_one = Scripted("a", -1), Scripted("b", 5)
    w = World(silent, next_one)
    w.model = ErrorKind.MODEL_FAILED
    got: list[Outcome] = []
    give_up = w.chain.run(w.service.admit(), row(), got.append)
    give_up()
    assert (silent.given_up, next_one.asked, got) == (1, 0, [])


async def test_a_fixed_answer_has_a_row_for_each_row() -> None:
    """With the datatypes of the model; an output that it lacks is a failure."""
    spec = model_spec(outputs=[tensor("y", "FP32", None), tensor("z", "INT64", None, 2)])
    source = FixedAnswer({"y": 0.5, "z": [1, 2]}, lambda: spec)
    inputs = ValidatedInputs({"x": np.zeros((3, 2), np.float32)}, 3, "k", ("z", "y"))
    got: list[Outcome] = []
    source.start(inputs, 0.0, got.append)
    (outputs,) = got
    assert isinstance(outputs, Outputs)
    assert [a.tolist() for a in outputs.arrays] == [[[1, 2]] * 3, [0.5] * 3]
    assert [a.dtype for a in outputs.arrays] == [np.int64, np.float32]
    with pytest.raises(ServingError, match="no output 'q'"):
        source.start(ValidatedInputs({}, 1, "k", ("q",)), 0.0, got.append)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        pytest.param(
            httpx.Response(
                200,
                json={"outputs": [{"name": "y", "shape": [1], "datatype": "FP32", "data": [4]}]},
            ),
            [4.0],
            id="an answer",
        ),
        pytest.param(httpx.Response(503), None, id="a refusal"),
        pytest.param(httpx.Response(200, text="hello"), None, id="no JSON"),
        pytest.param(httpx.Response(200, json={"outputs": []}), None, id="another output"),
        pytest.param(httpx.Response(200, json=[1]), None, id="another shape"),
        pytest.param(httpx.ConnectError("no route"), None, id="nobody there"),
    ],
)
async def test_another_server_answers_or_does_not(
    response: httpx.Response | Exception, expected: list[float] | None
) -> None:
    """World: what it says; world: outputs, or a failure without its details."""
    seen: list[Any] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if isinstance(response, Exception):
            raise response
        return response

    source = OtherServer(
        "http://elsewhere/v2/models/m/infer", 5, model_spec, httpx.MockTransport(handle)
    )
    got: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    source.start(row(3), loop.time() + 30, got.set_result)
    outcome = await got
    if expected is None:
        assert isinstance(outcome, ServingError)
        assert outcome.message == "elsewhere gave no answer"
    else:
        assert isinstance(outcome, Outputs)
        assert outcome.arrays[0].tolist() == expected
    assert b'"data":[3.0,0.0]' in seen[0].content
    await source.close()


async def test_in_a_server_another_model_stands_in_and_it_is_a_failure_to_the_gates() -> None:
    """The whole way: settings, two models, a mark, and the counts."""
    config = RuntimeConfig(
        model_uri="file:///m.onnx",
        models=(ModelEntry(name="small", uri="file:///s.onnx"),),
        fallbacks=(FallbackEntry(model="small"),),
    )
    models = Models(config)

    def broken(_: Any) -> Any:
        msg = "no"
        raise BackendError(msg)

    for service, backend in zip(models, (FakeBackend(compute=broken), FakeBackend()), strict=True):
        service.begin_warming()
        service.serve(backend, Report())
    prediction = models.primary.admit()
    outputs = await models.primary.predict(prediction, row(3))
    prediction.close()
    assert outputs.arrays[0].tolist() == [3.0]
    assert prediction.marks == {"fallback": "small"}
    assert models.primary.metrics.predictions[PredictionStatus.FALLBACK] == 1
    assert PredictionStatus.FALLBACK in FAILED_STATUSES
    assert b'ml_fallbacks_total{deployment="local/model",fallback="small"' in render(
        [models.primary.metrics]
    )
    await models.close()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"model": "q"}, "CANARIUM_FALLBACKS names a model that CANARIUM_MODELS does not list: q"),
        ({"model": "q", "url": "http://a/v2/models/m/infer"}, "exactly one of model, url and"),
        ({"url": "ftp://a/v2/models/m/infer"}, "pattern"),
        ({"url": "http://u:secret@a/v2/models/m/infer"}, "pattern"),
        ({"url": "http://a:99999/v2/models/m/infer"}, "port is 99999: expected at most 65535"),
        ({"url": "http://a/predict"}, "pattern"),
        ({"outputs": {"y": 1}, "timeout": "0s"}, "CANARIUM_FALLBACKS: timeout must be above 0"),
        ({}, "exactly one"),
    ],
)
def test_wrong_settings_are_named(entry: dict[str, Any], message: str) -> None:
    """At the start, not at the first failure."""
    with pytest.raises(ValueError, match=message):
        RuntimeConfig.model_validate({"model_uri": "file:///m.onnx", "fallbacks": [entry]})
