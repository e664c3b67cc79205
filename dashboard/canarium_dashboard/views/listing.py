"""The page of all ModelDeployments."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from pydantic import Field

from canarium_api.base import ApiModel
from canarium_api.status import ModelDeploymentStatus, Verdict
from canarium_dashboard.views import health
from canarium_dashboard.views.summary import Summary, summary_of


class Row(Summary):
    """One ModelDeployment."""

    weights: list[int] = Field(default=[])
    """Of the steps of the rollout under way."""
    step: int | None = None
    failing: list[str] = Field(default=[])
    """Checks that do not pass because of a limit or a comparison."""
    versions: list[str] = Field(default=[])
    """Of `rollout.fixed`, with their weights."""
    since: datetime | None = None
    """When it last changed."""


class Listing(ApiModel):
    """The page."""

    now: datetime
    rows: list[Row]
    counts: dict[str, int]
    """Rows by health."""
    truncated: bool = False
    """There are more than are shown."""
    problem: str | None = None
    """Why what is shown may be old."""


Entry = tuple[tuple[str, str], int | None, ModelDeploymentStatus]
"""Key, generation and status of one."""


def list_of(
    entries: Iterable[Entry], now: datetime, *, truncated: bool = False, problem: str | None = None
) -> Listing:
    """Make the page: what needs somebody comes first."""
    rows = [_row(*entry) for entry in entries]
    rows.sort(key=lambda row: (health.ORDER.index(row.health), row.namespace, row.name))
    counts = Counter(row.health.value for row in rows)
    return Listing(
        now=now,
        rows=rows,
        counts={each.value: counts[each.value] for each in health.ORDER if counts[each.value]},
        truncated=truncated,
        problem=problem,
    )


def _row(key: tuple[str, str], generation: int | None, status: ModelDeploymentStatus) -> Row:
    rollout, last = status.rollout, status.last_transition
    checks = rollout.checks if rollout is not None else []
    return Row(
        **dict(summary_of(key, generation, status)),
        weights=rollout.weights if rollout is not None else [],
        step=rollout.step if rollout is not None else None,
        failing=[c.name for c in checks if c.verdict is Verdict.FAIL],
        versions=[f"{v.name} {v.weight}%" for v in status.versions],
        since=last.at if last is not None else None,
    )
