"""`canarium describe`: the whole story of a ModelDeployment, from what it does now to how it came there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from canarium_api.experiment import ExperimentStatus
from canarium_api.status import FailedRevision, ModelDeploymentStatus, Verdict
from canarium_cli.rendering import cells, parts
from canarium_cli.rendering.listing import is_seen

_PODS: Final = 20
_EVENTS: Final = 20
_HISTORY: Final = 10
_FAILED: Final = 3
"""Failed revisions whose checks are shown; `canarium history` has them all."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """A ModelDeployment with what belongs to it, at one moment."""

    body: Mapping[str, Any]
    status: ModelDeploymentStatus
    now: datetime
    pods: Sequence[parts.Pod] = ()
    events: Sequence[parts.Told] = ()
    notes: Sequence[str] = ()
    """What could not be read, and why."""


def tell(story: Story) -> Group:
    """Write all of it."""
    found, now = story.status, story.now
    blocks: list[RenderableType] = [_title(story), _now(story)]
    rollout = found.rollout
    if rollout is not None:
        blocks.append(_part("Rollout", _rollout(story)))
    if found.stable is not None or found.canary is not None:
        blocks.append(_part("Revisions", parts.revisions(found)))
    if found.versions:
        blocks.append(_part("Versions", _versions(found)))
    if rollout is not None and rollout.checks:
        telling = [c for c in rollout.checks if c.message and c.verdict is not Verdict.PASS]
        sayings = [Text(f"{c.name}: {c.message}", style="dim") for c in telling]
        blocks.append(_part("Checks", parts.checks(rollout.checks, now), *sayings))
    if rollout is not None and rollout.experiment is not None:
        blocks.append(_part("A/B test", *_experiment(rollout.experiment)))
    if rollout is not None and rollout.gates:
        blocks.append(_part("Gates", _gates(story)))
    if found.conditions:
        blocks.append(_part("Conditions", _conditions(story)))
    if found.retiring:
        blocks.append(_part("Draining", *_retiring(story)))
    if found.failed_revisions:
        blocks.append(_part("Failed before", *_failed(story)))
    if found.actions:
        blocks.append(_part("What people did", _actions(story)))
    if found.history:
        blocks.append(_part("History", history(found, now, _HISTORY)))
    if story.pods:
        blocks.append(_part("Pods", parts.pods(story.pods, now, _PODS)))
    if story.events:
        blocks.append(_part("Events", parts.events(story.events, now, _EVENTS)))
    blocks += [Text(f"note: {note}", style="yellow") for note in story.notes]
    return Group(*blocks)


def _part(title: str, *content: RenderableType) -> RenderableType:
    inner = Padding(Group(*content), (0, 0, 0, 2), expand=False)
    return Padding(Group(Text(title, style="bold"), inner), (1, 0, 0, 0), expand=False)


def _title(story: Story) -> Text:
    meta, found = story.body["metadata"], story.status
    text = Text()
    text.append(f"{meta['namespace']}/{meta['name']}", style="bold")
    text.append("  ")
    text.append(found.phase, style=cells.PHASES.get(found.phase, ""))
    if found.rollout is not None:
        text.append(f"  step {found.rollout.step}/{found.rollout.steps}, {found.rollout.weight}%")
    if created := meta.get("creationTimestamp"):
        text.append(f"  {cells.age(created, story.now)} old", style="dim")
    return text


def _now(story: Story) -> RenderableType:
    found = story.status
    lines = []
    if found.observed_generation < 0:
        words = "no operator has looked at it: does one run, and does it watch this namespace?"
        lines.append(Text(words, style="yellow"))
    elif not is_seen(story.body):
        lines.append(
            Text("the operator has not seen the present spec yet; before:", style="yellow")
        )
    if found.message:
        lines.append(Text(found.message))
    return Group(*lines)


def _rollout(story: Story) -> RenderableType:
    rollout, now = story.status.rollout, story.now
    assert rollout is not None  # noqa: S101 - its caller has looked
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    splitter = "the ratio of pods" if rollout.splitter else ""
    rows: list[tuple[str, Text]] = [
        ("steps", parts.steps(story.status)),
        ("strategy", Text(", split by ".join(filter(None, [rollout.strategy, splitter])))),
        ("began", _at(rollout.started_at, now)),
        ("this step", _at(rollout.step_started_at, now) if rollout.step_started_at else Text("waits to begin")),
    ]  # fmt: skip
    if rollout.blocked_on:
        rows.append(("waits for", Text(rollout.blocked_on, style="yellow")))
    if rollout.next_check_at:
        rest = cells.until(rollout.next_check_at, now)
        rows.append(
            (
                "looks again",
                Text(f"{cells.clock(rollout.next_check_at, now)}{f', {rest}' if rest else ''}"),
            )
        )
    if rollout.paused_at:
        by = f" by {rollout.paused_by}" if rollout.paused_by else ""
        rows.append(
            ("held", Text(f"since {cells.clock(rollout.paused_at, now)}{by}", style="yellow"))
        )
    rows.append(
        (
            "pods kept",
            Text(f"{rollout.reserved_replicas} of stable, to take everything back at any moment"),
        )
    )
    for name, words in rows:
        table.add_row(Text(name, style="dim"), words)
    return table


def _at(at: datetime, now: datetime) -> Text:
    return Text(f"{cells.clock(at, now)}, {cells.age(at, now)} ago")


def _versions(found: ModelDeploymentStatus) -> Table:
    table = parts.grid("name", "state", "version", "revision", "pods", "traffic", "")
    for version in found.versions:
        wanted = f" of {version.wanted_weight}%" if version.wanted_weight != version.weight else ""
        table.add_row(
            Text(version.name),
            Text(
                version.state,
                style={"Serving": "green", "Failed": "red"}.get(version.state, "cyan"),
            ),
            Text(version.model_version),
            Text(version.revision),
            Text(f"{version.ready_replicas}/{version.replicas}"),
            Text(f"{version.weight}%{wanted}"),
            Text(version.message),
        )
    return table


def _experiment(found: ExperimentStatus) -> list[RenderableType]:
    share = f"{found.share}%: " if found.share is not None else ""
    end = f"until {found.ends_at:%Y-%m-%d %H:%M}Z at the latest" if found.ends_at else ""
    if found.concluded_at is not None:
        end = f"{found.verdict} since {found.concluded_at:%Y-%m-%d %H:%M}Z"
    table = parts.grid("goal", "verdict", "B", "A", "effect", "p", "requests B, A", "needed")
    for goal in found.goals:
        between = f" ({goal.interval[0]:.4g} to {goal.interval[1]:.4g})" if goal.interval else ""
        table.add_row(
            Text(goal.name),
            cells.colour(goal.verdict, cells.VERDICTS, "yellow"),
            Text("" if goal.value is None else f"{goal.value:.4g}"),
            Text("" if goal.baseline is None else f"{goal.baseline:.4g}"),
            Text("" if goal.effect is None else f"{goal.effect:.4g}{between}"),
            Text("" if goal.p_value is None else f"{goal.p_value:.2g}"),
            Text(f"{goal.samples}, {goal.baseline_samples}"),
            Text("" if goal.needed is None else str(goal.needed)),
        )
    return [Text("; ".join(filter(None, [f"{share}{found.assignment}", end]))), table]


def _gates(story: Story) -> Table:
    rollout = story.status.rollout
    table = parts.grid("gate", "approved", "asked", "answer")
    for gate in rollout.gates if rollout else ():
        table.add_row(
            Text(gate.name),
            Text("yes", style="green") if gate.approved else Text("no", style="yellow"),
            Text(cells.clock(gate.asked_at, story.now)),
            Text(gate.message),
        )
    return table


def _conditions(story: Story) -> Table:
    table = parts.grid("type", "status", "reason", "for", "message")
    said: set[str] = {story.status.message}
    for condition in story.status.conditions:
        good = condition.status == "True" and condition.type not in ("Stalled", "Reconciling")
        bad = condition.status == "True" and condition.type == "Stalled"
        # The same sentence six times hides the one that differs.
        message = "as above" if condition.message in said else condition.message
        said.add(condition.message)
        table.add_row(
            Text(condition.type),
            Text(condition.status, style="green" if good else "red" if bad else "yellow"),
            Text(condition.reason),
            Text(cells.age(condition.last_transition_time, story.now)),
            Text(message, style="dim" if message == "as above" else ""),
        )
    return table


def _retiring(story: Story) -> Iterable[Text]:
    for entry in story.status.retiring:
        kept = (
            f", kept for {cells.remaining(entry.keep_for)} to go back to" if entry.keep_for else ""
        )
        yield Text(
            f"{entry.revision}  {entry.reason}  since {cells.clock(entry.since, story.now)}{kept}"
        )


def _failed(story: Story) -> Iterable[RenderableType]:
    entries = story.status.failed_revisions
    for entry in entries[-_FAILED:]:
        yield from failure(entry, story.now)
    if len(entries) > _FAILED:
        yield Text(f"and {len(entries) - _FAILED} more: canarium history", style="dim")


def failure(entry: FailedRevision, now: datetime) -> Iterable[RenderableType]:
    """Tell of one revision that failed: what, when, why, and the checks that decided it."""
    where = f" at step {entry.step} ({entry.weight}%)" if entry.step is not None else ""
    line = Text()
    line.append(f"{entry.model_version}@{entry.revision[:8]}", style="bold")
    line.append(f"  {entry.reason}", style="red")
    line.append(f"  {cells.clock(entry.failed_at, now)}{where}")
    if entry.digest:
        line.append(f"  {cells.digest(entry.digest)}", style="dim")
    yield line
    yield Padding(Text(entry.message), (0, 0, 0, 2), expand=False)
    if entry.checks:
        yield Padding(parts.checks(entry.checks, now), (0, 0, 0, 2), expand=False)


def _actions(story: Story) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for action in story.status.actions[-_HISTORY:]:
        table.add_row(
            Text(cells.clock(action.at, story.now), style="dim"),
            Text(action.verb),
            Text(action.by),
            Text(action.message),
        )
    return table


def history(found: ModelDeploymentStatus, now: datetime, limit: int) -> Table:
    """Show how rollouts ended, newest last."""
    table = parts.grid("ended", "version", "revision", "outcome", "took", "")
    for entry in found.history[-limit:]:
        took = cells.age(entry.started_at, entry.finished_at) if entry.started_at else ""
        table.add_row(
            Text(cells.clock(entry.finished_at, now), style="dim"),
            Text(entry.model_version),
            Text(entry.revision),
            cells.colour(entry.outcome, cells.OUTCOMES, "yellow"),
            Text(took),
            Text(entry.message),
        )
    return table
