"""Commands as a page gives them: what may be asked, how it is written, and what came of it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from canarium_api.commands import command_value, signature
from canarium_api.conditions import Reason
from canarium_api.status import Action, ModelDeploymentStatus
from canarium_dashboard.errors import BadRequestError

MAX_NOTE: Final = 60
"""Characters; the operator reads 200 of an annotation in all."""


class Asked(BaseModel):
    """What a page sends."""

    model_config = ConfigDict(extra="forbid")

    verb: str = Field(pattern=r"^(approve|pause|resume|skip|abort|retry|promote)$")
    revision: str = Field(default="", max_length=64, pattern=r"^[0-9a-z]*$")
    """The canary that the page showed."""
    step: int | None = Field(default=None, ge=1, le=100)
    """The step that it showed, where the command is for that step alone."""
    note: str = Field(default="", max_length=1000)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a command."""

    outcome: str
    """done, refused, or unanswered."""
    message: str
    """Empty where it was refused and the status does not say why any more."""


def value_of(asked: Asked, user: str, now: datetime) -> str:
    """Write a command as the annotation that asks for it.

    Raises:
        BadRequestError: the note is too long, or what it is for is missing.
    """
    note = " ".join(asked.note.split())
    if len(note) > MAX_NOTE:
        msg = f"the note has {len(note)} characters, at most {MAX_NOTE} are kept: shorten it"
        raise BadRequestError(msg)
    if asked.verb != "retry" and not asked.revision:
        msg = f"{asked.verb} needs the revision that it is for"
        raise BadRequestError(msg)
    return command_value(signature(user), now, revision=asked.revision, step=asked.step, note=note)


def answer_of(
    verb: str, value: str, before: list[Action], now: ModelDeploymentStatus
) -> Answer | None:
    """Say what came of a command; None where the operator has not handled it yet.

    Args:
        verb: of the command.
        value: of its annotation.
        before: what people had done before it was given.
        now: the present status.
    """
    if now.handled_commands.get(verb) != value:
        return None
    # Somebody else may have given the same command a moment before: that one was carried out, not this.
    who = value.partition(" ")[0]
    news = (a for a in now.actions if a not in before)
    done = next((a for a in news if (a.verb, a.by) == (verb, who)), None)
    if done is not None:
        return Answer(outcome="done", message=done.message)
    last = now.last_transition
    if last is not None and last.reason == Reason.COMMAND_REFUSED:
        return Answer(outcome="refused", message=last.message)
    return Answer(outcome="refused", message="")


def refusal_told(events: Iterable[Mapping[str, Any]], verb: str) -> str:
    """Find why a command was refused, where something else has happened since: its Event tells."""
    told = [
        str(event.get("message", ""))
        for event in sorted(events, key=lambda each: str(each.get("metadata", {}).get("name", "")))
        if event.get("reason") == Reason.COMMAND_REFUSED
    ]
    mine = [message for message in told if message.startswith(f"{verb} by ")]
    return mine[-1] if mine else "it did not apply; the Events say why"
