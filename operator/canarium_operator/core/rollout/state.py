"""The life of a ModelDeployment as a table: which transition may happen in which phase, and where it leads.

Rules of this file: everything that decides which moves are legal is in TRANSITIONS; nothing here looks at a
cluster or a clock.

Theory of operation. A ModelDeployment has a stable revision that serves, and at times a canary. The phase is
not stored and moved; it is read off the facts in the status (`phase_of`): is there a stable revision, has it
served, is there a canary, does something drain. A transition changes these facts, one at a time, and each has
a number, the epoch. `engine.advance` decides the transitions; this table says which of them a phase allows,
and the tests hold every pass of every simulated rollout against it. The diagram in
docs/explanation/rollouts.md is generated from here.
"""

from collections.abc import Mapping
from typing import Final

from canarium_api.conditions import Reason
from canarium_api.status import ModelDeploymentStatus, Phase
from canarium_operator.core import versions

_FIXED: Final = frozenset(
    {Phase.LOADING, Phase.PROMOTED, Phase.ABORTED, Phase.PROMOTING, Phase.ROLLING_BACK}
)
"""Phases of an object whose versions are fixed."""

TRANSITIONS: Final[Mapping[Reason, tuple[frozenset[Phase], frozenset[Phase]]]] = {
    # the first revision
    Reason.FIRST_DEPLOYMENT: (
        frozenset({Phase.PENDING}),
        frozenset({Phase.LOADING}),
    ),
    Reason.RETARGETED: (frozenset({Phase.LOADING}), frozenset({Phase.LOADING})),
    Reason.LAST_GOOD_UNAVAILABLE: (frozenset({Phase.LOADING}), frozenset({Phase.LOADING})),
    # a last good revision leaves the one of the spec still to be tried, or known to be bad
    Reason.DEPLOYED: (frozenset({Phase.LOADING}), frozenset({Phase.PROMOTED, Phase.ABORTED})),
    # a canary
    Reason.ROLLOUT_STARTED: (
        frozenset(
            {Phase.PROMOTED, Phase.ABORTED, Phase.PROMOTING, Phase.ROLLING_BACK, Phase.PAUSED}
        ),
        frozenset({Phase.LOADING}),
    ),
    Reason.WEIGHT_CHANGED: (frozenset({Phase.LOADING, Phase.CANARY}), frozenset({Phase.CANARY})),
    Reason.CANARY_PREPARED: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.CANARY}),
    ),
    Reason.STEP_STARTED: (frozenset({Phase.CANARY}), frozenset({Phase.CANARY})),
    Reason.STEP_PASSED: (frozenset({Phase.CANARY}), frozenset({Phase.CANARY})),
    # a canary's, or that of a fixed version in any phase
    Reason.CAPACITY_LOST: (
        frozenset({Phase.CANARY, *_FIXED}),
        frozenset({Phase.CANARY, Phase.LOADING}),
    ),
    # fixed versions
    Reason.VERSIONS_PLANNED: (frozenset({*_FIXED, Phase.PAUSED}), _FIXED),
    Reason.VERSIONS_CHANGED: (_FIXED, _FIXED),
    Reason.ROLLOUT_REPLANNED: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.LOADING, Phase.CANARY}),
    ),
    Reason.ROLLOUT_SUPERSEDED: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.ROLLING_BACK}),
    ),
    # its end
    # what is kept for a way back (blueGreen.keepFor) does not drain
    Reason.PROMOTED: (frozenset({Phase.CANARY}), frozenset({Phase.PROMOTING, Phase.PROMOTED})),
    Reason.ANALYSIS_FAILED: (frozenset({Phase.CANARY}), frozenset({Phase.ROLLING_BACK})),
    Reason.ANALYSIS_TIMED_OUT: (frozenset({Phase.CANARY}), frozenset({Phase.ROLLING_BACK})),
    Reason.INCOMPATIBLE_SCHEMA: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.ROLLING_BACK, Phase.LOADING}),
    ),
    Reason.VALIDATION_FAILED: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.ROLLING_BACK, Phase.LOADING}),
    ),
    Reason.AWAITING_VALIDATION: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.LOADING, Phase.CANARY}),
    ),
    Reason.AWAITING_CAPACITY: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.LOADING, Phase.CANARY}),
    ),
    Reason.AWAITING_SIGNATURE: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.LOADING, Phase.CANARY}),
    ),
    # before a rollout that has a shadow, or in the middle of one
    Reason.MIRROR_UNSUPPORTED: (
        frozenset({*_FIXED, Phase.CANARY, Phase.PAUSED}),
        frozenset({*_FIXED, Phase.CANARY, Phase.PAUSED}),
    ),
    Reason.PROGRESS_DEADLINE_EXCEEDED: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.ROLLING_BACK, Phase.LOADING}),
    ),
    Reason.MODEL_LOAD_FAILED: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.ROLLING_BACK, Phase.LOADING}),
    ),
    Reason.ROLLED_BACK: (
        frozenset({Phase.ROLLING_BACK}),
        frozenset({Phase.ABORTED, Phase.PROMOTED}),
    ),
    Reason.SERVING: (
        frozenset({Phase.PROMOTING}),
        frozenset({Phase.PROMOTED, Phase.ABORTED}),
    ),
    Reason.ROLLOUT_TIMED_OUT: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.ROLLING_BACK}),
    ),
    # people
    Reason.APPROVAL_NEEDED: (frozenset({Phase.CANARY}), frozenset({Phase.CANARY})),
    Reason.EXPERIMENT_CONCLUDED: (frozenset({Phase.CANARY}), frozenset({Phase.CANARY})),
    Reason.EXPERIMENT_FAILED: (frozenset({Phase.CANARY}), frozenset({Phase.ROLLING_BACK})),
    Reason.GATE_REFUSED: (frozenset({Phase.CANARY}), frozenset({Phase.ROLLING_BACK})),
    Reason.APPROVED: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.LOADING, Phase.CANARY}),
    ),
    Reason.ROLLOUT_PAUSED: (frozenset({Phase.LOADING, Phase.CANARY}), frozenset({Phase.PAUSED})),
    Reason.ROLLOUT_RESUMED: (frozenset({Phase.PAUSED}), frozenset({Phase.LOADING, Phase.CANARY})),
    Reason.STEP_SKIPPED: (frozenset({Phase.LOADING, Phase.CANARY}), frozenset({Phase.CANARY})),
    Reason.PROMOTED_BY_USER: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.LOADING, Phase.CANARY}),
    ),
    Reason.ABORTED_BY_USER: (
        frozenset({Phase.LOADING, Phase.CANARY}),
        frozenset({Phase.ROLLING_BACK}),
    ),
    Reason.COMMAND_REFUSED: (frozenset(Phase), frozenset(Phase)),
    Reason.ROLLOUT_RETRIED: (
        frozenset({Phase.ABORTED, Phase.ROLLING_BACK, Phase.PROMOTED, Phase.PROMOTING}),
        frozenset({Phase.ABORTED, Phase.ROLLING_BACK, Phase.PROMOTED, Phase.PROMOTING}),
    ),
    Reason.REVISION_FAILED_BEFORE: (
        frozenset(
            {
                Phase.PENDING,
                Phase.PROMOTED,
                Phase.PROMOTING,
                Phase.ABORTED,
                Phase.ROLLING_BACK,
                Phase.PAUSED,
            }
        ),
        frozenset({Phase.PENDING, Phase.ABORTED, Phase.ROLLING_BACK, Phase.PROMOTING}),
    ),
    Reason.INVALID_SPEC: (frozenset(Phase), frozenset({Phase.INVALID})),
    Reason.REJECTED_BY_CLUSTER: (frozenset(Phase), frozenset(Phase)),
    Reason.RECOVERED: (frozenset(Phase), frozenset(Phase)),
}
"""Transition: (phases in which it may happen, phases to which it may lead).

`Invalid` says of the spec that it cannot be carried out, and hides where the rollout is: what is under way
drains meanwhile, and a mended spec goes on from there. It stands for any phase, so it is not listed.
"""

WITHOUT_EVENT: Final = frozenset({Reason.WEIGHT_CHANGED, Reason.CANARY_PREPARED})
"""Transitions that have no Event: they ask for what the next one, StepStarted, tells as done."""


def phase_of(status: ModelDeploymentStatus, wanted: str | None, *, invalid: bool = False) -> Phase:
    """Read the phase off the facts.

    Args:
        status: stable, canary, rollout and retiring are looked at.
        wanted: the revision that the spec names; None while the spec is invalid.
        invalid: the spec cannot be carried out.
    """
    if invalid:
        return Phase.INVALID
    if status.stable is None:
        return Phase.PENDING
    if not status.stable.served:
        return Phase.LOADING
    if status.canary is not None and status.rollout is not None:
        if status.rollout.paused_at is not None:
            return Phase.PAUSED
        rollout = status.rollout
        untried = (rollout.step, rollout.prepared_step, rollout.weight) == (1, 0, 0)
        return Phase.LOADING if untried else Phase.CANARY
    if any(map(versions.is_pending, status.versions)):
        return Phase.LOADING
    if status.draining:
        replaced = status.draining[-1].reason == Reason.PROMOTED
        return Phase.PROMOTING if replaced else Phase.ROLLING_BACK
    as_asked = wanted == status.stable.revision
    if status.versions:
        as_asked = as_asked and versions.is_settled(status.versions)
    return Phase.PROMOTED if as_asked else Phase.ABORTED


def is_legal(reason: Reason, before: Phase, after: Phase) -> bool:
    """Tell whether the table allows a transition."""
    allowed = TRANSITIONS.get(reason)
    if allowed is None:
        return False
    return bool(_meanings(before) & allowed[0]) and bool(_meanings(after) & allowed[1])


def _meanings(phase: Phase) -> set[Phase]:
    """Give what a phase may stand for: a paused rollout loads or runs, an invalid object may be anywhere."""
    if phase is Phase.INVALID:
        return set(Phase)
    return {phase, Phase.LOADING, Phase.CANARY} if phase is Phase.PAUSED else {phase}
