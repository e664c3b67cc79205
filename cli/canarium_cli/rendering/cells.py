"""Single words of tables: ages, shares, bars, sparklines, colours, and the terminal that they go to.

The types of a status take a third of a second to import, and lists and completion do without: words are compared here.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TextIO

from rich.console import Console
from rich.text import Text

PLAIN_WIDTH: Final = 160
"""Columns where there is no terminal and no COLUMNS."""
MAX_WIDTH: Final = 160
"""Columns that are used of a wider terminal, but by lists."""
PHASES: Final = {
    "Promoted": "green",
    "Canary": "cyan",
    "Loading": "cyan",
    "Promoting": "cyan",
    "Paused": "yellow",
    "RollingBack": "red",
    "Aborted": "red",
    "Invalid": "red",
}
VERDICTS: Final = {
    "Pass": "green",
    "Fail": "red",
    "Error": "red",
    "Better": "green",
    "Worse": "red",
    "NoDifference": "blue",
}
OUTCOMES: Final = {"Promoted": "green", "Deployed": "green", "RolledBack": "red"}
ROLES: Final = {"stable": "green", "canary": "yellow"}
"""Colours of the two revisions, wherever they are told apart."""
_STEPS: Final = "▁▂▃▄▅▆▇█"
_FULL: Final = "█"
_EMPTY: Final = "░"


def console(file: TextIO | None = None) -> Console:
    """Make the console of a command: colours at a terminal alone, and no line cut short where there is none."""
    target = file or sys.stdout
    width = None
    if not target.isatty():
        width = int(os.environ.get("COLUMNS") or 0) or PLAIN_WIDTH
    return Console(file=target, width=width, highlight=False, soft_wrap=False)


def age(since: datetime | str | None, now: datetime) -> str:
    """Write an age as kubectl does: `51s`, `5m30s`, `12m`, `3h20m`, `2d4h`, `40d`."""
    at = instant(since)
    if at is None:
        return ""
    seconds = max(0, int((now - at).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    return _two(days, "d", hours % 24, "h") if days < 8 else f"{days}d"


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}" + (f"{second}{smaller}" if second else "")


def instant(value: datetime | str | None) -> datetime | None:
    """Read an instant of an object; None where there is none, or none that can be read."""
    if not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def clock(at: datetime | str | None, now: datetime) -> str:
    """Write an instant: the time alone on the same day, with the date before it else."""
    at = instant(at)
    if at is None:
        return ""
    return f"{at:%H:%M:%SZ}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%SZ}"


def until(at: datetime | None, now: datetime) -> str:
    """Write how long it is until an instant; empty where it is past or unknown."""
    if at is None or at <= now:
        return ""
    return f"in {age(now, at)}"


def colour(word: str, colours: dict[Any, str], default: str = "") -> Text:
    """Colour a word by what it says; the word itself tells it, too, where there are no colours."""
    return Text(word, style=colours.get(word, default))


def digest(value: str | None) -> str:
    """Shorten a digest to what tells it from others."""
    return f"sha256:{value[:12]}" if value else ""


def value(name: str, number: float | None) -> str:
    """Write a check's value in its unit."""
    from canarium_operator.core.rollout.analysis import format_value  # lists do without

    return "" if number is None else format_value(name, number)


def effect(name: str, interval: Sequence[float] | None, number: float | None) -> str:
    """Write how much worse a canary is, and between what bounds in truth: `+19.9% (14.4% to 25.1%)`."""
    if number is None:
        return ""
    found = _signed(name, number)
    if interval is not None and len(interval) == 2:
        found += f" ({_signed(name, interval[0])} to {_signed(name, interval[1])})"
    return found


def _signed(name: str, number: float) -> str:
    from canarium_operator.core.rollout.analysis import format_effect

    words = format_effect(name, abs(number))
    return f"{'-' if number < 0 else '+'}{words}" if number else words


def evidence(seen: int | None, needed: int | None) -> str:
    """Write how many requests there are of those that are needed: `40/100`."""
    if seen is None:
        return f"0/{needed}" if needed else ""
    return f"{seen}/{needed}" if needed else str(seen)


def bar(share: float, width: int) -> str:
    """Draw a share of 0 to 1: 0.3 of ten columns is `███░░░░░░░`; what is not nothing shows."""
    share = min(max(share, 0.0), 1.0)
    full = round(share * width)
    if share > 0 and full == 0:
        full = 1
    return _FULL * full + _EMPTY * (width - full)


def sparkline(values: Iterable[float], width: int) -> str:
    """Draw the latest values: the lowest is `▁`, the highest `█`; those that are all the same lie in the middle.

    0, 1, 2 and 3 are `▁▃▆█`: 7 steps over a range of 3, rounded.
    """
    shown = [v for v in list(values)[-width:] if v == v]  # NaN is not drawn
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high - low <= 1e-12 * max(abs(high), abs(low)):
        return _STEPS[3] * len(shown)
    scale = (len(_STEPS) - 1) / (high - low)
    return "".join(_STEPS[round((v - low) * scale)] for v in shown)


def remaining(duration: timedelta) -> str:
    """Write a duration for people."""
    start = datetime(2000, 1, 1, tzinfo=UTC)
    return age(start, start + duration)
