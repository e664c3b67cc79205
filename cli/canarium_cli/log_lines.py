"""Lines of pods' logs: whose they are, when they were written, and how they look; no IO."""

import heapq
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from canarium_cli.cleaning import clean
from canarium_cli.rendering import cells
from canarium_cli.rendering.parts import Pod

_STAMP: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) ?")
_ANSI: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours that libraries write even where there is no terminal."""
_LEVELS: Final = {"warning": "yellow", "error": "red", "critical": "red"}
_PLAIN: Final = ("time", "level", "logger", "message", "exception")
"""What a line of the runtime's own has besides what is worth a `key=value`."""
_MAX_TEXT: Final = 4000
"""Characters of one line that are shown."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A pod whose log is read."""

    pod: str
    role: str
    """stable, canary, or empty: neither."""
    revision: str

    @property
    def label(self) -> str:
        """What its lines begin with: role, and what tells it from the other pods."""
        return f"{self.role or self.revision[:8] or 'pod'} {self.pod.rsplit('-', 1)[-1]}"


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """One line."""

    source: Source
    at: str
    """As the kubelet says, in UTC, so that lines of several pods can be sorted; empty: unknown."""
    text: str


def chosen(pods: Iterable[Pod], revision: str, limit: int) -> list[Source]:
    """Choose whose logs are read.

    Args:
        pods: all that there are, the canary's first.
        revision: `stable`, `canary`, or the start of a revision; empty: all.
        limit: how many; of each role the same number, as far as there are so many.
    """
    found = [
        Source(pod=pod.name, role=pod.role, revision=pod.revision)
        for pod in pods
        if not revision or pod.role == revision or pod.revision.startswith(revision)
    ]
    by_role: dict[str, list[Source]] = {}
    for source in found:
        by_role.setdefault(source.role, []).append(source)
    taken: list[Source] = []
    while len(taken) < limit and any(by_role.values()):
        for sources in by_role.values():
            if sources and len(taken) < limit:
                taken.append(sources.pop(0))
    return sorted(taken, key=found.index)


def read_line(source: Source, raw: str) -> LogLine:
    """Take the kubelet's time off a line."""
    match = _STAMP.match(raw)
    if match is None:
        return LogLine(source=source, at="", text=raw)
    fraction = (match[2] or ".").ljust(10, "0")
    return LogLine(source=source, at=match[1] + fraction, text=raw[match.end() :])


def merged(logs: Iterable[Iterable[LogLine]]) -> Iterator[LogLine]:
    """Put the lines of several logs, each in its order, in the order of time."""
    return heapq.merge(*logs, key=lambda line: line.at)


def shown(line: LogLine, width: int, *, raw: bool, stamps: bool) -> Text:
    """Lay out a line.

    Args:
        line: the line.
        width: columns of the label.
        raw: as the server wrote it, and not its JSON in words.
        stamps: with the time.
    """
    colour = cells.ROLES.get(line.source.role, "blue")
    text = Text(no_wrap=True)
    text.append(f"{line.source.label.ljust(width)} | ", style=colour)
    words, level = (line.text, "") if raw else in_words(_ANSI.sub("", line.text))
    if stamps:
        text.append(f"{line.at[11:23]} ", style="dim")
    text.append(clean(words[:_MAX_TEXT]), style=_LEVELS.get(level, ""))
    return text


def in_words(text: str) -> tuple[str, str]:
    """Write a line of JSON, as the runtime's are, for people; gives it and its level. Others stay as they are.

    `{"time": ..., "level": "info", "message": "ready", "seconds": 1.2}` is `ready seconds=1.2`.
    """
    if not text.startswith("{"):
        return text, ""
    try:
        entry = json.loads(text)
    except ValueError:
        return text, ""
    if not isinstance(entry, dict) or "message" not in entry:
        return text, ""
    level = str(entry.get("level", ""))
    mark = f"{level}: " if level in _LEVELS else ""
    rest = [f"{key}={_value(value)}" for key, value in entry.items() if key not in _PLAIN]
    words = " ".join([f"{mark}{entry['message']}", *rest])
    if "exception" in entry:
        words += "\n" + str(entry["exception"])
    return words, level


def _value(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    word = str(value)
    return json.dumps(word, ensure_ascii=False) if " " in word else word
