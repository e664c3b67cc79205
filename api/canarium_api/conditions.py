"""Conditions in the shape of `metav1.Condition`, and the closed list of their types and reasons.

What kstatus, Flux, `kubectl wait` and Argo CD read out of them is written down in docs/reference/status.md.
All types are positive (True is good) but `Reconciling` and `Stalled`, which follow kstatus' abnormal-true
rule: they are present only while True.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from canarium_api.base import ApiModel


class ConditionType(StrEnum):
    """Types of conditions of a ModelDeployment."""

    READY = "Ready"
    """The revision that the spec asks for is the stable one and serves all the traffic, or its rollout has come as far
    as `rollout.readyWhen` asks for."""
    AVAILABLE = "Available"
    """Some good revision serves."""
    PROGRESSING = "Progressing"
    """A rollout is under way, or has ended as wanted; False when it cannot go on."""
    MODEL_LOADED = "ModelLoaded"
    """The model of the revision that the spec asks for is loaded and verified in at least one pod."""
    GATES_PASSING = "GatesPassing"
    """Every check of the current step passes; Unknown while evidence is missing."""
    COMPATIBLE = "Compatible"
    """The new model's inputs and outputs do not break clients of stable's; Unknown until pods of both have told."""
    CAPACITY_READY = "CapacityReady"
    """The canary's ready pods can take the traffic of the step that it is in or waits for."""
    OUTCOME_RECORDED = "OutcomeRecorded"
    """Outcomes of rollouts are in git; Unknown while one is being written. Only with `spec.gitops`; nothing waits for
    it."""
    RECONCILING = "Reconciling"
    """Abnormal-true: the operator is at work."""
    STALLED = "Stalled"
    """Abnormal-true: nothing more will happen until somebody changes something."""


class Reason(StrEnum):
    """Why: the reason of a condition, of `status.rollout.blockedOn`, and of an Event."""

    # at work
    PENDING = "Pending"
    """The object has been seen; nothing exists yet."""
    AWAITING_PODS = "AwaitingPods"
    """Pods of a revision are not ready yet."""
    AWAITING_ROUTE = "AwaitingRoute"
    """The gateway has not accepted the route, or not yet the new weights."""
    AWAITING_PAUSE = "AwaitingPause"
    """The step's pause has not elapsed."""
    AWAITING_SAMPLES = "AwaitingSamples"
    """Too few requests for a check to count."""
    NO_DATA = "NoData"
    """A query returned nothing."""
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    """Prometheus cannot be reached or refused a query."""
    AWAITING_MEASUREMENT = "AwaitingMeasurement"
    """A check has not run yet in this step."""
    CHECK_FAILING = "CheckFailing"
    """A check fails, within `failureLimit`."""
    AWAITING_APPROVAL = "AwaitingApproval"
    """The step waits for somebody to approve it."""
    EXPERIMENT_RUNNING = "ExperimentRunning"
    """An A/B test goes on: the data do not decide yet."""
    AWAITING_DECISION = "AwaitingDecision"
    """An A/B test is over, and somebody has to decide: promote, skip to 100 %, or abort."""
    AWAITING_GATE = "AwaitingGate"
    """An outside system has not agreed yet."""
    AWAITING_CAPACITY = "AwaitingCapacity"
    """The ready pods cannot take the traffic of the next weight yet."""
    MIRROR_UNSUPPORTED = "MirrorUnsupported"
    """The GatewayClass says that its gateways cannot copy requests, which `rollout.shadow` needs."""
    AWAITING_SIGNATURE = "AwaitingSignature"
    """No pod has told the model's inputs and outputs yet."""
    AWAITING_VALIDATION = "AwaitingValidation"
    """Golden data have not said yet whether the new model is good (`rollout.validation`)."""
    PAUSED = "Paused"
    """Somebody has paused the rollout."""
    FROZEN = "Frozen"
    """A freeze window holds the rollout."""
    PROMOTING = "Promoting"
    """The canary has become stable; the old revision drains."""
    ROLLING_BACK = "RollingBack"
    """The canary lost its traffic; it drains."""
    # events of a rollout
    LAST_GOOD_UNAVAILABLE = "LastGoodUnavailable"
    """The last good revision could not be brought up; the revision of the spec comes up instead."""
    FIRST_DEPLOYMENT = "FirstDeployment"
    """The first revision is being brought up, without a canary."""
    ROLLOUT_STARTED = "RolloutStarted"
    """A canary is being brought up beside the stable revision."""
    ROLLOUT_SUPERSEDED = "RolloutSuperseded"
    """The spec moved on while a canary was under way."""
    ROLLOUT_RETRIED = "RolloutRetried"
    """The user asked for another try of a failed revision."""
    CANARY_PREPARED = "CanaryPrepared"
    """The canary's pods are ready for a step in which no user's request reaches them; no Event."""
    WEIGHT_CHANGED = "WeightChanged"
    """The canary's pods are ready and the route is given the step's weight; no Event."""
    STEP_STARTED = "StepStarted"
    """The route carries the step's weight."""
    STEP_PASSED = "StepPassed"
    """Pause over, all checks pass; where its pods are ready, the next step gets its weight too."""
    CAPACITY_LOST = "CapacityLost"
    """No pod of the canary is ready: its traffic goes to stable, and the step starts over when one is."""
    RETARGETED = "Retargeted"
    """The spec moved on before the first revision had ever served."""
    VERSIONS_PLANNED = "VersionsPlanned"
    """The spec asks for other fixed versions, or other weights: pods of what is new are being brought up."""
    VERSIONS_CHANGED = "VersionsChanged"
    """Pods are ready: fixed versions have got new models or weights."""
    ROLLOUT_REPLANNED = "RolloutReplanned"
    """The steps were edited during the rollout; it goes on from the place that its weight has earned."""
    # people
    APPROVAL_NEEDED = "ApprovalNeeded"
    """Pause over, checks pass: the step waits for an approval."""
    EXPERIMENT_CONCLUDED = "ExperimentConcluded"
    """An A/B test has a result, or its time is over."""
    APPROVED = "Approved"
    """Somebody approved the end of a step."""
    ROLLOUT_PAUSED = "RolloutPaused"
    """Somebody paused the rollout."""
    ROLLOUT_RESUMED = "RolloutResumed"
    """Somebody let the rollout go on."""
    STEP_SKIPPED = "StepSkipped"
    """Somebody ended a step before its evidence did."""
    COMMAND_REFUSED = "CommandRefused"
    """A command does not apply now; the message says why."""
    # ends
    DEPLOYED = "Deployed"
    """The first revision serves."""
    RECOVERED = "Recovered"
    """What stalled the object is mended."""
    SERVING = "Serving"
    """All is as the spec asks."""
    ADMITTED = "Admitted"
    """The rollout has begun, or is held: it counts as ready by `readyWhen: Admitted`; no Event."""
    STEP_REACHED = "StepReached"
    """The rollout has reached the step from which on it counts as ready by `readyWhen: StepReached`; no Event."""
    PROMOTED = "Promoted"
    """The canary passed all steps."""
    ANALYSIS_FAILED = "AnalysisFailed"
    """A check failed more often than `failureLimit` forgives."""
    ANALYSIS_TIMED_OUT = "AnalysisTimedOut"
    """Evidence was missing for longer than `analysis.maxWait`."""
    ABORTED_BY_USER = "AbortedByUser"
    """Somebody aborted the rollout."""
    EXPERIMENT_FAILED = "ExperimentFailed"
    """An A/B test did not find the new version better, and the spec says to take it back then."""
    GATE_REFUSED = "GateRefused"
    """An outside system asked for the canary to be taken back."""
    ROLLOUT_TIMED_OUT = "RolloutTimedOut"
    """The rollout took longer than `canary.maxDuration`."""
    INCOMPATIBLE_SCHEMA = "IncompatibleSchema"
    """The new model's inputs or outputs break clients of the old one."""
    VALIDATION_FAILED = "ValidationFailed"
    """The new model misses a threshold on golden data (`rollout.validation`)."""
    CAPACITY_SUFFICIENT = "CapacitySufficient"
    """The canary's ready pods can take the traffic of its step."""
    COMPATIBLE = "Compatible"
    """The new model takes what clients send, and gives what they read."""
    PROMOTED_BY_USER = "PromotedByUser"
    """Somebody promoted the canary at once."""
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    """Pods or the route were not ready in time."""
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    """The server refused the model: wrong digest, unreadable, unsupported."""
    REVISION_FAILED_BEFORE = "RevisionFailedBefore"
    """The spec names a revision that has failed; it is not tried again by itself."""
    ROLLED_BACK = "RolledBack"
    """The canary is gone, the stable revision serves all the traffic."""
    INVALID_SPEC = "InvalidSpec"
    """The spec contradicts itself; the message names the field and the remedy."""
    REJECTED_BY_CLUSTER = "RejectedByCluster"
    """The API server refused an object made from the spec (quota, admission, a bad pod field)."""
    STABLE_UNAVAILABLE = "StableUnavailable"
    """No pod of the stable revision is ready."""

    # git (spec.gitops)
    OUTCOME_RECORDED = "OutcomeRecorded"
    """The outcome is in git, or there was nothing to write."""
    OUTCOME_PENDING = "OutcomePending"
    """The outcome is being written into git."""
    GIT_UNREACHABLE = "GitUnreachable"
    """The git server cannot be reached, or does not answer in time."""
    GIT_ACCESS_DENIED = "GitAccessDenied"
    """The git server does not let the operator in, or shows it no such repository."""
    GIT_REFUSED = "GitRefused"
    """The git server refused the push: a protected branch, a hook."""
    GIT_CONFLICT = "GitConflict"
    """Others pushed to the branch each time before the outcome could be."""
    GIT_FILE_UNUSABLE = "GitFileUnusable"
    """The branch or the manifest is not there, or is not what can be edited."""
    GIT_SECRET_UNUSABLE = "GitSecretUnusable"  # noqa: S105 - a reason
    """A Secret for git is not there, may not be read, or lacks a key."""
    FORGE_FAILED = "ForgeFailed"
    """The API of GitHub or GitLab refused, or did not answer."""


class Condition(ApiModel):
    """One condition, as `metav1.Condition`."""

    type: ConditionType
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(
        min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"
    )
    message: str = Field(max_length=32768)
    last_transition_time: datetime
    """When `status` last changed, not when the reason or the message did."""
    observed_generation: int
    """The generation that this was decided for: `kubectl wait` ignores a condition whose generation is behind."""


def merge_conditions(previous: Iterable[Condition], wanted: Iterable[Condition]) -> list[Condition]:
    """Keep the transition time of every condition whose status did not change; drop those no longer wanted."""
    before = {c.type: c for c in previous}
    merged = []
    for condition in wanted:
        old = before.get(condition.type)
        if old is not None and old.status == condition.status:
            condition = condition.model_copy(
                update={"last_transition_time": old.last_transition_time}
            )
        merged.append(condition)
    return merged
