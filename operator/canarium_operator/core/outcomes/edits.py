"""What a manifest must say again after a rollback: the difference of two revisions, value by value."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from canarium_api.base import ApiModel
from canarium_api.gitops_status import MAX_EDITS, Edit
from canarium_operator.core.revision import Revision


def edits_between(failed: Revision, stable: Revision) -> list[Edit]:
    """Give what leads from the failed revision's spec back to the stable one's; at most MAX_EDITS, model first.

    Fields at their default count as absent, as people leave them out. A runtime image that only the operator chose is
    in no manifest.
    """
    found = [
        edit
        for part in ("model", "serving")
        for edit in _edits(
            (part,), _explicit(getattr(failed, part)), _explicit(getattr(stable, part))
        )
    ]
    return found[:MAX_EDITS]


def _explicit(part: ApiModel) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)


def _edits(
    path: tuple[str, ...], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Edit]:
    """Compare two maps; lists are one value, since their entries have no names."""
    for key in [*before, *(key for key in after if key not in before)]:
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _edits((*path, key), old, new)
        else:
            yield Edit(path=[*path, key], before=_text(old), after=_text(new))


def _text(value: Any) -> str | None:
    return json.dumps(value, sort_keys=True) if value is not None else None
