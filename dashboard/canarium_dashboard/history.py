"""What a dashboard has seen of each ModelDeployment since it watches: weights and measurements, within bounds.

Nothing is guessed between two points, and nothing before the first: what was not watched is not drawn. Pure.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from canarium_api.status import Check, ModelDeploymentStatus, Phase
from canarium_dashboard import settings

Key = tuple[str, str]
"""Namespace and name."""


class Source(StrEnum):
    """How a weight is known."""

    WATCHED = "watched"
    """Seen in the status when it changed."""
    STATUS = "status"
    """The status said since when."""
    EVENT = "event"
    """An Event of the operator told it."""


@dataclass(frozen=True, kw_only=True)
class WeightPoint:
    """From `at` on, `revision` had this weight as the canary."""

    at: datetime
    revision: str
    weight: int
    source: Source = Source.WATCHED


@dataclass(frozen=True, kw_only=True)
class CheckPoint:
    """One measurement of a check."""

    name: str
    revision: str
    """The canary."""
    step: int
    at: datetime
    value: float | None
    baseline: float | None
    low: float | None = None
    """Of the interval of the effect."""
    high: float | None = None
    samples: int | None = None


@dataclass
class _Record:
    weights: list[WeightPoint] = field(default_factory=list)
    checks: list[CheckPoint] = field(default_factory=list)
    measured: dict[str, datetime] = field(default_factory=dict)
    """When each check was measured last."""

    @property
    def size(self) -> int:
        return len(self.weights) + len(self.checks)


class History:
    """Points by ModelDeployment."""

    def __init__(self, max_points: int = settings.MAX_POINTS) -> None:
        self._records: OrderedDict[Key, _Record] = OrderedDict()
        self._size = 0
        self._max = max_points

    def saw(self, key: Key, status: ModelDeploymentStatus, now: datetime) -> None:
        """Take note of a status.

        Args:
            key: whose it is.
            status: as it is now.
            now: when it was seen.
        """
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = _Record()
        before = record.size
        self._weigh(record, status, now)
        if status.rollout is not None and status.canary is not None:
            for check in status.rollout.checks:
                _measure(record, status.canary.revision, status.rollout.step, check)
        del record.weights[: -settings.MAX_WEIGHT_POINTS]
        del record.checks[: -settings.MAX_CHECK_POINTS]
        if record.size != before:
            self._records.move_to_end(key)
        self._size += record.size - before
        while self._size > self._max and len(self._records) > 1:
            _, forgotten = self._records.popitem(last=False)
            self._size -= forgotten.size

    def _weigh(self, record: _Record, status: ModelDeploymentStatus, now: datetime) -> None:
        last = record.weights[-1] if record.weights else None
        canary, rollout = status.canary, status.rollout
        if canary is None or rollout is None:
            if last is not None and last.weight:
                # A canary that is gone has become stable, or has lost its traffic.
                promoted = status.stable is not None and status.stable.revision == last.revision
                gone = 100 if promoted else 0
                if gone != last.weight:
                    record.weights.append(WeightPoint(at=now, revision=last.revision, weight=gone))
            return
        # When a step has begun, the route was seen to carry its weight; `canary.weight` follows one pass later.
        since = rollout.step_started_at
        weight = canary.weight if since is None else rollout.weight
        if last is not None and (last.revision, last.weight) == (canary.revision, weight):
            return
        known = last is not None and last.revision == canary.revision
        if since is None or since > now or (last is not None and known and since < last.at):
            since = now
        source = Source.WATCHED if known or since == now else Source.STATUS
        record.weights.append(
            WeightPoint(at=since, revision=canary.revision, weight=weight, source=source)
        )

    def forget(self, key: Key) -> None:
        """Drop what is known of an object that is gone."""
        record = self._records.pop(key, None)
        self._size -= record.size if record is not None else 0

    def weights(self, key: Key, revision: str) -> list[WeightPoint]:
        """Give the weights of a canary, oldest first."""
        record = self._records.get(key, _Record())
        return [point for point in record.weights if point.revision == revision]

    def checks(self, key: Key, revision: str) -> dict[str, list[CheckPoint]]:
        """Give the measurements of a canary by check, oldest first."""
        found: dict[str, list[CheckPoint]] = {}
        for point in self._records.get(key, _Record()).checks:
            if point.revision == revision:
                found.setdefault(point.name, []).append(point)
        return found


def _measure(record: _Record, revision: str, step: int, check: Check) -> None:
    if check.measured_at is None or record.measured.get(check.name) == check.measured_at:
        return
    record.measured[check.name] = check.measured_at
    record.checks.append(point_of(revision, step, check, check.measured_at))


def point_of(revision: str, step: int, check: Check, at: datetime) -> CheckPoint:
    """Make the point of a check as it stands."""
    low, high = check.interval if check.interval and len(check.interval) == 2 else (None, None)
    return CheckPoint(
        name=check.name,
        revision=revision,
        step=step,
        at=at,
        value=check.value,
        baseline=check.baseline,
        low=low,
        high=high,
        samples=check.samples,
    )


def thinned(points: Sequence[CheckPoint], most: int = settings.MAX_DRAWN) -> list[CheckPoint]:
    """Leave out points evenly where there are more than a chart can show; the last one always stays."""
    if len(points) <= most:
        return list(points)
    stride = -(-len(points) // most)
    return list(points[::-1][::stride][::-1])


def is_under_way(status: ModelDeploymentStatus) -> bool:
    """Tell whether a rollout is under way."""
    ended = (Phase.PROMOTED, Phase.ABORTED, Phase.ROLLING_BACK, Phase.PROMOTING)
    return status.rollout is not None and status.canary is not None and status.phase not in ended
