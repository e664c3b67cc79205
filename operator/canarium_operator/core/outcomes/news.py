"""What was learned about outcomes in git since the last pass: an input of the decision, like answers of Prometheus."""

from collections.abc import Mapping
from dataclasses import dataclass

from canarium_api.conditions import Reason
from canarium_api.gitops_status import SourceCommit


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Nothing is left to do for an outcome."""

    commit: str | None = None
    branch: str = ""
    link: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """It could not be written yet."""

    reason: Reason
    message: str


Answer = Settled | Failed


@dataclass(frozen=True, kw_only=True)
class News:
    """What was learned about outcomes since the last pass."""

    answers: Mapping[int, Answer]
    """By epoch."""
    source: SourceCommit | None = None
    """The commit that asked for the canary, where it was just found."""
