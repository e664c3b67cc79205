"""Tables that several views share: revisions, checks, steps, pods, events."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from canarium_api import GROUP
from canarium_api.status import Check, ModelDeploymentStatus, RevisionStatus
from canarium_cli.rendering import cells
from canarium_operator.core import pods as pod_facts

_REVISION_LABEL: Final = f"{GROUP}/revision"
_BAR: Final = 12
"""Columns of a bar of weight."""


@dataclass(frozen=True, kw_only=True)
class Pod:
    """What is shown of one pod."""

    name: str
    role: str
    """stable, canary, draining, the name of a fixed version, or empty: none of them."""
    revision: str
    ready: bool
    state: str
    """Running, Pending, or the reason why it is not ready."""
    problem: str
    """Why it cannot serve, in words; empty: nothing is known to be wrong."""
    restarts: int
    created: str
    node: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is shown of one Event."""

    at: str
    reason: str
    message: str
    warning: bool
    count: int


def grid(*columns: str) -> Table:
    """Make a table without lines, whose cells are words and not markup."""
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim", show_edge=False)


def pods_of(manifests: Iterable[Mapping[str, Any]], found: ModelDeploymentStatus) -> list[Pod]:
    """Read pods: those of the canary first, then stable's, by name."""
    roles = _roles(found)
    rows = [_pod(dict(manifest), roles) for manifest in manifests]
    order = {"canary": 0, "stable": 1}
    return sorted(rows, key=lambda pod: (order.get(pod.role, 2), pod.name))


def _roles(found: ModelDeploymentStatus) -> dict[str, str]:
    roles = {entry.revision: "draining" for entry in found.retiring}
    roles |= {version.revision: version.name for version in found.versions}
    named = ((found.stable, "stable"), (found.canary, "canary"))
    return roles | {revision.revision: role for revision, role in named if revision is not None}


def _pod(manifest: dict[str, Any], roles: Mapping[str, str]) -> Pod:
    meta, status = manifest["metadata"], manifest.get("status") or {}
    revision = (meta.get("labels") or {}).get(_REVISION_LABEL, "")
    containers = status.get("containerStatuses") or []
    ready = pod_facts.is_ready(manifest)
    problem = None if ready else pod_facts.problem_of([manifest])
    state = "Ready" if ready else str(status.get("phase") or "Pending")
    if meta.get("deletionTimestamp"):
        state = "Ending"
    elif problem is not None:
        state = problem.reason
    return Pod(
        name=meta["name"],
        role=roles.get(revision, ""),
        revision=revision,
        ready=ready,
        state=state,
        problem="" if problem is None else problem.message,
        restarts=sum(int(c.get("restartCount", 0)) for c in containers),
        created=str(meta.get("creationTimestamp", "")),
        node=str((manifest.get("spec") or {}).get("nodeName") or ""),
    )


def events_of(manifests: Iterable[Mapping[str, Any]]) -> list[Told]:
    """Read Events, in the order in which they come."""
    return [
        Told(
            at=str(e.get("lastTimestamp") or e.get("eventTime") or e["metadata"].get("creationTimestamp", "")),
            reason=str(e.get("reason", "")),
            message=str(e.get("message") or e.get("note") or ""),
            warning=e.get("type") == "Warning",
            count=int(e.get("count") or 1),
        )
        for e in manifests
    ]  # fmt: skip


def revisions(found: ModelDeploymentStatus) -> Table:
    """Show stable and canary: version, digest, pods and share of the traffic."""
    pinned = any(r.digest for r in (found.stable, found.canary) if r is not None)
    table = grid("", "version", "revision", *(["model"] if pinned else []), "pods", "traffic")
    rows: list[tuple[str, RevisionStatus | None]] = [
        ("stable", found.stable),
        ("canary", found.canary),
    ]
    for role, revision in rows:
        if revision is None:
            continue
        ready = f"{revision.ready_replicas}/{revision.replicas}"
        share = cells.bar(revision.weight / 100, _BAR)
        table.add_row(
            Text(role, style=cells.ROLES[role]),
            Text(revision.model_version),
            Text(revision.revision),
            *([Text(cells.digest(revision.digest))] if pinned else []),
            Text(ready, style="" if revision.ready_replicas >= revision.replicas else "yellow"),
            Text(f"{share} {revision.weight}%", style=cells.ROLES[role]),
        )
    return table


def steps(found: ModelDeploymentStatus) -> Text:
    """Draw the steps of a rollout: those that are behind it, the present one, those to come."""
    rollout = found.rollout
    text = Text()
    if rollout is None:
        return text
    for number, weight in enumerate(rollout.weights, start=1):
        if number > 1:
            text.append(" ").append("──", style="dim").append(" ")
        if number < rollout.step:
            text.append(f"✓ {weight}%", style="green")
        elif number == rollout.step:
            began = rollout.step_started_at is not None
            text.append(f"{'●' if began else '◐'} {weight}%", style="bold cyan")
        else:
            text.append(f"○ {weight}%", style="dim")
    return text


def checks(found: Sequence[Check], now: datetime) -> Table:
    """Show checks: what the canary does, what it is held against, and how much of the evidence there is."""
    total = any(check.total_needed for check in found)
    extra = ["of all steps"] if total else []
    table = grid("check", "verdict", "canary", "stable", "worse by", "limit", "requests", *extra)
    for check in found:
        row = [
            Text(check.name),
            verdict(check),
            Text(cells.value(check.name, check.value)),
            Text(cells.value(check.name, check.baseline)),
            Text(cells.effect(check.name, check.interval, check.effect)),
            Text(check.limit or ""),
            requests(check, now),
        ]
        if total:
            row.append(Text(cells.evidence(check.total_samples, check.total_needed)))
        table.add_row(*row)
    return table


def verdict(check: Check) -> Text:
    """Write what a check says."""
    text = cells.colour(check.verdict, cells.VERDICTS, "yellow")
    if check.dry_run:
        text.append(" (dry run)", style="dim")
    return text


def requests(check: Check, now: datetime) -> Text:
    """Write how many requests a check has of those that it needs, and until when."""
    enough = check.needed is None or (check.samples or 0) >= check.needed
    words = cells.evidence(check.samples, check.needed)
    if not enough and (rest := cells.until(check.eta, now)):
        words += f", enough {rest}"
    return Text(words, style="" if enough else "yellow")


def pods(rows: Sequence[Pod], now: datetime, limit: int) -> Table:
    """Show pods; those beyond the limit are counted."""
    table = grid("pod", "", "state", "restarts", "age", "")
    for pod in rows[:limit]:
        table.add_row(
            Text(pod.name),
            Text(pod.role, style=cells.ROLES.get(pod.role, "dim")),
            Text(pod.state, style="green" if pod.ready else "yellow"),
            Text(str(pod.restarts), style="red" if pod.restarts else "dim"),
            Text(cells.age(pod.created, now)),
            Text(pod.problem, style="red"),
        )
    if len(rows) > limit:
        table.add_row(Text(f"and {len(rows) - limit} more", style="dim"))
    return table


def events(rows: Sequence[Told], now: datetime, limit: int, *, short: bool = False) -> Table:
    """Show the latest Events, newest last; with `short`, in a line each."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    shown = rows[-limit:]
    clocks = [cells.clock(told.at, now) for told in shown]
    for words in (clocks, [told.reason for told in shown]):
        table.add_column(no_wrap=True, min_width=max(map(len, words), default=0))
    table.add_column(no_wrap=short, overflow="ellipsis" if short else "fold")
    for told, clock in zip(shown, clocks, strict=True):
        times = f" (x{told.count})" if told.count > 1 else ""
        table.add_row(
            Text(clock, style="dim"),
            Text(told.reason, style="yellow" if told.warning else ""),
            Text(told.message + times),
        )
    return table
