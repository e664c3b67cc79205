"""Two specs, field by field."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_DIGEST: Final = re.compile(r"^[0-9a-f]{64}$")
_MOST_SHOWN: Final = 60
"""Characters of a value."""
MAX_FIELDS: Final = 200
"""Fields of one object that are told."""


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """One field that is not what it was."""

    field: str
    before: str
    """As JSON would say it; empty: absent."""
    after: str


def changes(before: Any, after: Any, path: str) -> list[FieldChange]:
    """Name what differs, at most MAX_FIELDS fields."""
    found = []
    for change in _walk(before, after, path):
        found.append(change)
        if len(found) == MAX_FIELDS:
            break
    return found


_ABSENT: Final = object()


def _walk(before: Any, after: Any, path: str) -> Iterator[FieldChange]:
    if before == after and type(before) is type(after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys((*before, *after)):
            inner = f"{path}.{name}"
            yield from _walk(before.get(name, _ABSENT), after.get(name, _ABSENT), inner)
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            one = before[index] if index < len(before) else _ABSENT
            other = after[index] if index < len(after) else _ABSENT
            yield from _walk(one, other, f"{path}[{index}]")
    else:
        yield FieldChange(field=path, before=_shown(before), after=_shown(after))


def _shown(value: Any) -> str:
    if value is _ABSENT or value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if _DIGEST.match(text):
        return text[:12]
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
