"""What a cluster says, made fit for a terminal."""

from typing import Any, Final

_CONTROLS: Final = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "�")


def clean(value: Any) -> Any:
    """Take control characters out of what a cluster says: a pod's words must not steer the terminal that shows them.

    Tabs and ends of lines stay.
    """
    if isinstance(value, str):
        return value if value.isprintable() else value.translate(_CONTROLS)
    if isinstance(value, dict):
        return {key: clean(part) for key, part in value.items()}
    if isinstance(value, list):
        return [clean(part) for part in value]
    return value
