"""Models that give their answer in pieces: a thread takes the pieces, a coroutine hands them on.

One thread runs the model's iterator (`StreamingBackend.stream`) from its first piece to its end. It is at most `_AHEAD`
pieces ahead of the client, and ends at its next piece when nobody wants more; a piece that is being computed cannot be
stopped, so a stream counts until its thread has ended.

Streams go by no queue: rows of several requests are not joined.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, cast

from canarium_runtime.backends.base import (
    Array,
    Backend,
    BackendError,
    InputError,
    StreamingBackend,
)
from canarium_runtime.batching.merge import Outputs, Run
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.notes import warnings_of
from canarium_runtime.service import InferenceService, Prediction
from canarium_runtime.validation import ValidatedInputs

_AHEAD: Final = 4
"""Pieces that wait for the client."""


def can_stream(backend: Backend) -> bool:
    """Whether a model gives its answer in pieces."""
    return backend.spec.streams


async def until_ready(service: InferenceService, prediction: Prediction) -> None:
    """Wait until the model of an admitted request is loaded, where it is loaded on demand.

    Raises:
        ServingError: NOT_READY or DEADLINE.
    """
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def resume(error: ServingError | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    service.when_ready(prediction, resume)
    try:
        await future
    finally:
        service.forget(resume)


class Streams:
    """The streams of one server.

    Args:
        limit: most of them at the same time: each has a thread.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.running = 0
        """Threads that have not ended."""

    async def pieces(
        self, service: InferenceService, prediction: Prediction, inputs: ValidatedInputs
    ) -> AsyncGenerator[Outputs]:
        """Give the answer in pieces; in one, for a model that does not stream. Close it to stop the model.

        Args:
            service: the model.
            prediction: an admitted one; the caller closes it.
            inputs: made for the model's spec.

        Raises:
            ServingError: as `InferenceService.predict` and `Prediction.run`; QUEUE_FULL where too much streams
                already; DEADLINE when a piece takes longer than the request timeout.
        """
        backend = service.backend
        if not can_stream(backend):
            yield await service.predict(prediction, inputs)
            return
        if self.running >= self._limit:
            message = (
                f"{self._limit} answers are being streamed already, which is the limit; try again"
            )
            raise ServingError(ErrorKind.QUEUE_FULL, message, retry_after_seconds=1)
        inputs, notes = service.rules.apply(inputs)
        if notes:
            prediction.mark("warnings", warnings_of(notes))
        relay = _Relay(self._ended)
        self.running += 1
        relay.start(cast("StreamingBackend", backend), inputs)
        try:
            while True:
                try:
                    async with asyncio.timeout(service.request_timeout_seconds):
                        piece = await relay.next()
                except TimeoutError:
                    message = "the model gave no piece within the request timeout"
                    raise ServingError(ErrorKind.DEADLINE, message) from None
                if piece is None:
                    return
                yield Outputs(Run(piece))
        finally:
            relay.stop()

    def _ended(self) -> None:
        self.running -= 1


class _Relay:
    """Carries pieces from the model's thread to the event loop.

    Args:
        ended: called on the event loop when the thread has ended.
    """

    def __init__(self, ended: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._room = threading.Semaphore(_AHEAD)
        self._stopped = False
        self._pieces: asyncio.Queue[Sequence[Array] | ServingError | None] = asyncio.Queue()
        """Bounded by `_room`."""

    def start(self, backend: StreamingBackend, inputs: ValidatedInputs) -> None:
        """Begin to run the model."""
        threading.Thread(
            target=self._work, args=(backend, inputs), daemon=True, name="stream"
        ).start()

    async def next(self) -> Sequence[Array] | None:
        """Give the next piece; None: there are no more.

        Raises:
            ServingError: MODEL_FAILED or INTERNAL.
        """
        piece = await self._pieces.get()
        self._room.release()
        if isinstance(piece, ServingError):
            raise piece
        return piece

    def stop(self) -> None:
        """Want no more pieces."""
        self._stopped = True
        self._room.release()

    def _work(self, backend: StreamingBackend, inputs: ValidatedInputs) -> None:
        end: ServingError | None = None
        try:
            self._take(backend, inputs)
        except BackendError as error:
            end = _failure_of(error)
        except Exception as error:  # noqa: BLE001 - raised where the pieces are awaited
            end = ServingError(ErrorKind.INTERNAL, "internal error")
            end.__cause__ = error
        self._post(self._pieces.put_nowait, end)
        self._post(self._ended)

    def _take(self, backend: StreamingBackend, inputs: ValidatedInputs) -> None:
        iterator = iter(backend.stream(inputs.arrays, inputs.outputs))
        try:
            while True:
                self._room.acquire()
                if self._stopped:
                    return
                piece = next(iterator, None)
                if piece is None:
                    return
                self._post(self._pieces.put_nowait, piece)
        finally:
            if (close := getattr(iterator, "close", None)) is not None:
                close()

    def _post(self, function: Any, *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)


def _failure_of(error: BackendError) -> ServingError:
    """What the client is told: the model's own words only where it means them for clients."""
    if isinstance(error, InputError):
        failure = ServingError(ErrorKind.INVALID, error.message, field=error.field)
    else:
        failure = ServingError(ErrorKind.MODEL_FAILED, "the model failed on this input")
    failure.__cause__ = error
    return failure
