"""What an unknown field may have been meant for."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Final

from canarium_api.structural import Schema

_DEPTH: Final = 8
"""How deep a name is looked for elsewhere."""


def advice(name: str, candidates: Sequence[str], schema: Schema) -> str:
    """Say what an unknown field may have been meant for: a name like it, or the same name somewhere else."""
    close = difflib.get_close_matches(name, candidates, 1, 0.7)
    lower = [c for c in candidates if c.lower() == name.lower().replace("_", "").replace("-", "")]
    if best := lower or close:
        return f"there is no such field: did you mean {best[0]}?"
    elsewhere = sorted(_paths(schema, name, "", 0), key=len)
    if elsewhere:
        return f"there is no such field here: it belongs to {elsewhere[0].removeprefix('.')}"
    listed = ", ".join(candidates[:12])
    more = f" and {len(candidates) - 12} more" if len(candidates) > 12 else ""
    return f"there is no such field: known here are {listed}{more}"


def _paths(schema: Schema, name: str, path: str, depth: int) -> Iterator[str]:
    """Find a name anywhere in the spec."""
    if depth > _DEPTH:
        return
    for key, field in schema.get("properties", {}).items():
        if path == "" and key == "status":
            continue
        if key == name and path:
            yield f"{path}.{key}"
        yield from _paths(field, name, f"{path}.{key}", depth + 1)
    if isinstance(schema.get("items"), dict):
        yield from _paths(schema["items"], name, f"{path}[]", depth + 1)
