"""`ModelDeployment.status`: what the operator writes, and its whole memory of a rollout.

The operator keeps nothing elsewhere but each revision's template (in the revision's ConfigMap): it may die at
any moment, and the next one goes on from here. All lists are bounded.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pydantic import Field

from canarium_api.base import ApiModel
from canarium_api.conditions import Condition
from canarium_api.duration import Duration
from canarium_api.evidence import Evidence
from canarium_api.experiment import ExperimentStatus
from canarium_api.gitops_status import GitOpsStatus

MAX_FAILED_REVISIONS: Final = 10
MAX_STEPS: Final = 22
"""Of a rollout: twenty that are listed, one of a shadow before them, one to 100 % after them."""
MAX_HISTORY: Final = 20
MAX_ACTIONS: Final = 20
MAX_VERSIONS: Final = 20
"""Ten of the spec, and those of the spec before, which go."""


class Phase(StrEnum):
    """Where the object is in its life, for `kubectl get`."""

    PENDING = "Pending"
    """Seen; nothing exists yet."""
    LOADING = "Loading"
    """Pods of a new revision start and load the model."""
    CANARY = "Canary"
    """The canary gets a share of the traffic."""
    PAUSED = "Paused"
    """The rollout waits for somebody: paused, or an approval is missing."""
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
    """A limit is broken, or the canary is worse than stable beyond chance."""
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
    """Measurements in this step that broke a fixed limit."""
    errors: int = 0
    """Measurements in a row that ended in an error."""
    inconclusive: int = 0
    """Measurements since the pause of this step that came without enough evidence."""
    total_samples: int | None = None
    """Requests of the canary over all steps so far."""
    total_needed: int | None = None
    """Requests over all steps that the last step waits for: a worsening of `minEffect` would have been found."""
    effect: float | None = None
    """How much worse the canary is: a difference for shares and means, a ratio minus 1 for latency."""
    interval: list[float] | None = Field(default=None, max_length=2)
    """Where the effect lies in truth, with a confidence of 1 - alpha at every look (this step's evidence)."""
    p_value: float | None = None
    """Chance to see evidence as strong at any look if the canary were as good, corrected for the number of checks."""
    eta: datetime | None = None
    """When enough requests will have come, at the present rate."""
    dry_run: bool = False
    """Shown only; decides nothing."""
    evidence: Evidence | None = None
    message: str = ""
    """One sentence: the comparison, or what is missing."""
    query: str | None = None
    """The PromQL that was run for the canary."""
    measured_at: datetime | None = None


class TensorStatus(ApiModel):
    """One input or output of a model."""

    name: str
    datatype: str
    shape: list[int] = Field(default=[], max_length=16)
    """-1 where the size is open."""


class SignatureStatus(ApiModel):
    """What a model takes and gives, as its server says."""

    inputs: list[TensorStatus] = Field(default=[], max_length=64)
    outputs: list[TensorStatus] = Field(default=[], max_length=64)


class ValidationVerdict(StrEnum):
    """What golden data say of a canary."""

    PASSED = "Passed"
    FAILED = "Failed"


class ValidationStatus(ApiModel):
    """How a canary did on golden data, before any traffic."""

    verdict: ValidationVerdict
    message: str = ""
    """What was missed, or met."""
    job: str
    """Its Job, whose log is the report: `kubectl logs job/NAME`."""


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
    signature: SignatureStatus | None = None
    """Inputs and outputs of its model, once a pod of it has told."""
    validation: ValidationStatus | None = None
    """How it did on golden data (`rollout.validation`), once that is known."""


class VersionState(StrEnum):
    """What a version of `rollout.fixed` does."""

    SERVING = "Serving"
    """It serves what the spec asks for, or will as soon as its weight has moved."""
    LOADING = "Loading"
    """Pods of what the spec asks for start; its predecessor serves meanwhile, if there is one."""
    FAILED = "Failed"
    """What the spec asks for cannot be served; its predecessor serves, or `main` has its share."""


class VersionStatus(ApiModel):
    """One version of `rollout.fixed`; `main` is that of `spec.model`."""

    name: str
    state: VersionState = VersionState.SERVING
    revision: str = ""
    """What serves under this name; empty: nothing has yet."""
    model_version: str = ""
    digest: str | None = None
    weight: int = 0
    """Percent of the traffic that the route shall give it."""
    wanted_weight: int = 0
    """Percent that it shall have in the end."""
    ready_replicas: int = 0
    replicas: int = 0
    message: str = ""
    """Why it is not as the spec asks."""
    next: RevisionStatus | None = None
    """What comes up to take its place."""
    since: datetime | None = None
    """Since when pods of `next` are awaited."""
    needed_replicas: int = 0
    """Pods that it keeps while weights move, and for five minutes after."""


class RetiringRevision(ApiModel):
    """A revision without traffic that drains before it is deleted."""

    revision: str
    since: datetime
    reason: str
    keep_for: Duration | None = None
    """How long it keeps its pods. Default: `rollout.scaleDownDelay`."""


class GateStatus(ApiModel):
    """The latest answer of an outside system."""

    name: str
    approved: bool = False
    message: str = ""
    asked_at: datetime | None = None


class Splitter(StrEnum):
    """What gives the canary its share of the traffic."""

    REPLICAS = "replicas"
    """The ratio of pods behind the Service `NAME`."""


class RolloutStatus(ApiModel):
    """The rollout under way."""

    strategy: str = "canary"
    splitter: Splitter | None = None
    """What splits the traffic; absent: the gateway."""
    step: int = 1
    """1-based number of the current step."""
    steps: int
    """Number of steps."""
    weights: list[int] = Field(max_length=MAX_STEPS)
    """Weights of the steps as planned; where `spec` differs, the rollout is planned anew from its present weight."""
    weight: int = 0
    """Percent of the traffic that the canary shall have now."""
    prepared_step: int = 0
    """Step for which enough pods were seen ready; the route has been given its weight since."""
    approved_step: int = 0
    """Step whose end somebody has approved."""
    asked_step: int = 0
    """Step for whose end an approval has been asked."""
    paused_at: datetime | None = None
    """Since when it is held: by a command, by the spec, or by a freeze window."""
    paused_by: str = ""
    """Who paused it by a command."""
    started_at: datetime
    step_started_at: datetime | None = None
    """When the route was seen to carry this step's weight: the pause and the evidence count from here."""
    evidence_since: datetime | None = None
    """Requests from here on are the evidence of the checks: the start of the latest step that carried traffic."""
    reserved_replicas: int = 1
    """Pods that the stable revision keeps until the end, so that it can take all the traffic back at any moment."""
    needed_replicas: int = 0
    """Pods that the canary must have ready for the step that it is in or waits for: its share of the pods that stable
    needs, and enough for the traffic where `capacity.requestsPerSecond` is declared."""
    blocked_on: str | None = None
    """The one thing that the rollout waits for (a reason)."""
    next_check_at: datetime | None = None
    """When it looks again by itself; None: a watch will tell of what is waited for."""
    checks: list[Check] = Field(default=[], max_length=20)
    gates: list[GateStatus] = Field(default=[], max_length=5)
    experiment: ExperimentStatus | None = None
    """The A/B test, where the strategy is `abTest`."""


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


class Action(ApiModel):
    """What somebody did to a rollout."""

    verb: str
    """approve, pause, resume, skip, abort, retry, promote."""
    by: str
    """Who, as the command or the commit says."""
    at: datetime
    revision: str = ""
    step: int | None = None
    message: str = ""


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


class Reserve(ApiModel):
    """Pods that the stable revision keeps for a while after a rollout has ended: its autoscaler judges by what it saw
    before, when another revision had a part of the traffic.
    """

    replicas: int
    until: datetime


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
    versions: list[VersionStatus] = Field(default=[], max_length=MAX_VERSIONS)
    """Versions of `rollout.fixed`, `main` first."""
    versions_moved_at: datetime | None = None
    """When their weights moved last."""
    versions_total: int = 0
    """Pods that all the traffic needed when they began to move."""
    retiring: list[RetiringRevision] = Field(default=[], max_length=MAX_FAILED_REVISIONS)
    failed_revisions: list[FailedRevision] = Field(default=[], max_length=MAX_FAILED_REVISIONS)
    history: list[HistoryEntry] = Field(default=[], max_length=MAX_HISTORY)
    last_transition: Transition | None = None
    waiting_since: datetime | None = None
    """Since when pods or the route have been awaited; the progress deadline counts from here."""
    reserve: Reserve | None = None
    actions: list[Action] = Field(default=[], max_length=MAX_ACTIONS)
    """What people did, latest last."""
    handled_commands: dict[str, str] = Field(default={}, max_length=16)
    """Values of the command annotations that have been acted on, by verb."""
    gitops: GitOpsStatus | None = None
    """Outcomes in git, with `spec.gitops`."""
    summary: Summary = Summary()
    """For `kubectl get`."""

    def to_manifest(self) -> dict[str, Any]:
        """Render it; without `rollout.fixed`, its fields are left out: `kubectl describe` shows what is there."""
        found = super().to_manifest()
        if not self.versions:
            del found["versions"], found["versionsTotal"]
        return found

    @property
    def draining(self) -> list[RetiringRevision]:
        """Revisions that are on their way out; those that are kept for a way back are not."""
        return [entry for entry in self.retiring if entry.keep_for is None]
