"""`canarium approve|pause|resume|skip|abort|retry|promote NAME`: acts on a rollout by one annotation.

The operator reads the annotation, does what it says or refuses it, and notes that in the status: there the answer is
found. Exit status 0: done, or asked with `--wait 0`; 1: refused, not allowed, not found, or not answered in time.
"""

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from canarium_api import GROUP
from canarium_api.commands import command_value, signature
from canarium_api.conditions import Reason
from canarium_api.status import ModelDeploymentStatus
from canarium_cli import options
from canarium_cli.statuses import status_of

if TYPE_CHECKING:
    from canarium_cli.access import Access

_HELP: Final = {
    "approve": "Approve the end of the present step.",
    "pause": "Keep the rollout at its weight; checks go on.",
    "resume": "Let a paused rollout go on.",
    "skip": "End the present step without its pause and evidence.",
    "abort": "Take the canary back at once, and remember it as failed.",
    "retry": "Let a revision that has failed be tried once more.",
    "promote": "Go to 100 % without further checks, once all pods are ready.",
}
_POLL: Final = 0.25
"""Seconds between two looks at the status."""
_OF_A_STEP: Final = ("approve", "skip")
"""Verbs that are meant for the step that was seen. An abort must not miss because the next one has begun."""
_MAX_NOTE: Final = 60
"""Characters of `--message`."""


@options.in_words
def act(
    name: options.Name,
    namespace: options.Namespace = None,
    step: Annotated[
        int | None, typer.Option(help="Refuse unless this step is under way.", min=1)
    ] = None,
    message: Annotated[
        str,
        typer.Option("-m", "--message", help=f"Why, for the history; at most {_MAX_NOTE} letters."),
    ] = "",
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for the operator's answer; 0: do not wait.")
    ] = 30.0,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Act on a rollout."""
    verb = options.program().split()[-1]
    access, space, short = options.find(name, namespace, kubeconfig, context)
    raise typer.Exit(perform(access, verb, space, short, step=step, note=message, wait=wait))


def perform(
    access: "Access",
    verb: str,
    namespace: str,
    name: str,
    *,
    step: int | None,
    note: str,
    wait: float,
) -> int:
    """Give a command, wait for the operator's answer, print it, and give the exit status.

    Args:
        access: the cluster.
        verb: of the command.
        namespace: of the ModelDeployment.
        name: of the ModelDeployment.
        step: the one that is meant; None: the present one, for what is meant for a step.
        note: for the history.
        wait: seconds for the answer; 0: do not wait.

    Raises:
        AccessError: not allowed, not found, not reached.
    """
    note = " ".join(note.split())
    if len(note) > _MAX_NOTE:
        words = f"--message has {len(note)} characters, at most {_MAX_NOTE} are kept: shorten it"
        print(f"canarium {verb}: {words}", file=sys.stderr)
        return 2
    status = status_of(access.read(namespace, name))
    revision = ""
    if verb != "retry":
        if status.canary is None or status.rollout is None:
            what = f"{namespace}/{name} is {status.phase}: {status.message}"
            print(f"canarium {verb}: no rollout is under way; {what}", file=sys.stderr)
            return 1
        revision = status.canary.revision[:8]
        if step is None and verb in _OF_A_STEP:
            step = status.rollout.step
    else:
        step = None
    signed = signature(access.user())
    value = command_value(signed, datetime.now(UTC), revision=revision, step=step, note=note)
    access.annotate(namespace, name, f"{GROUP}/{verb}", value)
    if wait <= 0:
        print(f"{verb}: asked")
        return 0
    end = time.monotonic() + wait
    while time.monotonic() < end:
        now = status_of(access.read(namespace, name))
        if now.handled_commands.get(verb) == value:
            return _answer(verb, signed, before=status, now=now)
        time.sleep(_POLL)
    words = (
        f"the operator has not answered within {wait:g} s: is it running? It will act on the command "
        f"when it is; to take that back: kubectl annotate mdep {name} -n {namespace} {GROUP}/{verb}-"
    )
    print(f"canarium {verb}: {words}", file=sys.stderr)
    return 1


def _answer(
    verb: str, signed: str, *, before: ModelDeploymentStatus, now: ModelDeploymentStatus
) -> int:
    """Say what came of a command that was handled: one that was carried out has left a new action of whoever gave it.

    Somebody else's, of the same verb and a moment before, tells nothing of this one.
    """
    news = (a for a in now.actions if a not in before.actions)
    done = next((a for a in news if (a.verb, a.by) == (verb, signed)), None)
    if done is not None:
        print(f"{done.message}\n{now.message}")
        return 0
    last = now.last_transition
    why = "it did not apply; the Event CommandRefused says why (kubectl describe)"
    if last is not None and last.reason == Reason.COMMAND_REFUSED:
        why = last.message
    print(f"canarium {verb}: {why}\n{now.message}", file=sys.stderr)
    return 1


def application(word: str) -> typer.Typer:
    """Give the app of a verb."""
    app = options.new_app()
    app.command(help=_HELP[word])(act)
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    application(options.program().split()[-1])(prog_name=options.program())
    return 0
