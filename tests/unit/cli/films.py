"""Rollouts as they are seen by who watches them: the engine's statuses, one after the other, in virtual time."""

import functools
import random
from collections.abc import Iterator
from typing import Any

from tests.e2e.test_describe import SITUATIONS
from tests.unit.cli.api_server import body_of, pods_of

from canarium_cli.following import Snapshot
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.state import WITHOUT_EVENT
from canarium_operator.testing.scenario import IMAGE, Scenario, Traffic, make_spec

V1, V2, V3 = (revision_of(make_spec(version), IMAGE).name for version in "123")
EVERY = 10
"""Seconds between two looks."""
CHECKED: dict[str, Any] = {
    "canary": {"steps": [{"weight": w, "pause": "1m"} for w in (5, 10, 25, 50, 100)]},
    "analysis": {
        "interval": "10s",
        "metrics": [
            {"name": "error-rate"},
            {"name": "latency-p95"},
            {"name": "confidence", "query": 'avg(score{revision="{{revision}}"})', "min": 0.9},
        ],
    },
}


class Film:
    """Plays a world on: each look is a snapshot, with the Events of the transitions so far."""

    def __init__(self, world: Scenario) -> None:
        self.world = world
        self.events: list[dict[str, Any]] = []
        self._told = world.status.epoch

    def look(self) -> Snapshot:
        """See the world as it is."""
        last = self.world.status.last_transition
        if last is not None and last.epoch > self._told:
            self._told = last.epoch
            if last.reason in WITHOUT_EVENT:
                return self._seen()
            self.events.append(
                {
                    "metadata": {"name": f"fraud.{last.epoch}"},
                    "reason": last.reason,
                    "message": last.message,
                    "type": "Warning" if last.warning else "Normal",
                    "lastTimestamp": last.at.isoformat(),
                }
            )
        return self._seen()

    def _seen(self) -> Snapshot:
        return Snapshot(
            at=self.world.now,
            body=body_of(self.world),
            pods=tuple(pods_of(self.world)),
            events=tuple(self.events),
        )

    def play(self, seconds: int, *, errors: float = 0.001, seed: int = 1) -> Iterator[Snapshot]:
        """Let time pass, with traffic whose values vary a little.

        Args:
            seconds: how long.
            errors: the canary's rate of errors.
            seed: of what varies.
        """
        dice = random.Random(seed)
        for _ in range(seconds // EVERY):
            good = Traffic(requests=900, error_rate=0.001 * dice.uniform(0.5, 1.5))
            bad = Traffic(
                requests=400,
                error_rate=errors * dice.uniform(0.6, 1.4),
                custom=0.95 + 0.02 * dice.uniform(-1, 1),
            )
            world = self.world.later(EVERY).serves(V1, good).serves(V2, bad)
            before = world.status.epoch
            for _ in range(20):  # one transition each, as each is one write of the status
                self.world = world.step().act()
                yield self.look()
                if self.world.status.epoch == before:
                    break
                world, before = self.world, self.world.status.epoch


def of_version_2(**rollout: Any) -> Film:
    """Version 1 serves; version 2 has been asked for, and nobody has looked yet."""
    film = Film(Scenario().settle())
    film.world = film.world.change(make_spec("2", rollout={**CHECKED, **rollout}))
    return film


@functools.cache
def whole(errors: float = 0.001) -> tuple[Snapshot, ...]:
    """A rollout of version 2 from the moment before the operator looks at it to its end."""
    film = of_version_2()
    return (film.look(), *film.play(600, errors=errors))


@functools.cache
def situation(name: str) -> Scenario:
    """A world of the golden files of `kubectl describe`."""
    return SITUATIONS[name]()
