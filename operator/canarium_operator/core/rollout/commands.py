"""What people ask for by annotations: approve, pause, resume, skip, abort, retry, promote.

Each new value of an annotation is one command. It is carried out, or refused with the reason, in one transition that
also notes the value as handled: never twice, never half. The value says who and when, in the words of whoever wrote
it: `alice@example.com 2026-11-24T09:30:00Z revision=6a7e947d step=2`. What names a revision or a step counts for that
one alone.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from canarium_api.conditions import Reason
from canarium_api.status import MAX_ACTIONS, Action, RevisionStatus, RolloutStatus
from canarium_operator.core.rollout.endings import failure_of, roll_back
from canarium_operator.core.rollout.holds import is_approved, released
from canarium_operator.core.rollout.inputs import (
    Decision,
    RolloutInput,
    current_step,
    display,
    transition,
    with_status,
)
from canarium_operator.core.rollout.strategy import Strategy, steps_of
from canarium_operator.core.versions import versions_of

_NAME: Final = re.compile(r"^[A-Za-z][\w.@:+/-]*$")
UNKNOWN: Final = "somebody"


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command, as it was written."""

    verb: str
    value: str
    by: str
    revision: str = ""
    """Start of the revision that it is for; empty: whatever is under way."""
    step: int | None = None
    note: str = ""
    """What they wanted to say about it."""

    @property
    def signed(self) -> str:
        """Who, with what they said."""
        return f"{self.by} ({self.note})" if self.note else self.by


@dataclass(frozen=True)
class Refused:
    """A command that does not apply now."""

    why: str


def parse(verb: str, value: str) -> Command:
    """Read a command: the first word that may be a name says who, `revision=` and `step=` what it is for, and what
    follows ` -- ` is a note.
    """
    head, _, note = value.partition(" -- ")
    words = head.split()
    options = dict(word.split("=", 1) for word in words if "=" in word)
    by = next((word for word in words if "=" not in word and _NAME.match(word)), UNKNOWN)
    step = options.get("step", "")
    return Command(
        verb=verb,
        value=value,
        by=by[:100],
        revision=options.get("revision", "")[:64],
        step=int(step) if step.isdecimal() and len(step) < 4 else None,
        note=" ".join(note.split()),
    )


def obey(given: RolloutInput) -> Decision | None:
    """Carry out the first command that has not been handled yet."""
    status = given.status
    news = {
        verb: value
        for verb, value in given.commands.items()
        if status.handled_commands.get(verb) != value
    }
    if not news:
        return None
    if status.observed_generation < 0:
        # Annotations of an object that has just been made, from git or a backup: their time is over.
        return _noted(given, {**status.handled_commands, **news})
    verb, value = next(iter(news.items()))
    command = parse(verb, value)
    carried_out = _retry(given, command) if verb == "retry" else _under_way(given, command)
    if isinstance(carried_out, Refused):
        return transition(
            given,
            Reason.COMMAND_REFUSED,
            f"{verb} by {command.signed} does not apply: {carried_out.why}",
            warning=True,
            handled_commands={**status.handled_commands, verb: value},
        )
    return carried_out


def _noted(given: RolloutInput, noted: dict[str, str]) -> Decision:
    return Decision(
        status=given.status.model_copy(update={"handled_commands": noted}),
        requeue_after=timedelta(0),
    )


def _under_way(given: RolloutInput, command: Command) -> Decision | Refused:
    """Carry out a command about the rollout under way."""
    canary, rollout = given.status.canary, given.status.rollout
    if canary is None or rollout is None:
        return Refused("no rollout is under way")
    if not canary.revision.startswith(command.revision):
        return Refused(f"it names revision {command.revision}, but {display(canary)} is under way")
    if command.step is not None and command.step != rollout.step:
        return Refused(f"it names step {command.step}, but step {rollout.step} is under way")
    return _VERBS[command.verb](given, command, canary, rollout)


def _recorded(given: RolloutInput, command: Command, message: str) -> dict[str, Any]:
    """Give the changes that every command makes: it is handled, and who did it is kept."""
    status, rollout = given.status, given.status.rollout
    action = Action(
        verb=command.verb,
        by=command.by,
        at=given.now,
        revision=status.canary.revision if status.canary is not None else "",
        step=rollout.step if rollout is not None else None,
        message=message[:500],
    )
    return {
        "handled_commands": {**status.handled_commands, command.verb: command.value},
        "actions": [*status.actions, action][-MAX_ACTIONS:],
    }


def _approve(
    given: RolloutInput, command: Command, canary: RevisionStatus, rollout: RolloutStatus
) -> Decision | Refused:
    if not current_step(given).approval:
        return Refused(f"step {rollout.step} needs no approval")
    if is_approved(given, rollout):
        return Refused(f"step {rollout.step} is approved already")
    message = (
        f"step {rollout.step}/{rollout.steps} of {display(canary)} approved by {command.signed}"
    )
    return transition(
        given,
        Reason.APPROVED,
        message,
        rollout=rollout.model_copy(update={"approved_step": rollout.step}),
        **_recorded(given, command, message),
    )


def _pause(
    given: RolloutInput, command: Command, canary: RevisionStatus, rollout: RolloutStatus
) -> Decision | Refused:
    if rollout.paused_by:
        return Refused(f"{rollout.paused_by} has paused it already")
    message = f"{display(canary)} held at {rollout.weight}% by {command.signed}"
    changes = {"paused_by": command.by, "paused_at": rollout.paused_at or given.now}
    return transition(
        given,
        Reason.ROLLOUT_PAUSED,
        message,
        rollout=rollout.model_copy(update=changes),
        **_recorded(given, command, message),
    )


def _resume(
    given: RolloutInput, command: Command, canary: RevisionStatus, rollout: RolloutStatus
) -> Decision | Refused:
    if given.spec.rollout.paused:
        return Refused("spec.rollout.paused is true: set it to false in the manifest")
    if not rollout.paused_by:
        return Refused("nobody has paused it by command")
    message = f"{display(canary)} goes on, resumed by {command.signed}"
    return transition(
        given,
        Reason.ROLLOUT_RESUMED,
        message,
        **released(given),
        **_recorded(given, command, message),
    )


def _skip(
    given: RolloutInput, command: Command, canary: RevisionStatus, rollout: RolloutStatus
) -> Decision | Refused:
    if rollout.step == rollout.steps:
        return Refused("the last step cannot be skipped: use promote")
    message = (
        f"step {rollout.step}/{rollout.steps} of {display(canary)} skipped by {command.signed}"
    )
    following = {"step": rollout.step + 1, "step_started_at": None}
    return transition(
        given,
        Reason.STEP_SKIPPED,
        message,
        rollout=rollout.model_copy(update=following),
        waiting_since=given.now,
        **_recorded(given, command, message),
    )


def _abort(
    given: RolloutInput, command: Command, canary: RevisionStatus, rollout: RolloutStatus
) -> Decision | Refused:
    message = f"aborted by {command.signed}"
    recorded = _recorded(given, command, f"{display(canary)} {message} at {rollout.weight}%")
    return roll_back(
        with_status(given, given.status.model_copy(update=recorded)),
        Reason.ABORTED_BY_USER,
        message,
    )


def _promote(
    given: RolloutInput, command: Command, canary: RevisionStatus, rollout: RolloutStatus
) -> Decision | Refused:
    if rollout.strategy == Strategy.DIRECT:
        return Refused("it is on its way to 100% already")
    if given.spec.rollout.paused:
        return Refused("spec.rollout.paused is true: set it to false in the manifest first")
    message = f"{display(canary)} goes to 100% without further checks, promoted by {command.signed}"
    weights = [step.weight for step in steps_of(given.spec.rollout, Strategy.DIRECT)]
    changes = {
        "strategy": Strategy.DIRECT,
        "weights": weights,
        "step": 1,
        "steps": len(weights),
        "prepared_step": 0,
        "step_started_at": None,
        "checks": [],
        "gates": [],
        "paused_at": None,
        "paused_by": "",
    }
    return transition(
        given,
        Reason.PROMOTED_BY_USER,
        message,
        rollout=rollout.model_copy(update=changes),
        waiting_since=given.now,
        **_recorded(given, command, message),
    )


def _retry(given: RolloutInput, command: Command) -> Decision | Refused:
    """Forget the failure of the wanted revision."""
    status, wanted = given.status, given.wanted
    if wanted is None:
        return Refused("the spec names no revision that could be tried")
    asked = [wanted, *(v.revision for v in versions_of(given.spec, wanted)[1:])]
    asked = [revision for revision in asked if revision.name.startswith(command.revision)]
    if not asked:
        return Refused(f"it names revision {command.revision}, but the spec names {wanted.display}")
    failed = [revision for revision in asked if failure_of(status, revision) is not None]
    if not failed:
        return Refused(f"{wanted.display} has not failed under this object")
    names = {revision.name for revision in failed}
    who = ", ".join(revision.display for revision in failed)
    message = f"{who} may be tried again, says {command.signed}"
    return transition(
        given,
        Reason.ROLLOUT_RETRIED,
        message,
        failed_revisions=[f for f in status.failed_revisions if f.revision not in names],
        **_recorded(given, command, message),
    )


_Verb = Callable[
    [RolloutInput, Command, RevisionStatus, RolloutStatus],
    Decision | Refused,
]
_VERBS: Final[dict[str, _Verb]] = {
    "approve": _approve,
    "pause": _pause,
    "resume": _resume,
    "skip": _skip,
    "abort": _abort,
    "promote": _promote,
}
