"""`InferenceService`: the one way from a request to an answer, whatever protocol carried it.

    prediction = service.admit(request_id)     a place in the server, or the reason why not
    inputs = validate(service.spec, ...)       by the door, which knows how its protocol names fields
    prediction.run(inputs, done)               queue, batch, model; done(outputs or error)
    prediction.close(error or None)            counted, by how it ended

All doors call this, so limits and metrics cannot differ between them. It is made of callbacks and not of coroutines
because a task for each request costs as much as running a small model; `InferenceService.predict` is the same for
callers that have a task anyway.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric

from canarium_api import metric_names as names
from canarium_api.metric_names import PredictionStatus
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime import validation, warmup
from canarium_runtime.audit.records import model_fragment
from canarium_runtime.backends.base import Backend, ModelSpec
from canarium_runtime.batching.batcher import Asker, Batcher, Done, Request
from canarium_runtime.batching.merge import Outputs
from canarium_runtime.batching.padding import Padding
from canarium_runtime.batching.padding import plan as plan_padding
from canarium_runtime.batching.policy import NORMAL
from canarium_runtime.caching import ResponseCache, exposition, make_cache
from canarium_runtime.errors import ErrorKind, QueueFullError, ServingError
from canarium_runtime.fallback.chain import FALLBACK, Chain
from canarium_runtime.fallback.sources import Fallback
from canarium_runtime.lifecycle import ANSWERING, Event, Lifecycle, ModelState
from canarium_runtime.metrics import Metrics
from canarium_runtime.notes import warnings_of
from canarium_runtime.parking import Parking, Resume
from canarium_runtime.pipeline import Cancel, Pipeline
from canarium_runtime.resilience.breaker import BreakerPolicy
from canarium_runtime.rules.ruleset import Rules
from canarium_runtime.shadow.answers import AnswerLog
from canarium_runtime.tracing.trace import Tracer
from canarium_runtime.version import server_version

_log = logging.getLogger(__name__)

STATUS_OF_KIND: dict[ErrorKind, PredictionStatus] = {
    ErrorKind.QUEUE_FULL: PredictionStatus.REJECTED,
    ErrorKind.NOT_READY: PredictionStatus.REJECTED,
    ErrorKind.STOPPING: PredictionStatus.REJECTED,
    ErrorKind.AUTHENTICATION_UNAVAILABLE: PredictionStatus.REJECTED,
    ErrorKind.AUDIT_FULL: PredictionStatus.REJECTED,
    ErrorKind.DEADLINE: PredictionStatus.TIMEOUT,
    ErrorKind.MODEL_FAILED: PredictionStatus.ERROR,
    ErrorKind.UNAVAILABLE: PredictionStatus.ERROR,
    ErrorKind.INTERNAL: PredictionStatus.ERROR,
}
"""How a failure counts; every other kind is the client's mistake."""
_LOADABLE = frozenset(
    {ModelState.UNLOADED, ModelState.LOADING, ModelState.WARMING, ModelState.FAILED}
)
_MEASURED = frozenset({PredictionStatus.ERROR, PredictionStatus.TIMEOUT, PredictionStatus.FALLBACK})
"""Refusals are quick: among the latencies they would make an overloaded server look fast."""


Marks = dict[str, Any]
"""What an answer says about how it came about, where that is out of the ordinary: `warnings`, `fallback`."""


class Prediction(Request):
    """One request on its way through the server, from its arrival to its answer, whatever door it came by.

    It holds a place in the server from `InferenceService.admit` on, until exactly one call of `close`. It is its own
    entry in the queue: another object for that would cost as much as reading its head.

    Args:
        service: the model.
        request_id: for logs and records.
        patience: seconds that its client waits.
    """

    __slots__ = ("_give_up", "_open", "_service", "admitted_at", "generation", "marks")

    def __init__(self, service: "InferenceService", request_id: str, patience: float) -> None:
        self.admitted_at = now = time.monotonic()
        self.deadline = now + patience
        self.request_id = request_id
        self.generation = service.generation
        """Which loading of the model it came to."""
        self.marks: Marks | None = None
        """What is out of the ordinary with its answer."""
        self._service = service
        self._open = True
        self._give_up: Cancel | None = None
        self.priority = NORMAL
        self.trace = None
        self.taken = self.rows_done = 0
        self.waiting = False
        self.pieces = None
        # `rows`, `key`, `inputs`, `outputs` and `done` are set by `enqueue`; `arrived_at` and `order` by the queue.

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.request_id}>"

    def want(self, priority: int | None, timeout_seconds: float | None) -> None:
        """Take what the request itself says about its turn; None: nothing.

        Args:
            priority: HIGH, NORMAL or LOW of `batching.policy`.
            timeout_seconds: how long its client waits, from its arrival; only ever shortens what it has.

        Raises:
            ServingError: FORBIDDEN, or DEADLINE: nobody waits for it any more.
        """
        if priority is not None:
            if priority < NORMAL and not self._service.allows_high_priority:
                text = "high priority is not granted here: ask for normal, or set serving.allowHighPriority"
                raise ServingError(ErrorKind.FORBIDDEN, text)
            self.priority = priority
        if timeout_seconds is not None:
            self.deadline = min(self.deadline, self.admitted_at + timeout_seconds)
            if self.deadline <= time.monotonic():
                raise ServingError(ErrorKind.DEADLINE, "no answer within the request's own timeout")

    def run(self, inputs: validation.ValidatedInputs, done: Done) -> None:
        """Get the answer to validated inputs.

        Args:
            inputs: made for the service's `spec`.
            done: called once, now or later, with the wanted outputs in the order of `inputs.outputs`, or with a
                ServingError: DEADLINE, MODEL_FAILED, STOPPING or INTERNAL.

        Raises:
            ServingError: INVALID, QUEUE_FULL, NOT_READY or STOPPING; then `done` is not called.
        """
        service = self._service
        inputs, notes = service.rules.apply(inputs)
        if notes:
            self.mark("warnings", warnings_of(notes))
        if self.trace is not None:
            self.trace.rows = inputs.rows
        if service.pipeline is None:
            service.enqueue(self, inputs, done)
        else:
            self._give_up = service.pipeline.start(self, inputs, done)

    def cancel(self) -> None:
        """Give up what is under way: nobody waits for it any more. `done` is not called after this."""
        if self._give_up is not None:
            self._give_up()
        else:
            self._service.cancel(self)

    def mark(self, name: str, value: Any) -> None:
        """Note what is out of the ordinary with the answer."""
        if self.marks is None:
            self.marks = {}
        self.marks[name] = value

    def age(self) -> float:
        """Seconds since it arrived."""
        return time.monotonic() - self.admitted_at

    def close(self, error: BaseException | None = None) -> None:
        """Leave the server, and be counted by how it ended. A second call does nothing."""
        if self._open:
            self._open = False
            # They know whom to call, who knows this: a circle that the garbage collector would have to find.
            self._give_up = None
            self.done = _nobody
            self._leave(error)
            if self.trace is not None:
                stood_in = "" if self.marks is None else self.marks.get(FALLBACK, "")
                self.trace.end(error, stood_in, time.monotonic())

    def _leave(self, error: BaseException | None) -> None:
        self._service.leave(self.generation, error, self.age(), self.marks)


class Guest(Prediction):
    """A request of another model of the server, for which this one stands in: that one counts it."""

    __slots__ = ()

    def _leave(self, error: BaseException | None) -> None:
        self._service.make_place(self.generation)


def _nobody(_: Outputs | ServingError) -> None:
    """Take an outcome that nobody waits for."""


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
        self.allows_high_priority = (
            config.authenticates and not config.anonymous
            if config.allow_high_priority is None
            else config.allow_high_priority
        )
        """Whether requests may ask to pass others."""
        self.max_inflight = config.queue_size + (config.workers + 1) * config.max_batch_size
        """Most requests under way at a time."""
        self.fragment = self._fragment("")
        """How audit records name the model."""
        self.rules = Rules.for_any_model()
        """What the values of a request must hold."""
        self._backend: Backend | None = None
        self._batcher: Batcher | None = None
        self._batching = False
        self._padding: Padding | None = None
        self.fallbacks: Sequence[Fallback] = ()
        """Who stands in for the model."""
        self.shared_cache: Callable[[], ResponseCache | None] | None = None
        """Gives the cache whose levels this model uses too; None: it has levels of its own."""
        self.pipeline: Pipeline | None = None
        """Stages before the queue; None: there are none."""
        self.tracer: Tracer | None = None
        """Decides which requests are traced; None: none is."""
        self.answering = False
        """Whether requests can be run at once."""
        self.leaving = False
        """Whether clients are asked to connect anew, elsewhere."""
        self.on_demand: Callable[[], bool] | None = None
        """Begins to load the model, where it is loaded only when somebody asks for it; False: not now, since it failed
        a short while ago."""
        self.on_idle: Callable[[], None] | None = None
        """Told when the last request under way is answered."""
        self.used_at = 0.0
        """Instant of `time.monotonic()` of the last request, or of its loading."""
        self.generation = 0
        """Rises with each unloading: requests that came before it are answered by the model that goes."""
        self._former = 0
        """Requests under way that came before the unloading under way."""
        self._freed: asyncio.Future[None] | None = None
        """While an unloaded model still answers requests that came before: done when it is free."""
        self._parking = Parking("the model was not loaded within the request timeout")
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
    def backend(self) -> Backend:
        """The model itself, for what goes by no queue.

        Raises:
            ServingError: NOT_READY while no model is loaded.
        """
        if self._backend is None:
            raise self._not_answering()
        return self._backend

    @property
    def batching(self) -> bool:
        """Whether rows of several requests may share a run."""
        return self._batching

    @property
    def ready(self) -> bool:
        """Whether traffic should be sent here."""
        return self.lifecycle.state is ModelState.READY

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""
        return self.metrics.inflight > 0

    @property
    def memory_bytes(self) -> int:
        """About how much memory the loaded model takes; 0: none is loaded."""
        return 0 if self._backend is None else self._backend.memory_bytes

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._batcher.waiting if self._batcher else 0

    @property
    def joins_rows(self) -> bool:
        """Whether rows of several requests may share a run."""
        return self._batching

    def check_fallbacks(self, spec: ModelSpec) -> None:
        """See to it that what stands in for the model can.

        Raises:
            LoadError: InvalidConfig.
        """
        for fallback in self.fallbacks:
            fallback.check(spec)

    async def make_cache(self, model_sha256: str) -> ResponseCache | None:
        """Make the cache that the settings ask for, for a model of this digest; None: none.

        Raises:
            LoadError: InvalidConfig.
        """
        self.fragment = self._fragment(model_sha256)
        if self.shared_cache is not None:
            cache = self.shared_cache()
            identity = (model_sha256, self.config.revision, server_version())
            return None if cache is None else cache.for_model(identity)
        made = make_cache(self.config, model_sha256, server_version())
        if made is not None:
            await made.start()
        return made

    def _fragment(self, sha256: str) -> str:
        config = self.config
        return model_fragment(
            name=config.model_name,
            version=config.model_version,
            revision=config.revision,
            sha256=sha256,
        )

    def compile_rules(self, model: ModelSpec) -> Rules:
        """Fit the settings' rules to a model.

        Raises:
            RuleError: one does not fit; names the field and the remedy.
        """
        return Rules.compile(self.config.validation_spec, model, self.metrics.violations)

    def begin_warming(self) -> None:
        """Note that the model is loaded."""
        self.lifecycle.advance(Event.LOADED, "the model is being warmed up")

    def serve(
        self,
        backend: Backend,
        report: warmup.Report,
        cache: ResponseCache | None = None,
        rules: Rules | None = None,
    ) -> None:
        """Begin to answer. Call on the event loop.

        Args:
            backend: a loaded model.
            report: what the warm-up found out about it.
            cache: answers that were given before, of this very model.
            rules: for the values of requests, compiled for the model. Default: those of the settings.

        Raises:
            RuleError: the settings' rules do not fit the model.
        """
        self.rules = rules or self.compile_rules(backend.spec)
        self._batching = backend.spec.batchable and report.rows_independent
        declared = plan_padding(self.config.model_padding, backend.spec)
        self._padding = declared if self._batching else None
        self._backend = backend
        self._batcher = Batcher(
            backend,
            capacity=self.config.queue_size,
            max_rows=self.config.max_batch_size if self._batching else 1,
            max_delay_seconds=self.config.max_delay.total_seconds(),
            preferred_rows=self.config.preferred_batch_sizes if self._batching else (),
            workers=self.config.workers,
            observer=self.metrics,
            padding=self._padding,
        )
        if report.seconds_per_run is not None:
            self._batcher.placement.observe(report.seconds_per_run)
        self._compose(cache)
        self.used_at = time.monotonic()
        self.lifecycle.advance(Event.WARMED)
        self._parking.release()

    def _compose(self, cache: ResponseCache | None) -> None:
        """Put the stages before the queue together."""
        config = self.config
        timeout = config.backend_timeout
        chain = None
        if self.fallbacks or timeout is not None:
            chain = Chain(
                self.submit,
                self.cancel,
                self.fallbacks,
                None if timeout is None else timeout.total_seconds(),
                self.request_timeout_seconds,
                BreakerPolicy(failures=config.breaker_failures)
                if self.fallbacks and config.breaker_failures
                else None,
            )
        known = self.pipeline
        self.pipeline = None
        if cache is not None or chain is not None:
            self.pipeline = Pipeline(self.enqueue, self.cancel, cache=cache, chain=chain)
        if known is None and self.pipeline is not None:
            self.metrics.more.append(self._more_series)

    def _more_series(self, identity: Sequence[str]) -> Iterator[Metric]:
        """Give the series of the stages."""
        if self.pipeline is None:
            return
        if self.pipeline.cache is not None and self.shared_cache is None:
            yield from exposition.families(self.pipeline.cache.statistics(), identity)
        if self.pipeline.chain is not None and self.fallbacks:
            labels = (*names.IDENTITY_LABELS, names.FALLBACK_LABEL)
            text = "Answers that something else gave because the model did not."
            family = CounterMetricFamily(names.FALLBACKS_TOTAL, text, labels=labels)
            for name, count in self.pipeline.chain.answered.items():
                family.add_metric((*identity, name), count)
            yield family

    def fail(self, reason: str) -> None:
        """Note that the model cannot be loaded, and tell those who wait for it."""
        if self.lifecycle.allows(Event.FAILED):
            self.lifecycle.advance(Event.FAILED, reason)
        self._parking.release(self._not_answering())

    def retire(self, reason: str) -> None:
        """Take the model out of service, and free it when the requests under way are answered; see `freed`.

        Those that come from now on wait for the next loading, or are refused where there is none on demand.
        """
        self.lifecycle.advance(Event.UNLOAD, reason)
        self.generation += 1
        self._former = self.metrics.inflight
        if self._former:
            self._freed = asyncio.get_running_loop().create_future()
        else:
            self._free()

    async def freed(self) -> None:
        """Wait until nobody needs a model that was taken out of service. At once where none was."""
        if self._freed is not None:
            await asyncio.wait((self._freed,))

    def _free_former(self) -> None:
        if self._freed is not None and not self._former:
            self._free()

    def _free(self) -> None:
        """Free the model, as soon as no run uses it."""
        batcher, backend = self._batcher, self._backend
        self._batcher = self._backend = None
        if batcher is not None:
            batcher.close(None if backend is None else backend.close)
        freed, self._freed = self._freed, None
        if freed is not None:
            freed.set_result(None)

    def when_ready(self, prediction: Prediction, resume: Resume) -> None:
        """Go on with an admitted request at once, or when its model is loaded.

        `resume` gets the reason where that is not going to happen: the loading that it was to wait for has failed.
        """
        # Of a model that is being unloaded there is still a batcher, for requests that came before.
        if self._batcher is not None and (
            self._freed is None or prediction.generation < self.generation
        ):
            resume(None)
        elif self._begin_loading():
            self._parking.add(resume, prediction.deadline)
        else:
            resume(self._not_answering())

    def forget(self, resume: Resume) -> None:
        """Undo `when_ready` for a request that nobody waits for."""
        self._parking.remove(resume)

    def admit(self, request_id: str = "", timeout_seconds: float | None = None) -> Prediction:
        """Let a request in, before its body is read, or refuse it.

        Args:
            request_id: for logs and records.
            timeout_seconds: how long its client waits; at most the server's own request timeout, the default.

        Raises:
            ServingError: NOT_READY, STOPPING or QUEUE_FULL; counted already.
        """
        try:
            self._take_place()
        except ServingError as error:
            self.metrics.failed[status_of(error)] += 1
            raise
        patience = self.request_timeout_seconds
        if timeout_seconds is not None and timeout_seconds < patience:
            patience = timeout_seconds
        prediction = Prediction(self, request_id, patience)
        self.used_at = prediction.admitted_at
        return prediction

    def _take_place(self) -> None:
        if self.metrics.inflight >= self.max_inflight:
            raise QueueFullError(self.max_inflight)
        if not self.answering and not self._begin_loading():
            raise self._not_answering()
        self.metrics.inflight += 1

    def invite(self, deadline: float) -> Guest:
        """Let a request of another model in, which this one is to answer in its stead; loads the model if need be.

        Args:
            deadline: instant of `time.monotonic()`.

        Raises:
            ServingError: NOT_READY, STOPPING or QUEUE_FULL.
        """
        self._take_place()
        guest = Guest(self, "", deadline - time.monotonic())
        self.used_at = guest.admitted_at
        return guest

    def make_place(self, generation: int) -> None:
        """Note that a request has left, which somebody else counts."""
        self.metrics.inflight -= 1
        if self._freed is not None or self.on_idle is not None:
            self._tell_who_waits(generation)

    def _tell_who_waits(self, generation: int) -> None:
        """Go on with what waits for the last request."""
        if self._freed is not None and generation < self.generation:
            self._former -= 1
            if not self._former:
                # Not at once: whoever hands the answer out may still ask for the specs.
                asyncio.get_running_loop().call_soon(self._free_former)
        if not self.metrics.inflight and self.on_idle is not None:
            self.on_idle()

    def leave(
        self, generation: int, error: BaseException | None, seconds: float, marks: Marks | None
    ) -> None:
        """Count a request that was let in, by how it ended."""
        self.metrics.inflight -= 1
        if self._freed is not None or self.on_idle is not None:
            self._tell_who_waits(generation)
        if error is not None:
            status = status_of(error)
        elif marks is not None and FALLBACK in marks:
            status = PredictionStatus.FALLBACK
        else:
            self.metrics.succeeded += 1
            self.metrics.duration.observe(seconds)
            return
        self.metrics.failed[status] += 1
        if status in _MEASURED:
            self.metrics.duration.observe(seconds)
            self.metrics.failed_seconds += seconds

    def submit(
        self,
        inputs: validation.ValidatedInputs,
        deadline: float,
        done: Done,
        asker: Asker | None = None,
    ) -> Request:
        """Queue validated inputs for a stage that may ask more than once for one prediction."""
        if self._batcher is None:
            raise self._not_answering()
        # Without batching, a request is one indivisible row to the queue, whatever its shape.
        rows = inputs.rows if self._batching else 1
        key = self.key_of(inputs)
        if asker is None:
            return self._batcher.submit(
                inputs.arrays,
                rows=rows,
                key=key,
                outputs=inputs.outputs,
                deadline=deadline,
                done=done,
            )
        return self._batcher.submit(
            inputs.arrays,
            rows=rows,
            key=key,
            outputs=inputs.outputs,
            deadline=deadline,
            done=done,
            priority=asker.priority,
            request_id=asker.request_id,
            trace=asker.trace,
        )

    def key_of(self, inputs: validation.ValidatedInputs) -> Hashable:
        """Give what is equal for requests that may share a run."""
        if self._padding is None:
            return inputs.key
        return self._padding.key(inputs.arrays, inputs.outputs)

    def enqueue(
        self, prediction: Prediction, inputs: validation.ValidatedInputs, done: Done
    ) -> None:
        """Queue a prediction, at most once; see `Prediction.run`, which is how requests come here."""
        if self._batcher is None:
            raise self._not_answering()
        prediction.inputs = inputs.arrays
        prediction.key = self.key_of(inputs)
        prediction.outputs = inputs.outputs
        prediction.done = done
        # Without batching, a request is one indivisible row to the queue, whatever its shape.
        prediction.rows = inputs.rows if self._batching else 1
        self._batcher.take(prediction)

    def flush(self) -> None:
        """Note that all requests of this turn of the event loop are queued."""
        if self._batcher is not None:
            self._batcher.flush()

    def cancel(self, ticket: Request) -> None:
        """Forget what `submit` queued."""
        if self._batcher is not None:
            self._batcher.cancel(ticket)

    async def predict(self, prediction: Prediction, inputs: validation.ValidatedInputs) -> Outputs:
        """Run a prediction from a coroutine; given up when that is cancelled.

        Returns:
            The wanted outputs, in the order of `inputs.outputs`.

        Raises:
            ServingError: as `Prediction.run` raises and gives to `done`.
        """
        future: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()

        def done(outcome: Outputs | ServingError) -> None:
            if future.done():
                return
            if isinstance(outcome, ServingError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        prediction.run(inputs, done)
        try:
            return await future
        except asyncio.CancelledError:
            prediction.cancel()
            raise

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

    async def close_stages(self) -> None:
        """Let go of what the stages before the queue hold: connections, and what is still to be written."""
        if self.pipeline is None:
            return
        if self.pipeline.chain is not None:
            await self.pipeline.chain.close()
        if self.pipeline.cache is not None and self.shared_cache is None:
            await self.pipeline.cache.close()

    def close(self) -> None:
        """Drop what waits and free the model. Nothing is answered from now on."""
        self.terminate()
        self.stop()
        self._parking.release(self._not_answering())
        self._free()

    def _begin_loading(self) -> bool:
        """Whether a request may wait for the model, which is then being loaded."""
        if self.on_demand is None or self.lifecycle.state not in _LOADABLE:
            return False
        return self.on_demand()

    def _not_answering(self) -> ServingError:
        state = self.lifecycle.state
        if state in {ModelState.DRAINING, ModelState.STOPPING}:
            return ServingError(ErrorKind.STOPPING, "the server is stopping", retry_after_seconds=1)
        message = f"the model is not ready: {self.lifecycle.reason}"
        return ServingError(ErrorKind.NOT_READY, message, retry_after_seconds=1)

    def _state_changed(self, state: ModelState) -> None:
        self.metrics.ready = state is ModelState.READY
        # As plain attributes, since each request looks at them and an enum's hash is Python code.
        self.answering = state in ANSWERING and self._batcher is not None
        self.leaving = state in {ModelState.DRAINING, ModelState.STOPPING}
        _log.info("state changed", extra={"state": state.value, "reason": self.lifecycle.reason})
