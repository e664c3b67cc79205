"""Weights that the operator's Events tell of: what happened before the dashboard watched.

The operator writes one Event for each transition, and its words of a step that begins are held to what is read here
by a test that plays the operator's own engine. Kubernetes keeps Events for an hour as a rule. Pure.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from canarium_api.conditions import Reason
from canarium_dashboard.history import Source, WeightPoint

_STEP: Final = re.compile(
    r"^step \d+/\d+: (?P<weight>\d+)% of the (?:traffic|users) goe?s? to \S+@(?P<revision>[0-9a-z]+)$"
)
_BEGUN: Final = re.compile(r"^bringing up \S+@(?P<revision>[0-9a-z]+) beside ")
_SECOND: Final = timedelta(seconds=1)
_TELLING: Final = {Reason.STEP_STARTED: _STEP, Reason.ROLLOUT_STARTED: _BEGUN}


def time_of(event: dict[str, Any]) -> datetime | None:
    """Read when an Event happened last; None where it does not say."""
    text = event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp")
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def weights_told(
    events: Iterable[dict[str, Any]], revision: str, since: datetime, until: datetime
) -> list[WeightPoint]:
    """Give the weights of a canary that Events tell of, oldest first.

    Args:
        events: of the ModelDeployment.
        revision: of the canary.
        since: beginning of its rollout; Events carry whole seconds.
        until: end of it, or now.
    """
    found = []
    for event in events:
        at, form = time_of(event), _TELLING.get(event.get("reason", ""))
        match = form.match(str(event.get("message", ""))) if form is not None else None
        if at is None or match is None or not revision.startswith(match["revision"]):
            continue
        if since.replace(microsecond=0) <= at <= until:
            # A rollout begins without traffic for the canary.
            weight = int(match.groupdict().get("weight", 0))
            found.append(WeightPoint(at=at, revision=revision, weight=weight, source=Source.EVENT))
    return sorted(found, key=lambda point: point.at)


def joined(watched: Sequence[WeightPoint], told: Sequence[WeightPoint]) -> list[WeightPoint]:
    """Put together what was watched and what Events tell: each change once, as early as anybody tells it.

    A watch may miss a weight that lasts for a moment; Events know it. Where both tell of one change, what was watched
    counts.
    """
    found: list[WeightPoint] = []
    for point in sorted([*told, *watched], key=_latest):
        if not found or found[-1].weight != point.weight:
            found.append(point)
    return found


def _latest(point: WeightPoint) -> datetime:
    """Give when it happened at the latest: an Event's time has whole seconds, the rest cut off."""
    return point.at + _SECOND if point.source is Source.EVENT else point.at
