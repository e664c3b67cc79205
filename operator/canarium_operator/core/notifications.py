"""What is said to the outside about a transition, and to whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from canarium_api.conditions import Reason
from canarium_api.rollout import Notification, NotificationEvent, NotificationFormat, RolloutSpec
from canarium_api.status import Check, ModelDeploymentStatus, Transition, Verdict
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.rollout.analysis import format_value

RECENT: Final = timedelta(minutes=10)
_EVENTS: Final = {
    NotificationEvent.PROMOTED: {Reason.PROMOTED, Reason.DEPLOYED},
    NotificationEvent.STARTED: {Reason.ROLLOUT_STARTED},
    NotificationEvent.APPROVAL: {Reason.APPROVAL_NEEDED, Reason.EXPERIMENT_CONCLUDED},
    NotificationEvent.FAILED: {
        Reason.ANALYSIS_FAILED,
        Reason.ANALYSIS_TIMED_OUT,
        Reason.PROGRESS_DEADLINE_EXCEEDED,
        Reason.MODEL_LOAD_FAILED,
        Reason.ABORTED_BY_USER,
        Reason.GATE_REFUSED,
        Reason.EXPERIMENT_FAILED,
        Reason.ROLLOUT_TIMED_OUT,
        Reason.INCOMPATIBLE_SCHEMA,
        Reason.VALIDATION_FAILED,
        Reason.REVISION_FAILED_BEFORE,
        Reason.INVALID_SPEC,
        Reason.REJECTED_BY_CLUSTER,
    },
}


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message to one receiver."""

    receiver: Notification
    epoch: int
    body: dict[str, Any]


def messages(
    ref: ObjectRef, spec: RolloutSpec, status: ModelDeploymentStatus, now: datetime
) -> tuple[Message, ...]:
    """Give what is to be said of the latest transition, unless it is old news: an operator that starts anew must not
    repeat it.
    """
    transition = status.last_transition
    if transition is None or now - transition.at > RECENT:
        return ()
    return tuple(
        Message(
            receiver=receiver,
            epoch=transition.epoch,
            body=_body(receiver, ref, status, transition),
        )
        for receiver in spec.notifications
        if _is_wanted(receiver.events, transition)
    )


def _is_wanted(events: Sequence[NotificationEvent], transition: Transition) -> bool:
    if NotificationEvent.ALL in events:
        return True
    return any(transition.reason in _EVENTS[event] for event in events)


def _body(
    receiver: Notification, ref: ObjectRef, status: ModelDeploymentStatus, transition: Transition
) -> dict[str, Any]:
    link = receiver.link.replace("{{namespace}}", ref.namespace).replace("{{name}}", ref.name)
    checks = _checks(status, transition)
    if receiver.format is NotificationFormat.SLACK:
        return _slack(ref, transition, checks, link)
    return {
        "namespace": ref.namespace,
        "name": ref.name,
        "uid": ref.uid,
        "epoch": transition.epoch,
        "reason": transition.reason,
        "warning": transition.warning,
        "message": transition.message,
        "at": f"{transition.at:%Y-%m-%dT%H:%M:%SZ}",
        "phase": status.phase,
        "stable": status.stable.to_manifest() if status.stable is not None else None,
        "canary": status.canary.to_manifest() if status.canary is not None else None,
        "checks": [check.to_manifest() for check in checks],
        "link": link,
    }


def _checks(status: ModelDeploymentStatus, transition: Transition) -> list[Check]:
    """Find the checks that a transition rests on: those of the rollout, or of the failure that ended it."""
    if status.rollout is not None:
        return status.rollout.checks
    failures = status.failed_revisions
    if failures and failures[-1].failed_at == transition.at:
        return failures[-1].checks
    return []


def _slack(
    ref: ObjectRef, transition: Transition, checks: Sequence[Check], link: str
) -> dict[str, Any]:
    """Write an incoming-webhook message: a text with an attachment, as Slack, Mattermost and Rocket.Chat read it."""
    failing = [c for c in checks if c.verdict is Verdict.FAIL] or checks
    fields = [
        {"title": check.name, "value": _facts(check), "short": False} for check in failing[:10]
    ]
    text = f"*{ref}* {transition.reason}: {transition.message}"
    attachment: dict[str, Any] = {
        "color": "danger" if transition.warning else "good",
        "fallback": text,
        "fields": fields,
    }
    if link:
        attachment["title"], attachment["title_link"] = "Open", link
    return {"text": text, "attachments": [attachment]}


def _facts(check: Check) -> str:
    """Write value, baseline, limit, number of requests and p-value of a check."""
    parts = [str(check.verdict)]
    if check.value is not None:
        parts.append(f"value {format_value(check.name, check.value)}")
    if check.baseline is not None:
        parts.append(f"stable {format_value(check.name, check.baseline)}")
    if check.limit:
        parts.append(f"limit: {check.limit}")
    if check.samples is not None:
        parts.append(f"n = {check.samples}")
    if check.p_value is not None:
        parts.append(f"p = {check.p_value:.2g}")
    return " · ".join(parts)
