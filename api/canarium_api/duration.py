"""Durations as people write them in manifests: `100ms`, `30s`, `5m`, `1h30m`, `7d`."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

LONGEST = timedelta(days=3650)
"""Far beyond any use, and far below what the sum of a date and a duration can overflow."""
PATTERN = r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


def parse_duration(text: str) -> timedelta:
    """Read a duration such as `1h30m`.

    Raises:
        ValueError: the text is not a sequence of number and unit (ms, s, m, h, d), or is above LONGEST.
    """
    if not re.match(PATTERN, text):
        msg = f"{text!r} is not a duration: write a number and a unit (ms, s, m, h, d), such as 30s or 1h30m"
        raise ValueError(msg)
    seconds = sum(float(n) * _SECONDS[unit] for n, unit in _PART.findall(text))
    if seconds > LONGEST.total_seconds():
        msg = f"{text!r} is too long: at most {format_duration(LONGEST)}"
        raise ValueError(msg)
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """Write a duration so that `parse_duration` reads it back, to the millisecond: 90 s is `1m30s`."""
    rest = round(value.total_seconds() * 1000)
    parts = []
    for unit, size in _UNITS_MS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def approximate_duration(value: timedelta) -> str:
    """Write a duration for people, to its two largest units: 9 m 3 s 20 ms is `9m3s`, 400 ms is `0s`."""
    rest = max(0, round(value.total_seconds())) * 1000
    parts = []
    for unit, size in _UNITS_MS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"


def _coerce(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


Duration = Annotated[
    timedelta,
    BeforeValidator(_coerce),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PATTERN}),
]
