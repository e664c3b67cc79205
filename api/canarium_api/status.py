"""`ModelDeployment.status`: what the operator writes, and its whole memory of a rollout.

The operator keeps nothing elsewhere but each revision's template (in the revision's ConfigMap): it may die at
any moment, and the next one goes on from here. All lists are bounded.
"""

from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import Field

from canarium_api.base import ApiModel
from canarium_api.conditions import Condition

MAX_FAILED_REVISIONS: Final = 10
MAX_HISTORY: Final = 20


class Phase(StrEnum):
    """Where the object is in its life, for `kubectl get`."""

    PENDING = "Pending"
    """Seen; nothing exists yet."""
    LOADING = "Loading"
    """Pods of a new revision start and load the model."""
    CANARY = "Canary"
    """The canary gets a share of the traffic."""
    PROMOTING = "Promoting"
    """The canary has become stable; the old revision drains."""
    PROMOTED = "Promoted"
    """The revision of the spec is stable."""
    ROLLING_BACK = "RollingBack"
    """The canary has lost its traffic; it drains."""
    ABORTED = "Aborted"
    """The revision of the spec has failed; the stable one serves."""
    INVALID = "Invalid"
    """The spec cannot be carried out."""


class Verdict(StrEnum):
    """What a check says of the canary."""

    PASS = "Pass"  # noqa: S105 - a verdict
    """All limits are kept."""
    FAIL = "Fail"
    """A limit is broken."""
    PENDING = "Pending"
    """Not measured yet in this step."""
    TOO_FEW_SAMPLES = "TooFewSamples"
    """The canary, or the stable revision that it is compared with, has answered too few requests."""
    NO_DATA = "NoData"
    """The query returned nothing, or there is nothing to compare with."""
    ERROR = "Error"
    """The query failed."""


class Check(ApiModel):
    """The latest result of one check, and what it was held against."""

    name: str
    verdict: Verdict
    value: float | None = None
    """The canary's value: a share for `error-rate`, seconds for `latency-*`."""
    limit: str | None = None
    """The tightest limits in words, such as `max 0.05, increase max 0.01`."""
    baseline: float | None = None
    """The stable revision's value, measured with the same query."""
    samples: int | None = None
    """Requests of the canary that the value rests on."""
    needed: int | None = None
    """Requests that it must rest on."""
    failures: int = 0
    """Failed measurements in this step."""
    message: str = ""
    """One sentence: the comparison, or what is missing."""
    query: str | None = None
    """The PromQL that was run for the canary."""
    measured_at: datetime | None = None


class RevisionStatus(ApiModel):
    """One live revision."""

    revision: str
    """Hash of everything that decides a prediction."""
    model_version: str
    digest: str | None = None
    """sha256 of the model, where the spec pins one."""
    ready_replicas: int = 0
    replicas: int = 0
    weight: int = 0
    """Percent of the traffic that the route gives it."""
    served: bool = False
    """Has been ready behind an accepted route at least once."""


class RetiringRevision(ApiModel):
    """A revision without traffic that drains before it is deleted."""

    revision: str
    since: datetime
    reason: str


class RolloutStatus(ApiModel):
    """The rollout under way."""

    strategy: str = "canary"
    step: int = 1
    """1-based number of the current step."""
    steps: int
    """Number of steps."""
    weights: list[int] = Field(max_length=21)
    """Weights of the steps as planned; where `spec` differs, the rollout is planned anew from its present weight."""
    weight: int = 0
    """Percent of the traffic that the canary shall have now."""
    started_at: datetime
    step_started_at: datetime | None = None
    """When the route was seen to carry this step's weight: the pause and the evidence count from here."""
    evidence_since: datetime | None = None
    """Requests from here on are the evidence of the checks: the start of the latest step that carried traffic."""
    reserved_replicas: int = 1
    """Pods that the stable revision keeps until the end, so that it can take all the traffic back at any moment."""
    blocked_on: str | None = None
    """The one thing that the rollout waits for (a reason)."""
    next_check_at: datetime | None = None
    checks: list[Check] = Field(default=[], max_length=20)


class FailedRevision(ApiModel):
    """A revision that was taken back; not tried again until asked for."""

    revision: str
    model_version: str
    digest: str | None = None
    reason: str
    message: str
    """The evidence in one sentence."""
    checks: list[Check] = Field(default=[], max_length=20)
    """Checks as they stood."""
    step: int | None = None
    weight: int | None = None
    failed_at: datetime


class HistoryEntry(ApiModel):
    """How one revision's rollout ended."""

    revision: str
    model_version: str
    outcome: str
    """Deployed, Promoted, RolledBack or Superseded."""
    message: str
    started_at: datetime | None = None
    finished_at: datetime


class Transition(ApiModel):
    """The latest transition; its number is the epoch of the status."""

    epoch: int
    reason: str
    message: str
    warning: bool = False
    at: datetime


class Summary(ApiModel):
    """Cells of `kubectl get` that no JSONPath can put together."""

    step: str = ""
    """`2/6`."""
    canary: str = ""
    """`v7@9c1fab12`: version and start of the revision."""
    stable: str = ""


class ModelDeploymentStatus(ApiModel):
    """All that the operator knows and decided."""

    observed_generation: int = -1
    phase: Phase = Phase.PENDING
    message: str = ""
    """What it is doing, why and until when, in one sentence."""
    epoch: int = 0
    """Number of transitions so far; each happens once."""
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    stable: RevisionStatus | None = None
    canary: RevisionStatus | None = None
    rollout: RolloutStatus | None = None
    retiring: list[RetiringRevision] = Field(default=[], max_length=MAX_FAILED_REVISIONS)
    failed_revisions: list[FailedRevision] = Field(default=[], max_length=MAX_FAILED_REVISIONS)
    history: list[HistoryEntry] = Field(default=[], max_length=MAX_HISTORY)
    last_transition: Transition | None = None
    waiting_since: datetime | None = None
    """Since when pods or the route have been awaited; the progress deadline counts from here."""
    handled_retry: str | None = None
    """Value of the retry annotation that has been acted on."""
    summary: Summary = Summary()
    """For `kubectl get`."""
