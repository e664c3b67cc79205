"""What happens to validated inputs before they reach the queue: the cache, then the model or who stands in for it.

Each stage is there only where the settings ask for it; without any, a request goes to the queue at once. No stage waits
where it need not: callbacks, and a task only for a look into Redis or a database.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from canarium_runtime.batching.batcher import Done
from canarium_runtime.batching.merge import Outputs, Run
from canarium_runtime.caching import Abandoned, ResponseCache
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.fallback.chain import FALLBACK, Chain, Marked
from canarium_runtime.parking import Parking
from canarium_runtime.validation import ValidatedInputs

Cancel = Callable[[], None]
Enqueue = Callable[[Any, ValidatedInputs, Done], None]
"""Queues a prediction with its inputs; raises ServingError."""
_NOBODYS = frozenset({ErrorKind.DEADLINE, ErrorKind.QUEUE_FULL, ErrorKind.STOPPING})
"""Failures that say nothing about an equal request, which may have more time."""


class _StoodIn(Outputs):
    """What somebody else than the model answered."""

    __slots__ = ("who",)

    def __init__(self, outputs: Outputs, who: str) -> None:
        super().__init__(outputs.run, outputs.start, outputs.stop)
        self.who = who


class Pipeline:
    """The stages of one model.

    Args:
        enqueue: queues a prediction for the model.
        cancel: gives a queued one up.
        cache: answers that were given before; None: nothing is cached.
        chain: who stands in for the model; None: nobody.
    """

    def __init__(
        self,
        enqueue: Enqueue,
        cancel: Callable[[Any], None],
        *,
        cache: ResponseCache | None = None,
        chain: Chain | None = None,
    ) -> None:
        self._enqueue = enqueue
        self._cancel = cancel
        self.cache = cache
        self.chain = chain
        self.joined = Parking("an equal request was not answered within the request timeout")
        """Requests that wait for an equal one, which is in the queue in their stead."""

    def start(self, prediction: Marked, inputs: ValidatedInputs, done: Done) -> Cancel:
        """Begin to get an answer; see `Prediction.run`.

        Returns:
            Gives it up: `done` is not called after that.
        """
        if self.cache is not None:
            return _Cached(self, self.cache, prediction, inputs, done).start()
        return self.compute(prediction, inputs, done)

    def compute(self, prediction: Marked, inputs: ValidatedInputs, done: Done) -> Cancel:
        """Begin to get an answer from the model, or from who stands in for it."""
        if self.chain is not None:
            return self.chain.run(prediction, inputs, done)
        self._enqueue(prediction, inputs, done)
        return partial(self._cancel, prediction)


class _Cached:
    """One request on its way through the cache.

    In order: the memory; an equal request that is under way; the levels below, in a task; the model. Whoever leads an
    equal few tells the others its answer, and puts it into the cache.
    """

    __slots__ = (
        "_cache",
        "_cancel",
        "_done",
        "_inputs",
        "_joins",
        "_key",
        "_leads",
        "_pipeline",
        "_prediction",
        "_task",
    )

    def __init__(
        self,
        pipeline: Pipeline,
        cache: ResponseCache,
        prediction: Marked,
        inputs: ValidatedInputs,
        done: Done,
    ) -> None:
        self._pipeline = pipeline
        self._cache = cache
        self._prediction = prediction
        self._inputs = inputs
        self._done = done
        self._key = cache.key(inputs)
        self._joins = False
        self._leads = False
        self._task: asyncio.Task[None] | None = None
        self._cancel: Cancel | None = None

    def start(self) -> Cancel:
        """Look into the memory, and go on."""
        found = self._cache.get(self._key)
        if found is not None:
            self._note("hit")
            self._done(Outputs(Run(found)))
        else:
            self._follow()
        return self._give_up

    def _note(self, how: str) -> None:
        if self._prediction.trace is not None:
            self._prediction.trace.cache = how

    def _give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._cancel is not None:
            self._cancel()
        if self._joins:
            self._leave()
        if self._leads:
            self._leads = False
            self._cache.flights.abandon(self._key)

    def _follow(self) -> None:
        """Join an equal request, or be the one that others join."""
        if self._cache.flights.join(self._key, self._landed):
            self._joins = True
            self._note("joined")
            self._pipeline.joined.add(self._expired, self._prediction.deadline)
            return
        self._leads = True
        if self._cache.has_levels_below:
            self._task = asyncio.create_task(self._look_below())
        else:
            self._compute()

    def _leave(self) -> None:
        self._joins = False
        self._pipeline.joined.remove(self._expired)
        self._cache.flights.leave(self._key, self._landed)

    def _expired(self, error: ServingError | None) -> None:
        self._leave()
        if error is not None:
            self._done(error)

    def _landed(self, outcome: Outputs | ServingError | Abandoned) -> None:
        self._joins = False
        self._pipeline.joined.remove(self._expired)
        if not isinstance(outcome, Abandoned):
            if isinstance(outcome, _StoodIn):
                self._prediction.mark(FALLBACK, outcome.who)
            self._done(outcome)
            return
        try:
            self._follow()
        except ServingError as error:
            self._done(error)

    async def _look_below(self) -> None:
        found = await self._cache.get_below(self._key)
        self._task = None
        if found is not None:
            self._note("hit")
            outputs = Outputs(Run(found))
            self._land(outputs)
            self._done(outputs)
            return
        try:
            self._compute()
        except ServingError as error:
            self._done(error)

    def _compute(self) -> None:
        self._note("miss")
        try:
            self._cancel = self._pipeline.compute(self._prediction, self._inputs, self._answered)
        except ServingError:
            self._leads = False
            self._cache.flights.abandon(self._key)
            raise

    def _answered(self, outcome: Outputs | ServingError) -> None:
        self._cancel = None
        if isinstance(outcome, ServingError):
            if outcome.kind in _NOBODYS:
                self._leads = False
                self._cache.flights.abandon(self._key)
            else:
                self._land(outcome)
        elif (marks := self._prediction.marks) is not None and FALLBACK in marks:
            # Not what the model itself says, so it is not kept. Those who wait for it get it, marked: if each asked for
            # itself, one after the other, a model that is broken would make the last of them wait for all.
            self._land(_StoodIn(outcome, marks[FALLBACK]))
        else:
            self._cache.put(self._key, outcome.arrays)
            self._land(outcome)
        self._done(outcome)

    def _land(self, outcome: Outputs | ServingError) -> None:
        self._leads = False
        self._cache.flights.land(self._key, outcome)
