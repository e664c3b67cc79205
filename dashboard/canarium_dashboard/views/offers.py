"""What may be done to a rollout now. What the operator would refuse is not offered; it decides in the end."""

from canarium_api.base import ApiModel
from canarium_api.conditions import Reason
from canarium_api.status import ModelDeploymentStatus, Phase, RolloutStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_dashboard.views.health import label, label_of
from canarium_dashboard.views.steps import StepView
from canarium_operator.core.rollout.strategy import Strategy


class Offer(ApiModel):
    """One button."""

    verb: str
    title: str
    question: str
    """Asked before it is done."""
    consequence: str
    """What happens then."""
    danger: bool = False
    urgent: bool = False
    """The rollout waits for it."""
    revision: str = ""
    """What the command is meant for; it does not hit what has begun meanwhile."""
    step: int | None = None


def offers_of(
    status: ModelDeploymentStatus, spec: ModelDeploymentSpec | None, steps: list[StepView]
) -> list[Offer]:
    """Give the buttons, the most urgent first."""
    if status.rollout is None or status.canary is None:
        return _retry(status, spec)
    rollout = status.rollout
    who = label(status.canary.model_version, status.canary.revision)
    held = spec is not None and spec.rollout.paused
    current = next((step for step in steps if step.number == rollout.step), None)
    found: list[Offer] = []
    if current is not None and current.approval and not current.approved:
        found.append(_approve(rollout, who))
    if rollout.paused_by and not held:
        found.append(_resume(rollout, who))
    if not rollout.paused_by:
        found.append(_pause(rollout, who))
    if rollout.step < rollout.steps:
        found.append(_skip(rollout, who))
    if rollout.strategy != Strategy.DIRECT and not held:
        found.append(_promote(who))
    found.append(_abort(who, label_of(status.stable) or "stable"))
    return [o.model_copy(update={"revision": status.canary.revision[:8]}) for o in found]


def _approve(rollout: RolloutStatus, who: str) -> Offer:
    asked = rollout.blocked_on == Reason.AWAITING_APPROVAL
    at_once = "The rollout goes on to the next step now."
    later = "The step ends as soon as its pause is over and its checks pass."
    return Offer(
        verb="approve",
        title=f"Approve step {rollout.step}",
        question=f"Approve the end of step {rollout.step} of {who}?",
        consequence=at_once if asked else later,
        urgent=asked,
        step=rollout.step,
    )


def _resume(rollout: RolloutStatus, who: str) -> Offer:
    return Offer(
        verb="resume",
        title="Resume",
        question=f"Let the rollout of {who} go on?",
        consequence=f"It was paused by {rollout.paused_by}. Its clocks run again.",
        urgent=True,
    )


def _pause(rollout: RolloutStatus, who: str) -> Offer:
    return Offer(
        verb="pause",
        title="Pause",
        question=f"Hold {who} at {rollout.weight}%?",
        consequence="Weight and step stay, checks go on, the clocks of the step stand still.",
    )


def _skip(rollout: RolloutStatus, who: str) -> Offer:
    return Offer(
        verb="skip",
        title="Skip step",
        question=f"End step {rollout.step} of {who} at once?",
        consequence="Without its pause, evidence, approval and gates. The next step waits for its pods.",
        step=rollout.step,
    )


def _promote(who: str) -> Offer:
    return Offer(
        verb="promote",
        title="Promote",
        question=f"Promote {who} to 100%?",
        consequence="All traffic goes to it without further steps, checks and approvals, once its pods are "
        "ready.",
    )


def _abort(who: str, stable: str) -> Offer:
    return Offer(
        verb="abort",
        title="Abort",
        question=f"Abort the rollout of {who}?",
        consequence=f"All traffic goes back to {stable} at once. {who} is remembered as failed and not "
        "tried again until somebody asks.",
        danger=True,
    )


def _retry(status: ModelDeploymentStatus, spec: ModelDeploymentSpec | None) -> list[Offer]:
    if status.phase is not Phase.ABORTED or not status.failed_revisions or spec is None:
        return []
    version = spec.model.version
    failed = next(
        (f for f in reversed(status.failed_revisions) if version in (None, f.model_version)), None
    )
    if failed is None:
        return []
    return [
        Offer(
            verb="retry",
            title="Retry",
            question=f"Try {failed.model_version} once more?",
            consequence="Its failure is forgotten, and its rollout begins anew at the first step.",
        )
    ]
