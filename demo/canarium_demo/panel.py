"""The live panel: steps, weights, and how each revision does. Pure: from what is seen to something to draw."""

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from canarium_api.status import Check, RevisionStatus, RolloutStatus, Verdict
from canarium_demo.tally import Tally
from canarium_demo.world import World

_BAR: Final = 40
"""Characters."""
_VERDICT_STYLES: Final = {Verdict.PASS: "green", Verdict.FAIL: "bold red"}


def draw(world: World, tally: Tally, now: float, elapsed: float) -> Panel:
    """Draw everything.

    Args:
        world: from the API server.
        tally: from the client.
        now: on the tally's clock.
        elapsed: seconds since the demo began.
    """
    status = world.status
    parts: list[RenderableType] = [
        _line("route", _weights(world)),
        _line("steps", _steps(world.plan, status.rollout)),
        _line("says", Text(status.message, overflow="ellipsis", no_wrap=True)),
        _revisions(world, tally, now),
    ]
    checks = status.rollout.checks if status.rollout is not None else []
    parts += [_line("check", _check(check)) for check in checks]
    minutes, seconds = divmod(int(elapsed), 60)
    title = f"digits: {status.phase.value}"
    return Panel(
        Group(*parts), title=title, subtitle=f"{minutes}:{seconds:02d}", title_align="left"
    )


def _line(label: str, content: Text) -> Text:
    line = Text(f"{label:<7}", style="dim", no_wrap=True, overflow="ellipsis")
    line.append_text(content)
    return line


def _weights(world: World) -> Text:
    """The traffic as the route splits it: one bar, one colour for each revision."""
    line = Text()
    for revision, weight in sorted(
        world.route.items(), key=lambda item: world.versions.get(item[0], "")
    ):
        version = world.versions.get(revision, revision)
        style = "green" if _is_stable(world, revision) else "yellow"
        line.append(f"{version} {weight}% ", style=style)
        line.append("█" * max(1, round(_BAR * weight / 100)), style=style)
        line.append(" ")
    return line if line else Text("none yet")


def _is_stable(world: World, revision: str) -> bool:
    stable = world.status.stable
    return stable is not None and stable.revision == revision


def _steps(plan: Sequence[int], rollout: RolloutStatus | None) -> Text:
    line = Text()
    for number, weight in enumerate(plan, start=1):
        if rollout is None or number > rollout.step:
            line.append(f"{weight}%   ", style="dim")
        elif number < rollout.step:
            line.append(f"{weight}% ✔ ", style="green")
        else:
            line.append(f"{weight}% ▶ ", style="bold yellow")
    return line


def _revisions(world: World, tally: Tally, now: float) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("as clients see it", style="bold")
    for title in ("pods", "share", "req/s", "errors", "p50", "p95", "digits right"):
        table.add_column(title, justify="right")
    for role, revision in (("stable", world.status.stable), ("canary", world.status.canary)):
        if revision is not None:
            table.add_row(*_row(role, revision, tally, now))
    return table


def _row(role: str, revision: RevisionStatus, tally: Tally, now: float) -> tuple[Text, ...]:
    recent = tally.recent(revision.revision, now)
    accuracy = tally.accuracy(revision.revision)
    failing = recent.error_rate > 0
    return (
        Text(f"{role} {revision.model_version}", style="green" if role == "stable" else "yellow"),
        Text(f"{revision.ready_replicas}/{revision.replicas}"),
        Text(f"{recent.share:.0%}"),
        Text(f"{recent.per_second:.0f}"),
        Text(f"{recent.error_rate:.1%}", style="bold red" if failing else ""),
        Text(milliseconds(recent.p50)),
        Text(milliseconds(recent.p95)),
        Text("" if accuracy is None else f"{accuracy:.1%}"),
    )


def _check(check: Check) -> Text:
    line = Text(f"{check.name:<12} ")
    line.append(f"{check.verdict.value:<14}", style=_VERDICT_STYLES.get(check.verdict, "yellow"))
    line.append(f" {check_words(check)}")
    return line


def check_words(check: Check) -> str:
    """Write a check in words: what was found, what is allowed, on how many requests it rests."""
    words = check.message or "not measured yet"
    limit = f" ({check.limit})" if check.limit else ""
    basis = f", {check.samples} requests" if check.samples is not None else ""
    return f"{words}{limit}{basis}"


def milliseconds(seconds: float | None) -> str:
    """Write a latency."""
    return "" if seconds is None else f"{seconds * 1000:.0f} ms"
