"""The model, a breaker around it, and what stands in for it: in that order until one gives an answer.

Theory of operation. A request runs the model, for `timeout_seconds` at most. When that fails for a reason that is not
the client's, the fallbacks are tried one after the other with what is left of the request's time. After some failures
in a row the breaker opens: the model is not asked for a while, and the fallbacks answer at once; then one request is
let through to see. Each fallback has a breaker of its own. A request that had little time, because its client said so
or its body came slowly, says nothing about whom it ran out of time with.

An answer of a fallback is marked, and counted as `fallback`, which is a failure to the gates of a rollout: a new
version must not look good because something else answers for it.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from canarium_runtime.batching.batcher import Asker, Done
from canarium_runtime.batching.merge import Outputs
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.fallback.sources import Cancel, Fallback
from canarium_runtime.resilience.breaker import Breaker, BreakerPolicy, BreakerState
from canarium_runtime.validation import ValidatedInputs

_log = logging.getLogger(__name__)

FALLBACK = "fallback"
"""The mark of an answer that somebody else than the model gave."""


class Marked(Asker, Protocol):
    """What the chain knows of a request."""

    deadline: float
    """Instant of `time.monotonic()` after which nobody wants the answer."""
    marks: dict[str, Any] | None
    """What is out of the ordinary with its answer."""

    def mark(self, name: str, value: Any) -> None:
        """Note what is out of the ordinary with the answer."""
        ...


Submit = Callable[[ValidatedInputs, float, Done, Asker], Any]
_STANDS_IN = frozenset(
    {
        ErrorKind.MODEL_FAILED,
        ErrorKind.DEADLINE,
        ErrorKind.QUEUE_FULL,
        ErrorKind.NOT_READY,
        ErrorKind.INTERNAL,
    }
)
"""Failures that are not the client's, for which somebody else may answer."""
_BLAMES = frozenset({ErrorKind.MODEL_FAILED, ErrorKind.DEADLINE, ErrorKind.INTERNAL})
"""Those that say that whoever was asked is broken, and not just busy."""
_FAIR_SHARE = 0.5
"""A deadline is to be blamed on whoever had at least this share of the time that it may take."""


class Chain:
    """See the module. Call on the event loop.

    Args:
        submit: queues inputs for the model.
        cancel: gives queued ones up.
        fallbacks: in the order in which they are tried.
        timeout_seconds: longest wait for the model, before the fallbacks are tried; None: the request's own.
        patience_seconds: longest wait of a request that does not say how long it waits.
        policy: of the breakers; None: there are none.
    """

    def __init__(
        self,
        submit: Submit,
        cancel: Callable[[Any], None],
        fallbacks: Sequence[Fallback],
        timeout_seconds: float | None,
        patience_seconds: float,
        policy: BreakerPolicy | None,
    ) -> None:
        self._submit = submit
        self._cancel = cancel
        self._fallbacks = fallbacks
        self._timeout_seconds = timeout_seconds
        self._patience_seconds = patience_seconds
        self.breaker = _breaker("the model", policy)
        self._breakers = [_breaker(f.name, policy) for f in fallbacks]
        self.answered: Counter[str] = Counter({f.name: 0 for f in fallbacks})
        """Answers by who stood in."""

    def run(self, prediction: Marked, inputs: ValidatedInputs, done: Done) -> Cancel:
        """Get an answer from somewhere.

        Args:
            prediction: the request; marked when a fallback answers.
            inputs: made for the model.
            done: as `Prediction.run` takes it; may be called before this returns.

        Returns:
            Gives up what is under way.
        """
        return _Attempt(self, prediction, inputs, done).start()

    def problems(self) -> dict[str, str]:
        """Who is cut out, and why: for /health."""
        named = [("model", self.breaker)]
        named += [(f.name, b) for f, b in zip(self._fallbacks, self._breakers, strict=True)]
        return {
            name: breaker.reason
            for name, breaker in named
            if breaker is not None and breaker.state is not BreakerState.CLOSED
        }

    async def close(self) -> None:
        """Let go of what the fallbacks hold."""
        for fallback in self._fallbacks:
            await fallback.close()


def _breaker(name: str, policy: BreakerPolicy | None) -> Breaker | None:
    if policy is None:
        return None

    def changed(state: BreakerState) -> None:
        _log.warning("a breaker changed", extra={"around": name, "state": state.value})

    return Breaker(policy, random.random, changed)


class _Attempt:
    """One request on its way along the chain."""

    def __init__(
        self, chain: Chain, prediction: Marked, inputs: ValidatedInputs, done: Done
    ) -> None:
        self._chain = chain
        self._prediction = prediction
        self._inputs = inputs
        self._done = done
        self._cancel: Cancel | None = None
        self._given_up = False
        self._turn = 0
        """How many were asked."""
        self._breaker: Breaker | None = None
        """Around whoever is being asked."""
        self._ticket = 0
        self._fair_from = 0.0
        """Instant from which a deadline is the fault of whoever is being asked."""

    def start(self) -> Cancel:
        """Ask the model."""
        chain = self._chain
        deadline = self._prediction.deadline
        if chain._timeout_seconds is not None:
            deadline = min(deadline, time.monotonic() + chain._timeout_seconds)

        def ask(done: Done) -> Cancel:
            ticket = chain._submit(self._inputs, deadline, done, self._prediction)
            return lambda: chain._cancel(ticket)

        self._ask(chain.breaker, "the model", chain._timeout_seconds, ask, 0, None)
        return self._give_up

    def _give_up(self) -> None:
        self._given_up = True
        if self._cancel is not None:
            self._cancel()
            if self._breaker is not None:
                self._breaker.dropped(self._ticket, time.monotonic())

    def _ask(
        self,
        breaker: Breaker | None,
        name: str,
        timeout_seconds: float | None,
        ask: Callable[[Done], Cancel],
        following: int,
        why: ServingError | None,
    ) -> None:
        """Ask one, and the next in line when it gives no answer.

        Args:
            breaker: around it.
            name: of it.
            timeout_seconds: how long it may take; None: as long as the request has.
            ask: begins.
            following: index of the fallback that is next in line.
            why: the model's own failure, which the client is told when nobody answers.
        """
        now = time.monotonic()
        ticket = 0 if breaker is None else breaker.admit(now)
        if ticket is None:
            assert breaker is not None  # noqa: S101 - for the type checker
            seconds = max(1, round(breaker.retry_at - now))
            text = f"{name} fails and is left alone for a while"
            self._next(
                following,
                why or ServingError(ErrorKind.NOT_READY, text, retry_after_seconds=seconds),
            )
            return
        self._breaker, self._ticket = breaker, ticket
        patience = self._chain._patience_seconds
        self._fair_from = now + _FAIR_SHARE * min(timeout_seconds or patience, patience)
        self._turn = turn = self._turn + 1

        def done(outcome: Outputs | ServingError) -> None:
            if self._given_up or turn != self._turn:
                return  # nobody waits, or it has failed to begin and answers all the same
            self._turn += 1
            self._cancel = None
            self._report(outcome)
            if isinstance(outcome, ServingError):
                self._next(following, why or outcome)
                return
            if following:
                self._chain.answered[name] += 1
                self._prediction.mark(FALLBACK, name)
            self._done(outcome)

        try:
            cancel = ask(done)
        except ServingError as error:
            done(error)
        except Exception:  # noqa: BLE001 - logged, and the next in line is asked
            _log.exception("asking for an answer failed in this server itself")
            done(ServingError(ErrorKind.INTERNAL, "internal error"))
        else:
            if turn == self._turn:  # else it has answered or failed already
                self._cancel = cancel

    def _next(self, index: int, why: ServingError) -> None:
        chain = self._chain
        if self._given_up:
            return
        out_of_time = time.monotonic() >= self._prediction.deadline
        if why.kind not in _STANDS_IN or index >= len(chain._fallbacks) or out_of_time:
            self._done(why)
            return
        fallback = chain._fallbacks[index]

        def ask(done: Done) -> Cancel:
            return fallback.start(self._inputs, self._prediction.deadline, done)

        breaker, timeout_seconds = chain._breakers[index], fallback.timeout_seconds
        self._ask(breaker, fallback.name, timeout_seconds, ask, index + 1, why)

    def _report(self, outcome: Outputs | ServingError) -> None:
        breaker, ticket = self._breaker, self._ticket
        if breaker is None:
            return
        now = time.monotonic()
        if not isinstance(outcome, ServingError):
            breaker.succeeded(ticket, now)
        elif outcome.kind in _BLAMES and (
            outcome.kind is not ErrorKind.DEADLINE or now >= self._fair_from
        ):
            breaker.failed(ticket, now, outcome.message)
        else:
            breaker.dropped(ticket, now)
