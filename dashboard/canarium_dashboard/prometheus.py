"""Range queries to Prometheus, within bounds: how many requests each revision answered, over the time of a rollout.

What the gates decide by is in the status; this is context that the status does not have. Queries are those of
`canarium record`. One small client over HTTP is enough for two queries.
"""

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp

from canarium_api import metric_names
from canarium_dashboard.errors import UnreachableError
from canarium_dashboard.views.weights import TrafficPoint
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.rollout import promql

MAX_POINTS: Final = 120
"""Of one curve."""
MIN_STEP: Final = timedelta(seconds=30)
"""Between two points; at least twice a usual scrape interval."""
MAX_SPAN: Final = timedelta(days=30)
_MAX_ANSWER_BYTES: Final = 4 << 20
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)
_AT_ONCE: Final = 4
"""Queries at the same time, of all users together."""

Table = dict[float, dict[str, float]]
"""Unix time, and revision to requests since the point before."""


class Prometheus:
    """One Prometheus, or whatever speaks its query API."""

    def __init__(self, url: str) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: base URL.
        """
        self._url = url.rstrip("/")
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def traffic(
        self, ref: ObjectRef, canary: str, stable: str, start: datetime, end: datetime
    ) -> list[TrafficPoint]:
        """Give the share of the requests that a canary answered.

        Args:
            ref: the ModelDeployment.
            canary: revision.
            stable: revision.
            start: of the rollout.
            end: of it, or now.

        Raises:
            UnreachableError: no answer, or none that can be read.
        """
        start = max(start, end - MAX_SPAN)
        step = step_of(end - start)
        query = promql.counts_query(ref, (canary, stable), step)
        words = {
            "query": query,
            "start": f"{start.timestamp():.3f}",
            "end": f"{end.timestamp():.3f}",
            "step": f"{step.total_seconds():g}",
        }
        async with self._slots:
            series = await self._ask(words)
        return shares(table_of(series), canary, step)

    async def _ask(self, words: Mapping[str, str]) -> list[dict[str, Any]]:
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.post(f"{self._url}/api/v1/query_range", data=words) as answer,
            ):
                content = await answer.content.read(_MAX_ANSWER_BYTES + 1)
                while not answer.content.at_eof() and len(content) <= _MAX_ANSWER_BYTES:
                    content += await answer.content.read(_MAX_ANSWER_BYTES)
                if len(content) > _MAX_ANSWER_BYTES:
                    msg = "Prometheus answers more than this page can show"
                    raise UnreachableError(msg)
                if answer.status != 200:
                    words_ = content[:200].decode(errors="replace")
                    msg = f"Prometheus refuses with {answer.status}: {words_}"
                    raise UnreachableError(msg)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            msg = f"Prometheus cannot be reached: {type(error).__name__}: {error}"[:300]
            raise UnreachableError(msg) from error
        return parse(content)


def parse(content: bytes) -> list[dict[str, Any]]:
    """Read the series of an answer.

    Raises:
        UnreachableError: it is none of Prometheus'.
    """
    try:
        result: list[dict[str, Any]] = json.loads(content)["data"]["result"]
        for series in result:
            series["metric"], [(float(at), float(value)) for at, value in series["values"]]
    except (ValueError, KeyError, TypeError) as error:
        msg = "what answers at --prometheus is no Prometheus"
        raise UnreachableError(msg) from error
    return result


def step_of(span: timedelta) -> timedelta:
    """Give the time between two points: whole seconds, and at most MAX_POINTS of them."""
    return max(MIN_STEP, timedelta(seconds=math.ceil(span.total_seconds() / MAX_POINTS)))


def table_of(series: Sequence[Mapping[str, Any]]) -> Table:
    """Add the requests of each revision up; those refused as the client's mistake count as answered, too."""
    found: Table = {}
    for each in series:
        revision = each["metric"].get(metric_names.REVISION_LABEL, "")
        for at, text in each["values"]:
            value = float(text)
            if math.isfinite(value) and value >= 0:
                row = found.setdefault(float(at), {})
                row[revision] = row.get(revision, 0.0) + value
    return found


def shares(table: Table, canary: str, step: timedelta) -> list[TrafficPoint]:
    """Give the canary's share at each instant; none where nobody was answered.

    30 of 300 requests in 30 s: a share of 0.1, at 10 requests a second.
    """
    found = []
    for at in sorted(table):
        row = table[at]
        total = sum(row.values())
        if total > 0:
            found.append(
                TrafficPoint(
                    at=datetime.fromtimestamp(at, tz=UTC),
                    share=row.get(canary, 0.0) / total,
                    per_second=total / step.total_seconds(),
                )
            )
    return found
