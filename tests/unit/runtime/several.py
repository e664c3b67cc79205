"""A server of several models whose artefacts are fakes."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from canarium_api.runtime_config import ModelEntry, RuntimeConfig
from canarium_runtime.backends.base import ModelSpec
from canarium_runtime.batching.merge import Outputs
from canarium_runtime.errors import LoadError, ServingError
from canarium_runtime.lifecycle import Event
from canarium_runtime.models import Models
from canarium_runtime.service import InferenceService, Prediction
from canarium_runtime.testing import FakeBackend
from canarium_runtime.validation import ValidatedInputs
from canarium_runtime.warmup import Report


class World:
    """Models whose artefacts are fakes of 1000 bytes each."""

    def __init__(self, *names: str, broken: str = "", **settings: Any) -> None:
        self.loads: list[str] = []
        self.backends: dict[str, FakeBackend] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken = broken
        self.permanently = False
        self.runs: dict[str, threading.Event] = {}
        """Holds the runs of a model until it is set."""
        self.specs: dict[str, ModelSpec] = {}
        entries = tuple(ModelEntry(name=n, uri=f"file:///{n}.onnx") for n in names)
        config = RuntimeConfig(
            model_uri="file:///main.onnx", model_name="main", models=entries, **settings
        )
        self.models = Models(config, self.load)

    async def load(
        self, config: RuntimeConfig, service: InferenceService, _: threading.Event
    ) -> None:
        self.loads.append(config.model_name)
        await self.gate.wait()
        if config.model_name == self.broken:
            raise LoadError("ModelUnreadable", "not a model", permanent=self.permanently)
        if not service.lifecycle.allows(Event.LOADED):
            return
        name = config.model_name
        backend = self.backends[name] = FakeBackend(self.specs.get(name), gate=self.runs.get(name))
        service.begin_warming()
        service.serve(backend, Report())

    def states(self) -> dict[str, str]:
        return {s.name: s.state.value for s in self.models.index()}

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - loading is a task that nobody waits for
                await asyncio.sleep(0.001)

    async def ask(self, name: str) -> None:
        """A request that waits for its model."""
        service = self.models.get(name)
        prediction = service.admit()
        here: asyncio.Future[ServingError | None] = asyncio.get_running_loop().create_future()
        service.when_ready(prediction, here.set_result)
        error = await here
        prediction.close(error)
        if error is not None:
            raise error

    def send(
        self, name: str, value: float = 1, prediction: Prediction | None = None
    ) -> tuple[Prediction, "asyncio.Future[Outputs | ServingError]"]:
        """The whole way of a request, or what is left of it after its admission; its future gets the outcome."""
        service = self.models.get(name)
        sent = prediction or service.admit()
        got: asyncio.Future[Outputs | ServingError] = asyncio.get_running_loop().create_future()

        def done(outcome: Outputs | ServingError) -> None:
            sent.close(outcome if isinstance(outcome, ServingError) else None)
            got.set_result(outcome)

        def resume(error: ServingError | None) -> None:
            if error is not None:
                done(error)
                return
            try:
                sent.run(row(value), done)
            except ServingError as failure:
                done(failure)

        service.when_ready(sent, resume)
        return sent, got


def row(value: float) -> ValidatedInputs:
    """One row of two numbers, whose sum is the value."""
    return ValidatedInputs({"x": np.array([[value, 0]], np.float32)}, 1, "k", ("y",))


def shown(outcome: Outputs | ServingError) -> object:
    """The numbers, or the kind of the failure."""
    return outcome.kind if isinstance(outcome, ServingError) else outcome.arrays[0].tolist()
