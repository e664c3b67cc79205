"""What may be done to a rollout now. What the operator would refuse is not offered; it decides in the end."""

from canarium_api.base import ApiModel
from canarium_api.conditions import Reason
from canarium_api.status import ModelDeploymentStatus, Phase
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_dashboard.views.health import label_of
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
    rollout, canary = status.rollout, status.canary
    who, held = label_of(canary), spec is not None and spec.rollout.paused
    direct = rollout.strategy == Strategy.DIRECT
    found: list[Offer] = []
    current = next((s for s in steps if s.number == rollout.step), None)
    if current is not None and current.approval and not current.approved:
        asked = rollout.blocked_on == Reason.AWAITING_APPROVAL
        found.append(
            Offer(
                verb="approve",
                title=f"Approve step {rollout.step}",
                question=f"Approve the end of step {rollout.step} of {who}?",
                consequence="The rollout goes on to the next step now."
                if asked
                else "The step ends as soon as its pause is over and its checks pass.",
                urgent=asked,
                step=rollout.step,
            )
        )
    if rollout.paused_by and not held:
        found.append(
            Offer(
                verb="resume",
                title="Resume",
                question=f"Let the rollout of {who} go on?",
                consequence=f"It was paused by {rollout.paused_by}. Its clocks run again.",
                urgent=True,
            )
        )
    if not rollout.paused_by:
        found.append(
            Offer(
                verb="pause",
                title="Pause",
                question=f"Hold {who} at {rollout.weight}%?",
                consequence="Weight and step stay, checks go on, the clocks of the step stand still.",
            )
        )
    if rollout.step < rollout.steps:
        found.append(
            Offer(
                verb="skip",
                title="Skip step",
                question=f"End step {rollout.step} of {who} at once?",
                consequence="Without its pause, evidence, approval and gates. The next step waits for its pods as ever.",
                step=rollout.step,
            )
        )
    if not direct and not held:
        found.append(
            Offer(
                verb="promote",
                title="Promote",
                question=f"Promote {who} to 100%?",
                consequence="All traffic goes to it without further steps, checks and approvals, once its pods are ready.",
            )
        )
    found.append(
        Offer(
            verb="abort",
            title="Abort",
            question=f"Abort the rollout of {who}?",
            consequence=f"All traffic goes back to {label_of(status.stable) or 'stable'} at once. "
            f"{who} is remembered as failed and not tried again until somebody asks.",
            danger=True,
        )
    )
    return [o.model_copy(update={"revision": canary.revision[:8]}) for o in found]


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
