"""What goes into a decision and what comes out, and the few moves that all rules share."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from canarium_api.conditions import Reason
from canarium_api.status import (
    MAX_FAILED_REVISIONS,
    MAX_HISTORY,
    Check,
    HistoryEntry,
    ModelDeploymentStatus,
    RetiringRevision,
    RevisionStatus,
    RolloutStatus,
    SignatureStatus,
    Transition,
)
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observation import Observed
from canarium_operator.core.outcomes.news import News
from canarium_operator.core.revision import Revision
from canarium_operator.core.rollout.answers import GateAnswer
from canarium_operator.core.rollout.queries import Query, Reading
from canarium_operator.core.rollout.strategy import Step, step_at

RESYNC: Final = timedelta(minutes=5)
"""At rest, an object is looked at again after this long, and all its children are applied anew."""
POLL: Final = timedelta(seconds=5)
"""While pods or the route are awaited: watches wake the operator too, this is for a lost one."""


@dataclass(frozen=True, kw_only=True)
class ProbeFailure:
    """A pod that did not tell its model's inputs and outputs."""

    message: str


SignatureAnswer = SignatureStatus | ProbeFailure


@dataclass(frozen=True, kw_only=True)
class RolloutInput:
    """All that a decision may depend on."""

    ref: ObjectRef
    generation: int
    spec: ModelDeploymentSpec
    wanted: Revision | None
    """What the spec names; None: the spec is invalid (`problem` says why)."""
    status: ModelDeploymentStatus
    observed: Observed
    now: datetime
    readings: Mapping[Query, Reading] = field(default_factory=dict)
    """Answers of Prometheus by query; queries that were not due are absent."""
    signatures: Mapping[str, SignatureAnswer] = field(default_factory=dict)
    """What pods told of their model's inputs and outputs in this pass, by revision."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """Values of the command annotations by verb; each new value is one command."""
    gate_answers: Mapping[str, GateAnswer] = field(default_factory=dict)
    """What outside systems said in this pass, by gate."""
    outcomes: News | None = None
    """What was learned about outcomes in git since the last pass."""
    problem: str | None = None
    """What is wrong with the spec."""
    rejection: str | None = None
    """What the API server said when it refused an object made from this generation."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What comes next. Conditions and messages are added by `core.status`."""

    status: ModelDeploymentStatus
    requeue_after: timedelta
    blocked_on: Reason | None = None
    """The one thing that is waited for."""
    waiting: str = ""
    """The same in words, with its end."""
    evidence: tuple[Check, ...] = ()
    """Checks that the end of a rollout rests on, as they stood."""


def canary_is_wanted(given: RolloutInput) -> bool:
    """Tell whether there is a canary and the spec still names it; of another one nothing is measured or asked."""
    canary, wanted = given.status.canary, given.wanted
    return canary is not None and wanted is not None and canary.revision == wanted.name


def current_step(given: RolloutInput) -> Step:
    """Give the step that the rollout is in; asked only while there is one."""
    assert given.status.rollout is not None  # noqa: S101
    return step_at(given.spec.rollout, given.status.rollout)


def gate_opens_at(spec: ModelDeploymentSpec, rollout: RolloutStatus) -> datetime | None:
    """Tell when the pause of the current step ends; None: the step has not begun."""
    if rollout.step_started_at is None:
        return None
    return rollout.step_started_at + step_at(spec.rollout, rollout).pause


def with_status(given: RolloutInput, status: ModelDeploymentStatus) -> RolloutInput:
    """Give the same input with another status."""
    return replace(given, status=status)


def transition(
    given: RolloutInput,
    reason: Reason,
    message: str,
    *,
    warning: bool = False,
    **changes: Any,
) -> Decision:
    """Number a transition and look again at once: the next rule may already apply."""
    epoch = given.status.epoch + 1
    transition = Transition(
        epoch=epoch, reason=reason, message=message[:1000], warning=warning, at=given.now
    )
    status = given.status.model_copy(
        update={**changes, "epoch": epoch, "last_transition": transition}
    )
    return Decision(status=status, requeue_after=timedelta(0))


def with_history(
    given: RolloutInput, outcome: str, message: str, who: RevisionStatus
) -> list[HistoryEntry]:
    """Give the history with one more ending."""
    rollout = given.status.rollout
    entry = HistoryEntry(
        revision=who.revision,
        model_version=who.model_version,
        outcome=outcome,
        message=message[:500],
        started_at=rollout.started_at if rollout is not None else given.status.waiting_since,
        finished_at=given.now,
    )
    return [*given.status.history, entry][-MAX_HISTORY:]


def live(revision: Revision) -> RevisionStatus:
    """Give the status of a revision that has just been named."""
    return RevisionStatus(
        revision=revision.name, model_version=revision.model_version, digest=revision.model.sha256
    )


def display(who: RevisionStatus) -> str:
    """Write `v7@9c1fab12`."""
    version = who.model_version
    return f"{version if version.startswith('v') else 'v' + version}@{who.revision[:8]}"


def without(retiring: list[RetiringRevision], revision: str) -> list[RetiringRevision]:
    """Give the draining revisions without one."""
    return [entry for entry in retiring if entry.revision != revision]


def retire(
    given: RolloutInput, revision: str, reason: Reason, keep_for: timedelta | None = None
) -> list[RetiringRevision]:
    """Give the draining revisions with one more."""
    entry = RetiringRevision(revision=revision, since=given.now, reason=reason, keep_for=keep_for)
    return [*without(given.status.retiring, revision), entry][-MAX_FAILED_REVISIONS:]


def deadline_of(given: RolloutInput) -> datetime:
    """Tell until when pods and the route may be awaited."""
    since = given.status.waiting_since or given.now
    return since + given.spec.rollout.progress_deadline


def sooner(first: timedelta, second: timedelta) -> timedelta:
    """Give the shorter of two waits, never a negative one."""
    return max(min(first, second), timedelta(0))


def unrouted(given: RolloutInput, what: str) -> str:
    """Say that traffic does not go where it shall yet.

    Args:
        given: for the object's name, and whether there is a gateway.
        what: the gateway has not accepted.
    """
    if given.spec.traffic.gateway is None:
        return f"the Service {given.ref.name} does not lead there yet"
    return f"the gateway has not accepted {what}"


def clock(at: datetime) -> str:
    """Write a time of day, UTC."""
    return at.strftime("%H:%M:%SZ")
