"""Which outcomes git shall hear of. They are noted in the same write of the status as the transition itself.

So an operator that dies at any moment after it leaves an outcome that is due, and the next one writes it. It may have
been written already: whoever writes looks for it first (`jobs.TRAILER`).
"""

from dataclasses import replace
from typing import Final

from canarium_api.gitops import EvidenceRow, Lineage, WriteMode
from canarium_api.gitops_status import (
    MAX_DUE,
    MAX_WRITTEN,
    DueOutcome,
    Edit,
    GitOpsStatus,
    WrittenOutcome,
)
from canarium_api.status import Check, ModelDeploymentStatus, RevisionStatus
from canarium_operator.core.outcomes.edits import edits_between
from canarium_operator.core.outcomes.news import Failed, Settled
from canarium_operator.core.revision import Revision
from canarium_operator.core.rollout.inputs import Decision, RolloutInput

PROMOTED: Final = "Promoted"
DEPLOYED: Final = "Deployed"
ROLLED_BACK: Final = "RolledBack"


def learned(given: RolloutInput) -> ModelDeploymentStatus:
    """Put what was learned into the status; without `spec.gitops` nothing of git stays in it."""
    status = given.status
    if given.spec.gitops is None:
        return status if status.gitops is None else status.model_copy(update={"gitops": None})
    before, news = status.gitops or GitOpsStatus(), given.outcomes
    if news is None:
        return status if status.gitops is not None else _with(status, before)
    due, written = [], list(before.written)
    for outcome in before.due:
        match news.answers.get(outcome.epoch):
            case None:
                due.append(outcome)
            case Failed(reason=reason, message=message):
                changes = {"problem": reason.value, "problem_message": message[:500]}
                due.append(outcome.model_copy(update=changes))
            case Settled() as settled:
                written.append(_written(outcome, settled, given))
    after = before.model_copy(
        update={
            "due": due,
            "written": written[-MAX_WRITTEN:],
            "source": news.source or before.source,
        }
    )
    return _with(status, after)


def _written(outcome: DueOutcome, settled: Settled, given: RolloutInput) -> WrittenOutcome:
    return WrittenOutcome(
        epoch=outcome.epoch,
        outcome=outcome.outcome,
        revision=outcome.who.revision,
        commit=settled.commit,
        branch=settled.branch,
        link=settled.link[:2048],
        message=settled.message[:500],
        at=given.now.replace(microsecond=0),
    )


def noted(given: RolloutInput, decision: Decision) -> Decision:
    """Note the outcome that a transition ended with, if it is one that git shall hear of.

    Args:
        given: before the transition; its status has what was learned.
        decision: with the transition.
    """
    after = decision.status
    spec, transition = given.spec.gitops, after.last_transition
    if spec is None or transition is None or after.epoch == given.status.epoch:
        return decision
    if not after.history or after.history[-1:] == given.status.history[-1:]:
        return decision
    ended = after.history[-1].outcome
    mode = spec.on_rollback if ended == ROLLED_BACK else spec.on_promotion
    if ended not in (PROMOTED, DEPLOYED, ROLLED_BACK) or mode is WriteMode.NOTHING:
        return decision
    before = after.gitops or GitOpsStatus()
    who, other = _parties(given, after, ended)
    model = _revision(given, who.revision)
    outcome = DueOutcome(
        epoch=transition.epoch,
        outcome=ended,
        reason=transition.reason,
        message=transition.message[:1000],
        at=transition.at,
        who=_lineage(who),
        uri=model.model.uri if model is not None else "",
        version=model.model.version if model is not None else None,
        other=_lineage(other) if other is not None else None,
        evidence=[_row(check) for check in decision.evidence],
        edits=_edits(given, who, other) if ended == ROLLED_BACK else [],
    )
    due = [*before.due, outcome]
    lost = max(0, len(due) - MAX_DUE)
    changes = {"due": due[lost:], "given_up": before.given_up + lost}
    return replace(decision, status=_with(after, before.model_copy(update=changes)))


def _parties(
    given: RolloutInput, after: ModelDeploymentStatus, ended: str
) -> tuple[RevisionStatus, RevisionStatus | None]:
    """Give whom the outcome is about, and the one before it or in its place."""
    before = given.status
    if ended == ROLLED_BACK:
        assert before.canary is not None  # noqa: S101 - only canaries are rolled back
        return before.canary, after.stable
    assert after.stable is not None  # noqa: S101 - it was just promoted
    return after.stable, before.stable if ended == PROMOTED else None


def _edits(given: RolloutInput, who: RevisionStatus, other: RevisionStatus | None) -> list[Edit]:
    failed = _revision(given, who.revision)
    stable = _revision(given, other.revision) if other is not None else None
    return edits_between(failed, stable) if failed is not None and stable is not None else []


def _revision(given: RolloutInput, name: str) -> Revision | None:
    if given.wanted is not None and given.wanted.name == name:
        return given.wanted
    return given.observed.revisions.get(name)


def _lineage(who: RevisionStatus) -> Lineage:
    return Lineage(revision=who.revision, version=who.model_version, sha256=who.digest)


def _row(check: Check) -> EvidenceRow:
    return EvidenceRow(
        name=check.name[:100],
        verdict=check.verdict.value,
        value=check.value,
        baseline=check.baseline,
        limit=check.limit[:500] if check.limit else None,
        samples=check.total_samples or check.samples,
        p_value=check.p_value,
    )


def _with(status: ModelDeploymentStatus, gitops: GitOpsStatus) -> ModelDeploymentStatus:
    return status.model_copy(update={"gitops": gitops})
