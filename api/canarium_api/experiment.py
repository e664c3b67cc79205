"""`status.rollout.experiment`: an A/B test, what it has counted, and what that says."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from canarium_api.base import ApiModel
from canarium_api.evidence import Evidence


class GoalVerdict(StrEnum):
    """What a goal says of the new version (B)."""

    BETTER = "Better"
    """B is better, beyond chance."""
    WORSE = "Worse"
    """B is worse, beyond chance."""
    NO_DIFFERENCE = "NoDifference"
    """If there is a difference, it is smaller than `minEffect`."""
    UNDECIDED = "Undecided"
    """The data do not say yet."""


class Tally(ApiModel):
    """What was counted of both versions at one share.

    Names of the counts are `events` and `trials`, or `total`, `squares` and `count`, or the bounds of a histogram.
    """

    stable: dict[str, float] = Field(default={}, max_length=64)
    canary: dict[str, float] = Field(default={}, max_length=64)


class GoalStatus(ApiModel):
    """One goal of an A/B test."""

    name: str
    asked: str = ""
    """Hash of what is counted: an edited query begins anew."""
    verdict: GoalVerdict = GoalVerdict.UNDECIDED
    message: str = ""
    """One sentence: how the versions differ, or what is missing."""
    value: float | None = None
    """Value of the new version (B) at the present share."""
    baseline: float | None = None
    """Value of the stable version (A)."""
    effect: float | None = None
    """B minus A for shares and means, B / A minus 1 for latency."""
    interval: list[float] | None = Field(default=None, max_length=2)
    """Where the effect lies in truth, with a confidence of 1 - alpha for all goals and looks together."""
    p_value: float | None = None
    """Chance to see evidence as strong at any look if B were no different, corrected for goals and directions."""
    samples: int = 0
    """Requests, or values, of B that this rests on."""
    baseline_samples: int = 0
    """The same of A."""
    needed: int | None = None
    """Of each version, after which a difference of `minEffect` would have been found."""
    measured_at: datetime | None = None
    closed: Tally = Tally()
    """Counts of the parts of the test that have ended."""
    open: Tally = Tally()
    """Counts of the present part, as last measured."""
    worse: Evidence = Evidence()
    """Evidence that B is worse."""
    better: Evidence = Evidence()
    """Evidence that B is better."""


class ExperimentStatus(ApiModel):
    """An A/B test."""

    assignment: str
    """Who gets the new version (B)."""
    share: int | None = None
    """Percent of the users, where a hash chooses them."""
    started_at: datetime
    """When the first requests were counted."""
    part_since: datetime | None = None
    """When the present part began: the counts of a long test are added up from parts."""
    part_share: int | None = None
    """Share of the present part."""
    ends_at: datetime | None = None
    """When it ends at the latest."""
    goals: list[GoalStatus] = Field(default=[], max_length=5)
    verdict: GoalVerdict = GoalVerdict.UNDECIDED
    concluded_at: datetime | None = None
    """When it was decided; the traffic stays as it is."""
    message: str = ""
    """The result in a sentence."""
