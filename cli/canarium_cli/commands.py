"""`canarium approve|pause|resume|skip|abort|retry|promote NAME`: acts on a rollout by one annotation."""

import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from canarium_api import GROUP
from canarium_api.conditions import Reason
from canarium_api.status import ModelDeploymentStatus
from canarium_cli.access import Access, AccessError, connect, status_of

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


def act(
    name: Annotated[str, typer.Argument(help="NAME or NAMESPACE/NAME of the ModelDeployment.")],
    namespace: Annotated[str | None, typer.Option("-n", "--namespace")] = None,
    step: Annotated[
        int | None, typer.Option(help="Refuse unless this step is under way.", min=1)
    ] = None,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for the operator's answer; 0: do not wait.")
    ] = 30.0,
    kubeconfig: Annotated[str | None, typer.Option(help="File of the kubeconfig.")] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
) -> None:
    """Act on a rollout."""
    verb = sys.argv[0].split()[-1]
    space, _, short = name.rpartition("/")
    try:
        access = connect(kubeconfig, context)
        code = _act(access, verb, space or namespace or access.namespace, short, step, wait)
    except AccessError as error:
        print(f"canarium {verb}: {error}", file=sys.stderr)
        code = 1
    raise typer.Exit(code)


def _act(
    access: Access, verb: str, namespace: str, name: str, step: int | None, wait: float
) -> int:
    status = status_of(access.read(namespace, name))
    target = ""
    if verb != "retry":
        if status.canary is None or status.rollout is None:
            what = f"{namespace}/{name} is {status.phase}: {status.message}"
            print(f"canarium {verb}: no rollout is under way; {what}", file=sys.stderr)
            return 1
        shown = step if step is not None else status.rollout.step
        target = f" revision={status.canary.revision[:8]} step={shown}"
    value = f"{access.user()} {datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}{target}"
    access.annotate(namespace, name, f"{GROUP}/{verb}", value)
    if wait <= 0:
        print(f"{verb}: asked")
        return 0
    return _await(access, verb, namespace, name, value, wait)


def _await(access: Access, verb: str, namespace: str, name: str, value: str, wait: float) -> int:
    """Wait until the operator has handled the command, and say what came of it."""
    end = time.monotonic() + wait
    while time.monotonic() < end:
        status = status_of(access.read(namespace, name))
        if status.handled_commands.get(verb) == value:
            return _answer(verb, status, value)
        time.sleep(_POLL)
    words = f"the operator has not answered within {wait:g} s: is it running? The command stays set"
    print(f"canarium {verb}: {words}", file=sys.stderr)
    return 1


def _answer(verb: str, status: ModelDeploymentStatus, value: str) -> int:
    by = value.split()[0]
    done = [a for a in status.actions if a.verb == verb and a.by == by[:100]]
    last = status.last_transition
    refused = last is not None and last.reason == Reason.COMMAND_REFUSED
    if last is not None and refused and last.message.startswith(f"{verb} by "):
        print(f"canarium {verb}: {last.message}", file=sys.stderr)
        return 1
    if not done:
        print(f"{verb}: nothing to do; {status.message}")
        return 0
    print(f"{done[-1].message}\n{status.message}")
    return 0


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    verb = sys.argv[0].split()[-1]
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(help=_HELP[verb])(act)
    app(prog_name=f"canarium {verb}")
    return 0
