"""Golden data hold a canary before any traffic, and take back one that misses a threshold (`rollout.validation`).

What the Job said is noted in the status once, so that it counts however long the Job lives. Data that cannot be read
and Jobs that end without a word are nobody's failure: the canary waits, and the object says that it is stalled, until
somebody mends it (another spec is another Job).
"""

from canarium_api.conditions import Reason
from canarium_api.golden import Outcome
from canarium_api.status import ValidationStatus, ValidationVerdict
from canarium_operator.core import golden
from canarium_operator.core.rollout.endings import roll_back
from canarium_operator.core.rollout.inputs import POLL, Decision, RolloutInput, with_status


def noted(given: RolloutInput) -> RolloutInput:
    """Note what the canary's Job has said; the first word counts."""
    canary, job = given.status.canary, golden.job_of(given.ref, given.spec, given.status)
    if canary is None or job is None or canary.validation is not None:
        return given
    outcome = given.observed.validations.get(job)
    if outcome is None or outcome.passed is None:
        return given
    verdict = ValidationVerdict.PASSED if outcome.passed else ValidationVerdict.FAILED
    said = ValidationStatus(verdict=verdict, message=outcome.message[:800], job=job)
    changed = canary.model_copy(update={"validation": said})
    return with_status(given, given.status.model_copy(update={"canary": changed}))


def refused(given: RolloutInput) -> Decision | None:
    """Take a canary back that missed a threshold."""
    canary = given.status.canary
    if canary is None or canary.validation is None:
        return None
    said = canary.validation
    if said.verdict is not ValidationVerdict.FAILED:
        return None
    where = f"the report: kubectl logs job/{said.job}"
    return roll_back(given, Reason.VALIDATION_FAILED, f"golden data: {said.message[:350]}; {where}")


def awaits_verdict(given: RolloutInput) -> Decision | None:
    """Hold a canary of which golden data have not said anything yet."""
    job, outcome = _pending(given)
    if job is None:
        return None
    said = f"cannot be judged: {outcome.message}" if outcome is not None else "are being asked"
    return Decision(
        status=given.status,
        requeue_after=POLL,
        blocked_on=Reason.AWAITING_VALIDATION,
        waiting=f"golden data {said} (kubectl logs job/{job})",
    )


def stalled(given: RolloutInput) -> str | None:
    """Say that golden data cannot be judged, if so."""
    rollout = given.status.rollout
    job, outcome = _pending(given)
    if job is None or outcome is None or rollout is None or rollout.paused_at is not None:
        return None
    return (
        f"golden data cannot be judged: {outcome.message}. kubectl logs job/{job} says more; mend the data, or change "
        "rollout.validation, which starts another Job"
    )


def _pending(given: RolloutInput) -> tuple[str | None, Outcome | None]:
    """Give the Job whose verdict is missing, and why it will not come, if that is known."""
    canary, job = given.status.canary, golden.job_of(given.ref, given.spec, given.status)
    if canary is None or job is None or canary.validation is not None:
        return None, None
    return job, given.observed.validations.get(job)
