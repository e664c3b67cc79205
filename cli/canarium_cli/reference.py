"""Writes the lists in docs/reference/cli.md from the commands themselves; `docs/generate.py` calls it."""

import importlib
import re
from collections.abc import Iterable, Sequence
from typing import Final

from canarium_cli.describing import Description, Parameter, describe
from canarium_cli.table import COMMANDS, Group

_ELSEWHERE: Final = {
    "serve": "[Serve a model on your machine](../howto/serve-on-a-laptop.md)",
    "audit": "[Keep an audit log](../howto/audit.md#was-it-changed)",
    "operator": "[Settings](settings.md#operator)",
    "demo": "`make demo` in the [README](../../README.md#see-it-work)",
}
"""Commands that are described on other pages."""
_SHARED: Final = ("kubeconfig", "context", "namespace")
"""Options that are told once for all."""


def commands() -> str:
    """List the commands, by what they are for."""
    lines = []
    for group in Group:
        lines += [f"**{group.value}**", ""]
        for name, command in COMMANDS.items():
            if command.group is group:
                more = f": {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
                shown = f"[`{name}`](#canarium-{name})" if command.typed else f"`{name}`"
                lines.append(f"- {shown}: {command.summary}{more}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def options() -> str:
    """Describe each command: what it does, and what it takes."""
    sections = []
    for name, command in COMMANDS.items():
        if command.typed:
            module = importlib.import_module(command.module)
            sections.append(_section(describe(module.application(name), name)))
    return "\n".join(sections).rstrip() + "\n"


def _section(found: Description, above: str = "canarium", level: int = 2) -> str:
    title = f"{above} {found.name}"
    lines = [f"{'#' * level} {title}", "", _paragraphs(found.help), ""]
    if found.commands:
        return "\n".join([*lines, *(_section(c, title, level + 1) for c in found.commands)])
    lines += ["```text", _usage(title, found.parameters), "```", ""]
    told = [p for p in found.parameters if p.name not in _SHARED or not p.help.startswith(_KNOWN)]
    if told:
        lines += ["| | Default | |", "|---|---|---|", *(_row(p) for p in told), ""]
    return "\n".join(lines)


_KNOWN: Final = ("Namespace. Default", "File of the kubeconfig", "Context of the kubeconfig")


def _usage(title: str, parameters: Iterable[Parameter]) -> str:
    words = [title]
    for parameter in parameters:
        if not parameter.flags:
            word = (parameter.metavar or parameter.name).upper() + ("..." if parameter.many else "")
            words.append(word if parameter.required else f"[{word}]")
    return " ".join([*words, "[OPTIONS]"])


def _row(parameter: Parameter) -> str:
    if parameter.flags:
        value = ""
        if parameter.takes_value:
            value = " " + (
                "|".join(parameter.choices) or parameter.metavar or parameter.name.upper()
            )
        names = ", ".join(f"`{flag}`" for flag in parameter.flags[:-1])
        last = f"`{parameter.flags[-1]}{value}`"
        shown = f"{names}, {last}" if names else last
    else:
        choices = f" ({', '.join(parameter.choices)})" if parameter.choices else ""
        shown = f"`{(parameter.metavar or parameter.name).upper()}`{choices}"
    needed = (
        "**needed**"
        if parameter.required
        else (f"`{parameter.default}`" if parameter.default else "")
    )
    cells: Sequence[str] = (shown, needed, parameter.help)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _paragraphs(text: str) -> str:
    """Join the lines of each paragraph of a docstring."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))
