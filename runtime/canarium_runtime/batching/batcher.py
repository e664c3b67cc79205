"""The asyncio shell around `BatchQueue`: takes requests, runs batches, hands the results out.

Everything but `_execute` runs on the event loop, so nothing here is locked. A request's own failure is its own: when a
batch of several fails, each of them is run alone once, and only those that fail again get an error.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from canarium_runtime.backends.base import Backend, BackendError, InputError
from canarium_runtime.batching import merge
from canarium_runtime.batching.merge import Outputs, Run
from canarium_runtime.batching.padding import Padding, TooLarge
from canarium_runtime.batching.placement import Placement
from canarium_runtime.batching.policy import (
    NORMAL,
    Batch,
    BatchQueue,
    Idle,
    Item,
    Part,
    QueueFull,
    TooLate,
    WaitUntil,
)
from canarium_runtime.errors import ErrorKind, QueueFullError, ServingError
from canarium_runtime.tracing.trace import BatchRun, Trace

_log = logging.getLogger(__name__)
_SWEEP_SECONDS = 0.1
"""How often deadlines are looked at; a 504 may be this late."""
_LOGGED_IDS = 16
"""Requests of a batch that a log line names."""


class BatchObserver(Protocol):
    """Who wants to know what ran."""

    def batch_ran(self, rows: int, seconds: float) -> None:
        """One run of the model."""
        ...

    def left_queue(self, seconds: float) -> None:
        """A request's first rows were taken after waiting this long."""
        ...


Done = Callable[[Outputs | ServingError], None]
"""Is called once, on the event loop, with the wanted outputs or the failure."""


class Asker(Protocol):
    """The request that inputs came with."""

    request_id: str
    """For logs."""
    priority: int
    """HIGH, NORMAL or LOW of `policy`."""
    trace: Trace | None
    """Where its way is noted; None: it is not sampled."""


@dataclass(slots=True, kw_only=True, eq=False)
class Request(Item):
    """One request in the batcher, until it is settled or cancelled."""

    inputs: merge.Inputs
    outputs: Sequence[str]
    done: Done
    request_id: str = ""
    trace: Trace | None = None
    pieces: dict[int, Outputs] | None = None
    """Results by first row, for a request that runs in several parts."""
    rows_done: int = 0


_Outcome = Outputs | BackendError
_Batch = Batch[Request]
_Part = Part[Request]


@dataclass(slots=True)
class _Result:
    """What a batch gave."""

    outcomes: Sequence[_Outcome]
    """For each part."""
    started_at: float
    """Instant of `time.monotonic()`."""
    seconds: float
    """How long it took."""
    blocked_seconds: float
    """How long it would have blocked the event loop, on an idle machine."""


class Batcher:
    """Runs requests through a backend in batches.

    Args:
        backend: a loaded model.
        capacity: most requests that wait.
        max_rows: most rows in a run; 1 for a model that cannot be batched.
        max_delay_seconds: see `BatchQueue`.
        preferred_rows: see `BatchQueue`.
        workers: batches that run at the same time.
        observer: told about each run.
        padding: joins requests of different lengths; None: those with equal keys have equal shapes.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        capacity: int,
        max_rows: int,
        max_delay_seconds: float,
        workers: int,
        observer: BatchObserver,
        preferred_rows: Sequence[int] = (),
        padding: Padding | None = None,
    ) -> None:
        self._backend = backend
        self._padding = padding
        self.queue: BatchQueue[Request] = BatchQueue(
            capacity=capacity,
            max_rows=max_rows,
            max_delay_seconds=max_delay_seconds,
            preferred_rows=preferred_rows,
            workers=workers,
        )
        self._workers = workers
        self._observer = observer
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="infer")
        self.placement = Placement()
        self._loop = asyncio.get_running_loop()
        self._requests: dict[Request, None] = {}
        """Those whose `done` was not called yet."""
        self._busy = 0
        """Batches in the executor: those that run, and one that is ready behind them."""
        self._pump_scheduled = False
        self._closed = False
        self._then: Callable[[], None] | None = None
        self._wake: asyncio.TimerHandle | None = None
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self.queue)

    def submit(
        self,
        inputs: merge.Inputs,
        *,
        rows: int,
        key: Hashable,
        outputs: Sequence[str],
        deadline: float,
        done: Done,
        priority: int = NORMAL,
        request_id: str = "",
        trace: Trace | None = None,
    ) -> Request:
        """Take one request, to be run together with others where that fits.

        A callback and no future: a task and a future for each request would cost as much as running a small model.

        Args:
            inputs: validated arrays, first axis `rows` where the model can be batched.
            rows: at least 1.
            key: requests with equal keys may share a run; equal keys must mean equal `outputs`.
            outputs: names of the wanted outputs.
            deadline: instant of `time.monotonic()`.
            done: gets the wanted outputs, in that order, or a ServingError: DEADLINE, MODEL_FAILED, STOPPING or
                INTERNAL. Never called before this function has returned, nor after `cancel`.
            priority: HIGH, NORMAL or LOW of `policy`.
            request_id: for logs.
            trace: takes when it was queued and run; None: that is not noted.

        Returns:
            What to give to `cancel`.

        Raises:
            ServingError: QUEUE_FULL, also when its turn would come after its deadline; STOPPING: it is closed.
        """
        request = Request(
            rows=rows,
            key=key,
            deadline=deadline,
            priority=priority,
            inputs=inputs,
            outputs=outputs,
            done=done,
            request_id=request_id,
            trace=trace,
        )
        self.take(request)
        return request

    def take(self, request: Request) -> None:
        """Take one request whose fields are set; see `submit`."""
        if self._closed:
            raise _stopping()
        refused = self.queue.offer(request, time.monotonic())
        if refused is not None:
            raise _refusal(refused)
        self._requests[request] = None
        if request.trace is not None:
            request.trace.queued_at = request.arrived_at
        if not self._pump_scheduled and self._has_room():
            # At the end of this turn of the loop: requests whose bytes came together then run together.
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)
        if self._sweep is None:
            self._sweep = self._loop.call_later(_SWEEP_SECONDS, self._expire)

    def flush(self) -> None:
        """Start what waits for the end of this turn of the event loop: all that came with it was taken."""
        if self._pump_scheduled:
            self._pump()

    def cancel(self, request: Request) -> None:
        """Forget a request that nobody waits for: it leaves the queue, and `done` is not called."""
        if request in self._requests:
            del self._requests[request]
            self.queue.cancel(request)

    def close(self, then: Callable[[], None] | None = None) -> None:
        """Refuse what still waits and let the threads go.

        Args:
            then: called once no run uses the backend any more, now or later: a run whose client has gone goes on, and
                what it computes with must not be freed under it.
        """
        if self._closed:
            return
        self._closed = True
        for request in list(self._requests):
            self.queue.cancel(request)
            self._settle(request, _stopping())
        for timer in (self._wake, self._sweep):
            if timer is not None:
                timer.cancel()
        self._then = then
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._end()

    def _end(self) -> None:
        if not self._busy and self._then is not None:
            then, self._then = self._then, None
            then()

    def _has_room(self) -> bool:
        """Whether a batch can be started, or a full one be made ready behind those that run."""
        if self._busy < self._workers:
            return True
        return self._busy == self._workers and self.queue.has_full_batch()

    def _pump(self) -> None:
        """Start batches while workers are free and the queue gives any."""
        self._pump_scheduled = False
        if self._closed:
            return
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        while self._has_room():
            now = time.monotonic()
            match self.queue.next_batch(now, self._busy):
                case Batch() as batch:
                    self._observe_wait(batch, now)
                    if self.placement.inline:
                        self._run_inline(batch)
                        return
                    self._run_in_thread(batch)
                case WaitUntil(instant):
                    self._wake = self._loop.call_later(instant - now, self._pump)
                    return
                case Idle():
                    return

    def _observe_wait(self, batch: _Batch, now: float) -> None:
        for part in batch.parts:
            if part.start == 0:
                self._observer.left_queue(now - part.item.arrived_at)

    def _run_inline(self, batch: _Batch) -> None:
        try:
            result = _execute(self._backend, batch, self._padding)
        except Exception as error:  # noqa: BLE001 - nobody above can answer these requests
            self._crashed(batch, error)
        else:
            self._finish(batch, result)
        if len(self.queue):  # after other work of the loop, so that a backlog does not starve it
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _run_in_thread(self, batch: _Batch) -> None:
        self._busy += 1
        future = self._loop.run_in_executor(
            self._executor, _execute_wanted, self._backend, batch, self._padding
        )

        def done(ended: asyncio.Future[tuple[_Batch, _Result | None]]) -> None:
            self._busy -= 1
            if self._closed:
                self._end()
            if ended.cancelled():
                return
            if (error := ended.exception()) is not None:
                self._crashed(batch, error)
            else:
                ran, result = ended.result()
                if result is not None:
                    self._finish(ran, result)
            self._pump()

        future.add_done_callback(done)

    def _crashed(self, batch: _Batch, error: BaseException) -> None:
        items = [part.item for part in batch.parts[:_LOGGED_IDS]]
        _log.error(
            "running a batch failed in this server itself",
            extra={
                "request_ids": [item.request_id for item in items],
                "trace_ids": [item.trace.id for item in items if item.trace is not None],
            },
            exc_info=error,
        )
        for part in batch.parts:
            self._settle(part.item, ServingError(ErrorKind.INTERNAL, "internal error"))

    def _finish(self, batch: _Batch, result: _Result) -> None:
        self.placement.observe(result.blocked_seconds)
        self._observer.batch_ran(batch.rows, result.seconds)
        run: BatchRun | None = None
        for part, outcome in zip(batch.parts, result.outcomes, strict=True):
            request = part.item
            if request.trace is not None:
                run = request.trace.ran(
                    run, batch.rows, len(batch.parts), result.started_at, result.seconds
                )
            if request not in self._requests:
                continue
            if isinstance(outcome, BackendError):
                self.queue.cancel(request)  # its other parts, if any, are not needed
                self._settle(request, _failure_of(outcome))
            elif part.is_whole:
                self._settle(request, outcome)
            else:
                self._keep_piece(part, outcome)
        self.queue.finished(batch.rows, result.seconds, time.monotonic())

    def _keep_piece(self, part: _Part, outcome: Outputs) -> None:
        """Keep the results of a part, until those of the whole request are there."""
        request = part.item
        if request.pieces is None:
            request.pieces = {}
        request.pieces[part.start] = outcome
        request.rows_done += part.stop - part.start
        if request.rows_done == request.rows:
            pieces = [request.pieces[start] for start in sorted(request.pieces)]
            self._settle(request, merge.join_outputs(pieces))

    def _settle(self, request: Request, outcome: Outputs | ServingError) -> None:
        """Tell the caller, unless it was told or has left."""
        if request not in self._requests:
            return
        del self._requests[request]
        try:
            request.done(outcome)
        except Exception:  # noqa: BLE001 - logged
            # One caller's mistake must not keep the others of its batch from their answers.
            extra = {"request_id": request.request_id}
            if request.trace is not None:
                extra["trace_id"] = request.trace.id
            _log.exception("handing a result over failed", extra=extra)

    def _expire(self) -> None:
        """Answer those whose deadline has come, in the queue and in a run."""
        self._sweep = None
        now = time.monotonic()
        self.queue.expire(now)
        for request in [r for r in self._requests if r.deadline <= now]:
            error = ServingError(ErrorKind.DEADLINE, "no answer within the request timeout")
            self._settle(request, error)
        if self._requests:
            self._sweep = self._loop.call_later(_SWEEP_SECONDS, self._expire)


def _stopping() -> ServingError:
    return ServingError(ErrorKind.STOPPING, "the server is stopping", retry_after_seconds=1)


def _refusal(refused: QueueFull | TooLate) -> ServingError:
    if isinstance(refused, QueueFull):
        return QueueFullError(refused.capacity)
    text = f"the queue takes about {refused.seconds:.1f} s now, which is more than this request has"
    seconds = max(1, math.ceil(refused.seconds))
    return ServingError(ErrorKind.QUEUE_FULL, text, retry_after_seconds=seconds)


def _failure_of(error: BackendError) -> ServingError:
    """What the client is told: the model's own words only where it means them for clients."""
    if isinstance(error, InputError):
        failure = ServingError(ErrorKind.INVALID, error.message, field=error.field)
    else:
        failure = ServingError(ErrorKind.MODEL_FAILED, "the model failed on this input")
    failure.__cause__ = error
    return failure


def _execute_wanted(
    backend: Backend, batch: _Batch, padding: Padding | None
) -> tuple[_Batch, _Result | None]:
    """Run what is still wanted of a batch, which may have stood behind a long run; None: nothing is.

    Whose deadline has come is answered by the sweep.
    """
    now = time.monotonic()
    wanted = [part for part in batch.parts if part.item.deadline > now]
    if not wanted:
        return batch, None
    if len(wanted) < len(batch.parts):
        batch = Batch(wanted, sum(part.stop - part.start for part in wanted))
    return batch, _execute(backend, batch, padding)


def _execute(backend: Backend, batch: _Batch, padding: Padding | None) -> _Result:
    """Run a batch. In a worker thread or, a small model, on the event loop."""
    started, cpu_started = time.monotonic(), time.thread_time()
    try:
        outcomes = _run(backend, batch.parts, padding)
    except BackendError as error:
        outcomes = (
            [error]
            if len(batch.parts) == 1
            else [_run_alone(backend, part, padding) for part in batch.parts]
        )
    cpu_seconds = time.thread_time() - cpu_started
    seconds = time.monotonic() - started
    return _Result(outcomes, started, seconds, cpu_seconds if backend.compute_bound else seconds)


def _run(backend: Backend, parts: Sequence[_Part], padding: Padding | None) -> Sequence[_Outcome]:
    first = parts[0].item
    if padding is not None:
        try:
            padded = padding.join([_inputs(part) for part in parts])
        except TooLarge:
            return [_run_alone(backend, part, padding) for part in parts]
        if padded is not None:
            made = backend.infer(padded.inputs, first.outputs)
            return padding.split(made, first.outputs, padded)
    if len(parts) == 1:
        return [Outputs(Run(backend.infer(_inputs(parts[0]), first.outputs)))]
    inputs = merge.stack([_inputs(part) for part in parts])
    outputs = backend.infer(inputs, first.outputs)
    return merge.split(outputs, [p.stop - p.start for p in parts])


def _inputs(part: _Part) -> merge.Inputs:
    item = part.item
    if part.stop - part.start == item.rows:
        return item.inputs
    return merge.rows_of(item.inputs, part.start, part.stop)


def _run_alone(backend: Backend, part: _Part, padding: Padding | None) -> _Outcome:
    try:
        return _run(backend, (part,), padding)[0]
    except BackendError as error:
        return error
