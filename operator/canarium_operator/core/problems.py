"""A mistake in a spec, in a form that a status can show."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake in a spec."""

    field: str
    """Path from the object's root: `spec.rollout.analysis.metrics[0].query`."""
    message: str
    """What is wrong, and what to do."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"
