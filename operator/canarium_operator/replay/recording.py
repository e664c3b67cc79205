"""Recorded metrics: cumulative samples of both roles, read from JSON, asked like a Prometheus.

The format is in docs/reference/recorded-metrics.md. Values between samples are not made up: what counts at an instant
is the last sample at or before it, as in an instant query.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any, Final

from canarium_api import metric_names
from canarium_api.metric_names import PredictionStatus
from canarium_operator.core.rollout.queries import Query, QueryKind, Series, Vector
from canarium_operator.errors import OperatorError

ROLES: Final = ("stable", "canary")
_FIELDS: Final = frozenset(
    {"at", "revision", "requests", "errors", "invalid", "latency_seconds_buckets", "values"}
)


class RecordingError(OperatorError):
    """A recorded file cannot be used; the message says where and what to do."""


@dataclass
class Counter:
    """A counter over time, which starts over at 0 when its server does."""

    times: list[float] = field(default_factory=list)
    """Seconds since the rollout began, rising."""
    values: list[float] = field(default_factory=list)
    grown: list[float] = field(default_factory=list)
    """All that was counted until each sample, over restarts."""

    def add(self, at: float, value: float) -> None:
        """Take a sample."""
        if self.times:
            step = value - self.values[-1] if value >= self.values[-1] else value
            total = self.grown[-1] + step
        else:
            # A counter without a sample at or before the start is 0 there.
            total = value if at > 0 else 0.0
        self.times.append(at)
        self.values.append(value)
        self.grown.append(total)

    def increase(self, start: float, end: float) -> float:
        """Count what came after start, until end."""
        return self._grown(end) - self._grown(start)

    def last(self, at: float) -> float | None:
        """Give the value of the last sample at or before an instant."""
        index = bisect_right(self.times, at)
        return self.values[index - 1] if index else None

    def _grown(self, at: float) -> float:
        index = bisect_right(self.times, at)
        return self.grown[index - 1] if index else 0.0


@dataclass
class Role:
    """What was recorded of one revision."""

    requests: Counter = field(default_factory=Counter)
    """All but those that were refused as the client's mistake."""
    errors: Counter = field(default_factory=Counter)
    invalid: Counter = field(default_factory=Counter)
    buckets: dict[float, Counter] = field(default_factory=dict)
    values: dict[str, Counter] = field(default_factory=dict)


@dataclass
class Recording:
    """A recorded file."""

    roles: dict[str, Role] = field(default_factory=lambda: {role: Role() for role in ROLES})
    end: float = 0.0
    """Seconds; instant of the last sample."""

    def answer(self, query: Query, at: float, revisions: Mapping[str, str]) -> Vector:
        """Answer a query of the gate.

        Args:
            query: in its parts; its PromQL is not looked at.
            at: the query's instant, in seconds since the rollout began.
            revisions: revision to role.
        """
        start = at - query.look_back / timedelta(seconds=1)
        found: list[Series] = []
        for revision in query.revisions:
            role = self.roles[revisions[revision]]
            if query.kind is QueryKind.NUMBER:
                found += _number(role, query, start, at)
            elif bisect_right(role.requests.times, at):
                found += _counted(role, query.kind, revision, start, at)
        return tuple(found)


def _counted(role: Role, kind: QueryKind, revision: str, start: float, end: float) -> list[Series]:
    label = {metric_names.REVISION_LABEL: revision}
    if kind is QueryKind.BUCKETS:
        return [
            Series(labels={**label, "le": str(bound)}, value=counter.increase(start, end))
            for bound, counter in sorted(role.buckets.items())
        ]
    errors = role.errors.increase(start, end)
    by_status = {
        PredictionStatus.SUCCESS: role.requests.increase(start, end) - errors,
        PredictionStatus.ERROR: errors,
        PredictionStatus.INVALID: role.invalid.increase(start, end),
    }
    return [
        Series(labels={**label, metric_names.STATUS_LABEL: status}, value=value)
        for status, value in by_status.items()
    ]


def _number(role: Role, query: Query, start: float, end: float) -> list[Series]:
    """Give a user's value as it was, and a part of a proportion or a mean by how much it grew."""
    if query.part == "query":
        counter = role.values.get(query.metric)
        value = counter.last(end) if counter is not None else None
        return [Series(value=value)] if value is not None else []
    counter = role.values.get(f"{query.metric}.{query.part}")
    return [Series(value=counter.increase(start, end))] if counter is not None else []


def parse(text: str) -> Recording:
    """Read a recorded file.

    Raises:
        RecordingError: it is no list of samples, or one of them contradicts itself or those before it.
    """
    try:
        raw = json.loads(text)
    except ValueError as error:
        msg = f"not JSON: {error}"
        raise RecordingError(msg) from error
    if not isinstance(raw, list) or not raw:
        msg = 'a list of samples is needed: [{"at": 0, "revision": "stable", "requests": 0, "errors": 0}, ...]'
        raise RecordingError(msg)
    recording = Recording()
    for index, sample in enumerate(raw):
        _take(recording, sample, f"sample {index}")
    for name, role in recording.roles.items():
        if not role.requests.times:
            msg = f'no sample has "revision": "{name}": record both roles'
            raise RecordingError(msg)
    return recording


def _take(recording: Recording, sample: Any, where: str) -> None:
    if not isinstance(sample, dict):
        msg = f"{where}: not an object"
        raise RecordingError(msg)
    unknown = sorted(sample.keys() - _FIELDS)
    if unknown:
        msg = f"{where}: unknown field {unknown[0]!r}: use {', '.join(sorted(_FIELDS))}"
        raise RecordingError(msg)
    if sample.get("revision") not in ROLES:
        msg = f'{where}: "revision" must be "stable" or "canary"'
        raise RecordingError(msg)
    role = recording.roles[sample["revision"]]
    at = _amount(sample.get("at"), f'{where}: "at"', negative=True)
    if role.requests.times and at <= role.requests.times[-1]:
        msg = f'{where}: "at" is {at:g}, not after the sample before it of the same revision: sort the samples by time'
        raise RecordingError(msg)
    requests = _amount(sample.get("requests"), f'{where}: "requests"')
    errors = _amount(sample.get("errors", 0), f'{where}: "errors"')
    if errors > requests:
        msg = f"{where}: {errors:g} errors among {requests:g} requests: errors are counted among the requests"
        raise RecordingError(msg)
    role.requests.add(at, requests)
    role.errors.add(at, errors)
    role.invalid.add(at, _amount(sample.get("invalid", 0), f'{where}: "invalid"'))
    for bound, count in _buckets(sample.get("latency_seconds_buckets"), where).items():
        role.buckets.setdefault(bound, Counter()).add(at, count)
    for name, value in _object(sample.get("values"), f'{where}: "values"').items():
        number = _amount(value, f'{where}: "values"."{name}"', negative=True)
        role.values.setdefault(name, Counter()).add(at, number)
    recording.end = max(recording.end, at)


def _buckets(raw: Any, where: str) -> dict[float, float]:
    place = f'{where}: "latency_seconds_buckets"'
    found = {}
    for text, count in _object(raw, place).items():
        try:
            bound = float(text)
        except ValueError:
            bound = math.nan
        if math.isnan(bound):
            msg = f'{place}: {text!r} is no bound in seconds: write "0.05" or "+Inf"'
            raise RecordingError(msg)
        found[bound] = _amount(count, f"{place}.{text!r}")
    if found and math.inf not in found:
        msg = f'{place}: the bucket "+Inf" is missing: add it, with all requests'
        raise RecordingError(msg)
    for (low, below), (high, count) in pairwise(sorted(found.items())):
        if count < below:
            msg = f"{place}: {count:g} up to {high:g} s, but {below:g} up to {low:g} s: counts are cumulative"
            raise RecordingError(msg)
    return found


def _object(raw: Any, place: str) -> dict[str, Any]:
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        msg = f"{place}: not an object"
        raise RecordingError(msg)
    return raw


def _amount(raw: Any, place: str, *, negative: bool = False) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not math.isfinite(raw):
        msg = f"{place}: a number is needed, not {json.dumps(raw)[:40]}"
        raise RecordingError(msg)
    if raw < 0 and not negative:
        msg = f"{place}: {raw:g} is below 0: a counter only grows"
        raise RecordingError(msg)
    return float(raw)
