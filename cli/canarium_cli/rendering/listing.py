"""`canarium get`: one line for each ModelDeployment, with the cells of `kubectl get mdep`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from rich.text import Text

from canarium_cli.rendering import cells

_COLUMNS: Final = ("NAME", "READY", "PHASE", "STEP", "WEIGHT", "CANARY", "STABLE", "REASON", "AGE")
_GAP: Final = 3
"""Spaces between two columns."""
_READY: Final = {"True": "green", "False": "yellow"}


@dataclass
class Listing:
    """Lines of a list, whose columns keep their width or grow: one that is followed does not jump."""

    namespaces: bool = False
    wide: bool = False
    _widths: list[int] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        first = ["NAMESPACE"] if self.namespaces else []
        return [*first, *_COLUMNS, *(["MESSAGE"] if self.wide else [])]

    def lines(
        self, bodies: Iterable[Mapping[str, Any]], now: datetime, *, heading: bool = True
    ) -> list[Text]:
        """Lay out ModelDeployments."""
        rows = [(self.row(body, now), _is_stalled(body)) for body in bodies]
        self._measure([self.columns, *(row for row, _ in rows)])
        head = [self._line(self.columns, heading=True)] if heading else []
        return [*head, *(self._line(row, stalled=stalled) for row, stalled in rows)]

    def row(self, body: Mapping[str, Any], now: datetime) -> list[str]:
        """Write the cells of one."""
        meta, status = body["metadata"], body.get("status") or {}
        summary = status.get("summary") or {}
        ready = condition(body, "Ready")
        weight = (status.get("rollout") or {}).get("weight")
        found = [
            meta["name"],
            str(ready.get("status", "")),
            str(status.get("phase", "")),
            str(summary.get("step", "")),
            "" if weight is None else str(weight),
            str(summary.get("canary", "")),
            str(summary.get("stable", "")),
            str(ready.get("reason", "")),
            cells.age(meta.get("creationTimestamp"), now),
        ]
        if not is_seen(body):  # what the status says is about another spec
            found[1], found[7] = "Unknown", "NotSeenYet"
        first = [meta["namespace"]] if self.namespaces else []
        return [*first, *found, *([str(status.get("message", ""))] if self.wide else [])]

    def _measure(self, rows: Sequence[Sequence[str]]) -> None:
        self._widths += [0] * (len(self.columns) - len(self._widths))
        for row in rows:
            pairs = zip(self._widths, row, strict=True)
            self._widths = [max(width, len(cell)) for width, cell in pairs]

    def _line(self, row: Sequence[str], *, heading: bool = False, stalled: bool = False) -> Text:
        text = Text(no_wrap=True, end="")
        for name, cell, width in zip(self.columns, row, self._widths, strict=True):
            style = "bold" if heading else _style(name, cell, stalled=stalled)
            text.append(cell, style=style)
            if name != self.columns[-1]:
                text.append(" " * (width - len(cell) + _GAP))
        return text


def condition(body: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Find a condition; empty where there is none."""
    found = (body.get("status") or {}).get("conditions") or []
    return next((c for c in found if c.get("type") == kind), {})


def is_seen(body: Mapping[str, Any]) -> bool:
    """Tell whether the status is about the present spec."""
    seen = (body.get("status") or {}).get("observedGeneration", -1)
    return bool(seen == body["metadata"].get("generation"))


def _is_stalled(body: Mapping[str, Any]) -> bool:
    return condition(body, "Stalled").get("status") == "True"


def _style(column: str, cell: str, *, stalled: bool) -> str:
    if column == "PHASE":
        return cells.PHASES.get(cell, "")
    if column in ("READY", "REASON"):
        bad = "red" if stalled else ""
        return bad or (_READY.get(cell, "") if column == "READY" else "")
    return ""
