"""What kstatus says of an object, in one word; `canarium_api.kstatus` has the rules, and can tell why."""

from typing import Any

from canarium_api.kstatus import Health, judge

__all__ = ["Health", "compute"]


def compute(manifest: dict[str, Any]) -> Health:
    """Judge an object.

    Args:
        manifest: as the API server gives it.
    """
    return judge(manifest).health
