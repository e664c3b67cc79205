"""`canarium watch`: one frame of the live view, and one line of the plain one."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from canarium_api.status import Check
from canarium_cli.following import REACHED, TAKEN_BACK, TIMED_OUT, USAGE, End, Line, Snapshot
from canarium_cli.rendering import cells, parts
from canarium_cli.rendering.listing import is_seen

_WORDS: Final = 16
"""Columns of the reason in a plain line."""
_FEWEST: Final = 3
"""Events that come before pods where there is little room."""
_AROUND: Final = 3
"""Lines of a table besides its rows: head, rule, and a blank one after it."""
_PODS: Final = 8
_EVENTS: Final = 10
_ENDS: Final = {
    REACHED: "reached",
    TAKEN_BACK: "not promoted",
    USAGE: "wrong usage",
    TIMED_OUT: "timed out",
}
_TREND: Final = 16
"""Columns of a sparkline."""


def frame(
    snapshot: Snapshot,
    trends: Mapping[str, Sequence[float]],
    *,
    width: int = 120,
    height: int = 40,
) -> RenderableType:
    """Draw a ModelDeployment.

    Args:
        snapshot: what was seen last.
        trends: earlier values of its checks.
        width: columns of the terminal.
        height: its lines: fewer pods and Events are shown where it is low.
    """
    body, found, now = snapshot.body, snapshot.status, snapshot.at
    if body is None:
        return Text("the ModelDeployment was deleted", style="red")
    checks = found.rollout.checks if found.rollout is not None else []
    message = _message(snapshot)
    blocks: list[RenderableType] = [_head(snapshot), message, Text()]
    used = 2 + -(-len(message) // width)
    if found.rollout is not None:
        blocks += [parts.steps(found), Text()]
        used += 2
    blocks += [parts.revisions(found), Text()]
    used += 3 + (found.stable is not None) + (found.canary is not None)
    if checks:
        blocks += [live_checks(checks, now, trends), Text()]
        used += 3 + len(checks)
    blocks += _surroundings(snapshot, height - used - len(snapshot.notes) - 1)
    blocks += [Text(note, style="yellow") for note in snapshot.notes]
    return Group(*blocks)


def _surroundings(snapshot: Snapshot, rest: int) -> list[RenderableType]:
    """Show as many pods and Events as the rest of the lines hold; Events go first, and pods that are not ready."""
    now, found = snapshot.at, snapshot.status
    pods = parts.pods_of(snapshot.pods, found)
    pods.sort(key=lambda pod: pod.ready)
    events = parts.events_of(snapshot.events)
    blocks: list[RenderableType] = []
    pod_rows = min(_PODS, len(pods), max(0, (rest - _FEWEST) // 2 - _AROUND))
    if pod_rows > 0:
        blocks += [parts.pods(pods, now, pod_rows), Text()]
        rest -= pod_rows + _AROUND + (pod_rows < len(pods))
    if events:
        blocks.append(parts.events(events, now, max(1, min(_EVENTS, rest)), short=True))
    return blocks


def live_checks(
    found: Sequence[Check], now: datetime, trends: Mapping[str, Sequence[float]]
) -> Table:
    """Show checks in a line each, with a sparkline of the values so far; where room is short, limits are cut.

    Args:
        found: the checks.
        now: the present instant.
        trends: earlier values of each, the present one last.
    """
    rows = [
        [
            Text(check.name),
            parts.verdict(check),
            Text(cells.value(check.name, check.value)),
            Text(cells.value(check.name, check.baseline)),
            _evidence(check, now),
            Text(cells.sparkline(trends.get(check.name, ()), _TREND), style="cyan"),
            Text(check.limit or "", style="dim"),
        ]
        for check in found
    ]
    table = parts.grid()
    heads = ("check", "verdict", "canary", "stable", "evidence", "trend")
    for head, column in zip(heads, zip(*rows, strict=True), strict=False):
        widest = max(len(head), *(cell.cell_len for cell in column))
        table.add_column(head, no_wrap=True, min_width=widest)
    table.add_column("limit", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    return table


def _evidence(check: Check, now: datetime) -> Text:
    share = min(1.0, (check.samples or 0) / check.needed) if check.needed else 1.0
    text = Text(cells.bar(share, 6), style="green" if share >= 1 else "yellow")
    text.append(" ").append_text(parts.requests(check, now))
    if check.total_needed and (check.total_samples or 0) < check.total_needed:
        text.append(f", {cells.evidence(check.total_samples, check.total_needed)} in all")
    return text


def _head(snapshot: Snapshot) -> Table:
    assert snapshot.body is not None  # noqa: S101 - its caller has looked
    meta, found = snapshot.body["metadata"], snapshot.status
    left = Text()
    left.append(f"{meta['namespace']}/{meta['name']}", style="bold")
    left.append("  ")  # apart from the styled words: exported pictures drop blanks at their ends
    left.append(found.phase, style=f"bold {cells.PHASES.get(found.phase, '')}")
    if found.rollout is not None:
        rollout = found.rollout
        left.append("  ").append(
            f"step {rollout.step}/{rollout.steps}, {rollout.weight}%", "default"
        )
        if rollout.blocked_on:
            left.append("  ").append(rollout.blocked_on, style="yellow")
        if rest := cells.until(rollout.next_check_at, snapshot.at):
            left.append("  ").append(f"looks again {rest}", style="dim")
    table = Table.grid(expand=True)
    table.add_column()
    table.add_column(justify="right")
    table.add_row(left, Text(f"{snapshot.at:%H:%M:%SZ}", style="dim"))
    return table


def _message(snapshot: Snapshot) -> Text:
    assert snapshot.body is not None  # noqa: S101 - its caller has looked
    note = "" if is_seen(snapshot.body) else "the present spec has not been seen yet; before: "
    return Text(note + snapshot.status.message)


def plain(line: Line) -> Text:
    """Write one line: when, what, and the words."""
    text = Text(no_wrap=True)
    text.append(f"{line.at:%H:%M:%SZ}  ", style="dim")
    text.append(line.word.ljust(_WORDS), style="yellow" if line.warning else "cyan")
    text.append(f"  {line.text}", style="yellow" if line.warning else "")
    return text


def ending(end: End) -> Text:
    """Write how a watch ended."""
    words = _ENDS.get(end.code, "lost")
    text = Text()
    if end.code == REACHED:
        text.append("promoted" if end.promoted else words, style="bold green")
    else:
        text.append(words, style="bold red")
    text.append(f": {end.message}")
    return text
