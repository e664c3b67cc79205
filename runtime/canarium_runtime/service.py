"""`InferenceService`: the one way from a request to an answer, whatever protocol carried it.

    with service.permit() as permit:      capacity, counts, time
        inputs = service.validate(...)    against the model's specs
        await service.infer(permit, inputs)

All protocols call this, so limits and metrics cannot differ between them.
"""

import logging
import time
from collections.abc import Sequence
from types import TracebackType

from canarium_api.metric_names import PredictionStatus
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime import validation, warmup
from canarium_runtime.backends.base import Array, Backend, ModelSpec
from canarium_runtime.batching.batcher import Batcher
from canarium_runtime.errors import ErrorKind, QueueFullError, ServingError
from canarium_runtime.lifecycle import ANSWERING, Event, Lifecycle, ModelState
from canarium_runtime.metrics import Metrics
from canarium_runtime.shadow.answers import AnswerLog

_log = logging.getLogger(__name__)

STATUS_OF_KIND: dict[ErrorKind, PredictionStatus] = {
    ErrorKind.QUEUE_FULL: PredictionStatus.REJECTED,
    ErrorKind.NOT_READY: PredictionStatus.REJECTED,
    ErrorKind.STOPPING: PredictionStatus.REJECTED,
    ErrorKind.DEADLINE: PredictionStatus.TIMEOUT,
    ErrorKind.MODEL_FAILED: PredictionStatus.ERROR,
    ErrorKind.INTERNAL: PredictionStatus.ERROR,
}
"""How a failure counts; every other kind is the client's mistake."""
_MEASURED = frozenset({PredictionStatus.SUCCESS, PredictionStatus.ERROR, PredictionStatus.TIMEOUT})
"""Refusals are quick: among the latencies they would make an overloaded server look fast."""


class Permit:
    """One request's place in the server, from arrival to answer; counts it when it ends."""

    __slots__ = ("_service", "arrived_at", "deadline")

    def __init__(self, service: "InferenceService", arrived_at: float) -> None:
        self._service = service
        self.arrived_at = arrived_at
        self.deadline = arrived_at + service.request_timeout_seconds

    def __enter__(self) -> "Permit":
        self._service.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        status = PredictionStatus.SUCCESS if error is None else status_of(error)
        self._service.leave(status, time.monotonic() - self.arrived_at)


def status_of(error: BaseException) -> PredictionStatus:
    """How a failed request counts."""
    if isinstance(error, ServingError):
        return STATUS_OF_KIND.get(error.kind, PredictionStatus.INVALID)
    return PredictionStatus.ERROR


class InferenceService:
    """Serves one model: admission, validation, batching, counting.

    Args:
        config: settings.
        metrics: where requests are counted.
    """

    def __init__(self, config: RuntimeConfig, metrics: Metrics) -> None:
        self.config = config
        self.metrics = metrics
        self.answers = AnswerLog()
        self.lifecycle = Lifecycle(self._state_changed)
        self.request_timeout_seconds = config.request_timeout.total_seconds()
        self._max_inflight = config.queue_size + config.workers * config.max_batch_size
        self._backend: Backend | None = None
        self._batcher: Batcher | None = None
        self._batching = False
        metrics.queue_length = lambda: self.waiting

    @property
    def spec(self) -> ModelSpec:
        """Specs of the model.

        Raises:
            ServingError: NOT_READY while no model is loaded.
        """
        if self._backend is None:
            raise self._not_answering()
        return self._backend.spec

    @property
    def ready(self) -> bool:
        """Whether traffic should be sent here."""
        return self.lifecycle.state is ModelState.READY

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._batcher.waiting if self._batcher else 0

    def begin_warming(self) -> None:
        """Note that the model is loaded."""
        self.lifecycle.advance(Event.LOADED, "the model is being warmed up")

    def serve(self, backend: Backend, report: warmup.Report) -> None:
        """Begin to answer. Call on the event loop.

        Args:
            backend: a loaded model.
            report: what the warm-up found out about it.
        """
        self._batching = backend.spec.batchable and report.rows_independent
        self._backend = backend
        self._batcher = Batcher(
            backend,
            capacity=self.config.queue_size,
            max_rows=self.config.max_batch_size if self._batching else 1,
            max_delay_seconds=self.config.max_delay.total_seconds(),
            workers=self.config.workers,
            observer=self.metrics,
        )
        if report.seconds_per_run is not None:
            self._batcher.placement.observe(report.seconds_per_run)
        self.lifecycle.advance(Event.WARMED)

    def permit(self) -> Permit:
        """Begin a request; use as a context manager around all of its work."""
        return Permit(self, time.monotonic())

    def enter(self) -> None:
        """Let a request in, before its body is read, or refuse it.

        Raises:
            ServingError: NOT_READY, STOPPING or QUEUE_FULL.
        """
        error: ServingError | None = None
        if self._batcher is None or self.lifecycle.state not in ANSWERING:
            error = self._not_answering()
        elif self.metrics.inflight >= self._max_inflight:
            error = QueueFullError(self._max_inflight)
        if error is not None:
            self.metrics.predictions[status_of(error)] += 1
            raise error
        self.metrics.inflight += 1

    def leave(self, status: PredictionStatus, seconds: float) -> None:
        """Count a request that was let in."""
        self.metrics.inflight -= 1
        self.metrics.predictions[status] += 1
        if status in _MEASURED:
            self.metrics.duration.observe(seconds)

    async def infer(self, permit: Permit, inputs: validation.ValidatedInputs) -> Sequence[Array]:
        """Run validated inputs.

        Returns:
            The wanted outputs, in the order of `inputs.outputs`.

        Raises:
            ServingError: QUEUE_FULL, DEADLINE, MODEL_FAILED, STOPPING, NOT_READY or INTERNAL.
        """
        if self._batcher is None:
            raise self._not_answering()
        # Without batching, a request is one indivisible row to the queue, whatever its shape.
        rows = inputs.rows if self._batching else 1
        return await self._batcher.submit(
            inputs.arrays,
            rows=rows,
            key=inputs.key,
            outputs=inputs.outputs,
            deadline=permit.deadline,
        )

    def terminate(self) -> None:
        """Stop being ready, and go on answering."""
        if self.lifecycle.allows(Event.TERMINATE):
            self.lifecycle.advance(
                Event.TERMINATE, "the server was told to stop and answers what still comes"
            )

    def stop(self) -> None:
        """Refuse from now on; requests under way go on."""
        if self.lifecycle.allows(Event.DRAINED):
            self.lifecycle.advance(Event.DRAINED, "the server is stopping")

    def close(self) -> None:
        """Drop what waits and free the model."""
        if self._batcher is not None:
            self._batcher.close()
        if self._backend is not None:
            self._backend.close()

    def _not_answering(self) -> ServingError:
        state = self.lifecycle.state
        if state in {ModelState.DRAINING, ModelState.STOPPING}:
            return ServingError(ErrorKind.STOPPING, "the server is stopping", retry_after_seconds=1)
        message = f"the model is not ready: {self.lifecycle.reason}"
        return ServingError(ErrorKind.NOT_READY, message, retry_after_seconds=1)

    def _state_changed(self, state: ModelState) -> None:
        self.metrics.ready = state is ModelState.READY
        _log.info("state changed", extra={"state": state.value, "reason": self.lifecycle.reason})
