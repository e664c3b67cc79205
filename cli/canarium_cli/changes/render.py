"""Planned changes as text, JSON, and Markdown for a pull request."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from enum import StrEnum
from typing import Final

from canarium_api.duration import approximate_duration
from canarium_cli.changes.fields import FieldChange
from canarium_cli.changes.planning import Change, Effect


class Output(StrEnum):
    """Formats of a plan."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


_SIGNS: Final = {
    Effect.FIRST_DEPLOYMENT: "+",
    Effect.REMOVED: "-",
    Effect.REFUSED: "!",
    Effect.ROLLOUT: "~",
    Effect.VERSIONS: "~",
    Effect.IN_PLACE: "~",
    Effect.NONE: " ",
}
MARKER: Final = "<!-- canarium diff -->"
"""First line of the Markdown, by which a later run finds the comment of an earlier one."""


def render(changes: Sequence[Change], ref: str, output: Output) -> str:
    """Write a plan.

    Args:
        changes: what would happen.
        ref: what the working tree was compared with.
        output: how.
    """
    match output:
        case Output.TEXT:
            return _text(changes, ref)
        case Output.JSON:
            document = {"from": ref, "changes": [_document(change) for change in changes]}
            return json.dumps(document, indent=2, ensure_ascii=False)
        case Output.MARKDOWN:
            return _markdown(changes, ref)


def _document(change: Change) -> dict[str, object]:
    return {**asdict(change), "effect": change.effect.value}


def headline(change: Change) -> str:
    """Say what happens in one sentence."""
    versions = f"{change.before} to {change.after}"
    match change.effect:
        case Effect.FIRST_DEPLOYMENT:
            return f"first deployment of {change.after}"
        case Effect.ROLLOUT:
            return f"a {_STRATEGIES[change.strategy]} rollout begins, {versions}"
        case Effect.VERSIONS:
            return "fixed versions change"
        case Effect.IN_PLACE:
            return "applied in place, no rollout"
        case Effect.REMOVED:
            return "removed"
        case Effect.REFUSED:
            return "would be refused"
        case Effect.NONE:
            return "no change"


_STRATEGIES: Final = {"canary": "canary", "blueGreen": "blue-green", "abTest": "A/B test"}


def duration(change: Change) -> str:
    """Say how long a rollout takes at least."""
    text = approximate_duration(timedelta(seconds=change.least_seconds))
    if change.approvals:
        text += f" and {change.approvals} approval{'s' if change.approvals > 1 else ''}"
    return text


def _text(changes: Sequence[Change], ref: str) -> str:
    lines = []
    for change in changes:
        where = "" if change.where == "files" else f"  ({change.where})"
        sign = _SIGNS[change.effect]
        lines.append(f"{sign} {change.name}{where}: {headline(change)}")
        lines += [f"    {line}" for line in _details(change)]
        lines.append("")
    return "\n".join([*lines, _summary(changes, ref)])


def _details(change: Change) -> list[str]:
    lines = [f"error: {problem}" for problem in change.problems]
    if change.steps:
        lines.append(f"steps: {' > '.join(map(str, change.steps))}")
        lines.append(f"takes at least {duration(change)}; checks may hold it longer")
    if change.breaks:
        lines += [f"breaks clients: {text}" for text in change.breaks]
    if change.revision_fields:
        lines.append("another revision, by")
        lines += [f"  {_field(field)}" for field in change.revision_fields]
    if change.other_fields:
        lines.append("in place")
        lines += [f"  {_field(field)}" for field in change.other_fields]
    return [*lines, *(f"note: {note}" for note in change.notes)]


def _field(change: FieldChange) -> str:
    return f"{change.field}: {change.before or '(absent)'} -> {change.after or '(absent)'}"


def _summary(changes: Sequence[Change], ref: str) -> str:
    if not changes:
        return f"nothing that serves changes since {ref}"
    counts: dict[str, int] = {}
    for change in changes:
        counts[change.effect.value] = counts.get(change.effect.value, 0) + 1
    listed = ", ".join(f"{count} {word}" for word, count in counts.items())
    return f"since {ref}: {listed}"


def _markdown(changes: Sequence[Change], ref: str) -> str:
    lines = [MARKER, "### What this change would do", ""]
    if not changes:
        return "\n".join([*lines, f"Nothing that serves changes since `{ref}`."])
    lines += ["| ModelDeployment | Where | What happens | At least |", "|---|---|---|---|"]
    for change in changes:
        least = duration(change) if change.effect is Effect.ROLLOUT else ""
        cells = (f"`{change.name}`", change.where, f"**{headline(change)}**", least)
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    for change in changes:
        lines += ["", "<details" + (" open" if change.problems or change.breaks else "") + ">"]
        lines += [
            f"<summary><code>{_html(change.name)}</code> in {_html(change.where)}</summary>",
            "",
        ]
        lines += [*_markdown_details(change), "", "</details>"]
    return "\n".join(
        [*lines, "", f"<sub>Compared with <code>{_html(ref)}</code> by canarium diff.</sub>"]
    )


def _markdown_details(change: Change) -> list[str]:
    lines = [f"- :x: {_cell(problem)}" for problem in change.problems]
    lines += [f"- :warning: breaks clients: {_cell(text)}" for text in change.breaks]
    if change.steps:
        lines += ["| Step | Traffic | Pause | Checks | Approval |", "|---|---|---|---|---|"]
        for number, step in enumerate(change.steps, 1):
            pause = approximate_duration(timedelta(seconds=step.pause_seconds))
            kind = f"{step.kind} " if step.kind != "split" else ""
            approval = "yes" if step.approval else ""
            lines.append(
                f"| {number} | {kind}{step.weight}% | {pause} | {step.checks} | {approval} |"
            )
        lines.append("")
    for title, fields in (
        ("Another revision, by", change.revision_fields),
        ("In place", change.other_fields),
    ):
        if fields:
            lines += [f"| {title} | Before | After |", "|---|---|---|"]
            lines += [
                f"| `{_cell(f.field)}` | {_code(f.before)} | {_code(f.after)} |" for f in fields
            ]
            lines.append("")
    return [*lines, *(f"- {_cell(note)}" for note in change.notes)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _code(text: str) -> str:
    return f"`{_cell(text).replace('`', chr(39))}`" if text else ""


def _html(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
