"""`rollout.readyWhen`: may an unfinished rollout count as ready?

What waits for a ModelDeployment (Flux, Argo CD, `kubectl wait`) reads the condition `Ready`, and gives up after a time
that it was told. A canary that lasts days would let it time out, so a spec may say that less is enough. Two laws hold
whatever it says: an object is Ready only while a good revision serves (`Available`), and never from the moment on in
which the revision of its spec is taken back.

Like the phase, the answer is read off the facts of the status and is stored nowhere: a canary that loses its pods is
not at its step any more, and says so.
"""

from dataclasses import dataclass
from typing import Final

from canarium_api.conditions import Reason
from canarium_api.rollout import ReadyWhen, RolloutSpec
from canarium_api.status import (
    ModelDeploymentStatus,
    Phase,
    RevisionStatus,
    RolloutStatus,
    VersionState,
)
from canarium_operator.core.rollout.endings import failure_of
from canarium_operator.core.rollout.inputs import Decision, RolloutInput

_HELD: Final = (Reason.PAUSED, Reason.FROZEN)
"""What keeps a rollout from its beginning, because the spec or somebody says so."""


@dataclass(frozen=True, kw_only=True)
class Early:
    """Why an unfinished rollout counts as ready."""

    reason: Reason
    words: str


def early(given: RolloutInput, decision: Decision, status: ModelDeploymentStatus) -> Early | None:
    """Tell whether a rollout counts as ready before it is over; asked only while nothing is stalled.

    Where none is under way (phase `Promoted`), it is no question of rollouts: lost pods are lost pods.

    Args:
        given: for the spec and what is seen.
        decision: for what keeps a rollout from its beginning.
        status: as decided.

    Returns:
        None: it does not.
    """
    rollout = given.spec.rollout
    if rollout.ready_when is ReadyWhen.PROMOTED or status.phase is Phase.PROMOTED:
        return None
    if not _is_sound(given, status):
        return None
    if rollout.ready_when is ReadyWhen.ADMITTED:
        return _admitted(given, decision, status)
    return _reached(given, status, rollout)


def _is_sound(given: RolloutInput, status: ModelDeploymentStatus) -> bool:
    """Tell whether a good revision serves, and nothing speaks against the one of the spec."""
    stable, wanted = status.stable, given.wanted
    if status.phase is Phase.INVALID or wanted is None or stable is None:
        return False
    if not stable.served or stable.ready_replicas == 0:
        return False
    if any(version.state is VersionState.FAILED for version in status.versions):
        return False
    return failure_of(status, wanted) is None


def _admitted(
    given: RolloutInput, decision: Decision, status: ModelDeploymentStatus
) -> Early | None:
    """Tell whether what the spec asks for has begun, or is held.

    A revision is on its way when its Deployment is seen: the API server may still refuse it before.
    """
    if status.versions:
        if not all(v.next is None or _runs(given, v.next) for v in status.versions):
            return None
        words = "the versions are on their way"
    elif _is_stable(given, status):
        words = "the rollout is over"
    elif _is_under_way(given, status) and status.canary is not None and _runs(given, status.canary):
        words = "the rollout has begun"
    elif status.canary is None and decision.blocked_on in _HELD:
        words = "the rollout is held before its beginning"
    else:
        return None
    return Early(reason=Reason.ADMITTED, words=f"{words}, which counts as ready (readyWhen)")


def _reached(given: RolloutInput, status: ModelDeploymentStatus, spec: RolloutSpec) -> Early | None:
    """Tell whether the rollout is at the step that the spec names, or past it."""
    rollout = status.rollout
    wanted_step = spec.ready_step or 1
    if _is_stable(given, status):
        words = "all steps are over"
    elif rollout is not None and _is_under_way(given, status) and carries(rollout, wanted_step):
        words = f"step {min(wanted_step, rollout.steps)}/{rollout.steps} is reached"
    else:
        return None
    return Early(reason=Reason.STEP_REACHED, words=f"{words}, which counts as ready (readyWhen)")


def carries(rollout: RolloutStatus, step: int) -> bool:
    """Tell whether the canary carries what a step, or a later one, gives it.

    At step 3, while more pods are awaited: step 2 is carried, step 3 is not. A canary that has lost its pods carries
    nothing, whatever its step.

    Args:
        rollout: under way.
        step: its number, from 1; the last one stands for any beyond it.
    """
    step = min(step, rollout.steps)
    if rollout.evidence_since is None or rollout.prepared_step < step:
        return False
    return rollout.step > step or rollout.step_started_at is not None


def _is_stable(given: RolloutInput, status: ModelDeploymentStatus) -> bool:
    """Tell whether the revision of the spec has taken over, and only what it replaced, or withdrew, has still to go."""
    assert status.stable is not None  # noqa: S101 - `_is_sound` has looked
    assert given.wanted is not None  # noqa: S101
    return status.canary is None and status.stable.revision == given.wanted.name


def _is_under_way(given: RolloutInput, status: ModelDeploymentStatus) -> bool:
    assert given.wanted is not None  # noqa: S101 - `_is_sound` has looked
    return status.canary is not None and status.canary.revision == given.wanted.name


def _runs(given: RolloutInput, revision: RevisionStatus) -> bool:
    return revision.revision in given.observed.workloads
