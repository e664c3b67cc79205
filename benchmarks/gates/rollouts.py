"""Whole rollouts on random traffic: Canarium's live engine, and the peers' threshold gates as their docs describe."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from canarium_api.status import Phase
from canarium_operator.core.revision import revision_of
from canarium_operator.testing.scenario import IMAGE, START, Scenario, make_spec

from .traffic import BOUNDS, Nature, Stream, answer

GOOD = Nature()
LONGEST = timedelta(days=3)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one rollout ended."""

    promoted: bool
    held: bool
    """Neither promoted nor taken back when the simulation ended."""
    canary_requests: int
    canary_failed: int
    elapsed: timedelta
    reason: str = ""


def canarium(
    canary: Nature, seed: int, arrivals: Callable[[int], tuple[int, int]], rollout: dict[str, Any]
) -> Outcome:
    """Carry a rollout out with the engine that the operator runs.

    Args:
        canary: the new version in truth; stable is GOOD.
        seed: of the traffic.
        arrivals: canary's weight to the requests of (canary, stable) in one interval.
        rollout: `spec.rollout`.
    """
    random = np.random.default_rng(seed)
    world = Scenario(spec=make_spec("1", rollout=rollout)).settle()
    old = world.wanted.name
    new = make_spec("2", rollout=rollout)
    name = revision_of(new, IMAGE).name
    streams = {old: Stream(GOOD, random), name: Stream(canary, random)}
    interval = new.rollout.analysis.interval
    world = replace(world, metrics=lambda query: answer(query, streams))
    # Ten minutes of stable alone, as a baseline for short rollouts.
    for n in range(int(timedelta(minutes=10) / interval)):
        streams[old].flow(sum(arrivals(1)), START + n * interval)
    start = START + timedelta(minutes=10)
    world = replace(world, now=start).change(new).settle()
    while world.status.canary is not None and world.now - start < LONGEST:
        weight = world.status.rollout.weight if world.status.rollout is not None else 0
        world = world.later(interval.total_seconds())
        to_canary, to_stable = arrivals(weight)
        if weight > 0:
            streams[name].flow(to_canary, world.now)
        if weight < 100:
            streams[old].flow(to_stable, world.now)
        world = _decided(world)
    failures = world.status.failed_revisions
    return Outcome(
        promoted=world.status.phase is Phase.PROMOTING,
        held=world.status.canary is not None,
        canary_requests=streams[name].requests,
        canary_failed=streams[name].failed,
        elapsed=world.now - start,
        reason=failures[-1].message if failures else "",
    )


def _decided(world: Scenario) -> Scenario:
    """Decide until nothing more happens at this moment."""
    while True:
        epoch = world.status.epoch
        world = world.step()
        if world.status.epoch == epoch or world.status.canary is None:
            return world
        world = world.act()


@dataclass(frozen=True, kw_only=True)
class ThresholdGate:
    """A gate of bare thresholds on each interval's own requests, without a least number of them.

    After each `interval`, the share of good answers (and the p99, where the tool's example has it) is held against
    its limit; after more than `forgiven` failed checks the canary is taken back; a weight lasts `checks_per_weight`
    passed checks.
    """

    name: str
    weights: tuple[int, ...]
    interval: timedelta
    checks_per_weight: int
    least_success: float
    forgiven: int
    first_checked_weight: int = 0
    """Checks begin at this weight."""
    most_p99: float | None = None
    """Seconds."""
    failed_check_waits: bool = False
    """A failed check does not move the rollout on."""
    strict: bool = False
    """The share of good answers must be above its limit, not only at it."""

    def run(
        self, canary: Nature, seed: int, arrivals: Callable[[int], tuple[int, int]], base: timedelta
    ) -> Outcome:
        """Carry a rollout out.

        Args:
            canary: the new version in truth.
            seed: of the traffic.
            arrivals: canary's weight to the requests of (canary, stable) in `base`.
            base: the interval that arrivals are counted in.
        """
        stream = Stream(canary, np.random.default_rng(seed))
        now, failures = START, 0
        for weight in self.weights:
            passed = 0
            while passed < self.checks_per_weight:
                before = now
                now += self.interval
                stream.flow(round(arrivals(weight)[0] * (self.interval / base)), now)
                good = weight < self.first_checked_weight or self._passes(stream, before, now)
                failures += not good
                if failures > self.forgiven:
                    return self._ended(stream, now, promoted=False)
                passed += good or not self.failed_check_waits
        return self._ended(stream, now, promoted=True)

    def _passes(self, stream: Stream, before: datetime, now: datetime) -> bool:
        counts = stream.between(before, now)
        requests = counts[2:].sum()
        if requests == 0:
            return False
        success = 1 - counts[0] / requests
        if success < self.least_success or (self.strict and success == self.least_success):
            return False
        if self.most_p99 is None:
            return True
        slow = sum(n for n, bound in zip(counts[2:], BOUNDS, strict=True) if bound > self.most_p99)
        return slow <= 0.01 * requests

    @staticmethod
    def _ended(stream: Stream, now: datetime, *, promoted: bool) -> Outcome:
        return Outcome(
            promoted=promoted,
            held=False,
            canary_requests=stream.requests,
            canary_failed=stream.failed,
            elapsed=now - START,
        )
