"""`canarium history NAME`: how each revision's rollout ended, what failed with its checks, and what people did."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from canarium_api.status import MAX_HISTORY, ModelDeploymentStatus
from canarium_cli import options
from canarium_cli.rendering import cells, story
from canarium_cli.statuses import status_of

app = options.new_app()


@app.command()
@options.in_words
def history(
    name: options.Name,
    namespace: options.Namespace = None,
    limit: Annotated[
        int, typer.Option(help="Latest endings.", min=1, max=MAX_HISTORY)
    ] = MAX_HISTORY,
    output: options.AsDocument = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Show how rollouts ended, newest last, and why revisions failed, with the checks as they stood."""
    access, space, short = options.find(name, namespace, kubeconfig, context)
    body = access.read(space, short)
    found = status_of(body)
    if output is not None:
        raw = body.get("status") or {}
        part = {key: raw.get(key) or [] for key in ("history", "failedRevisions", "actions")}
        options.print_object({**part, "history": part["history"][-limit:]}, output)
        return
    show(found, cells.console(), datetime.now(UTC), limit)


def show(found: ModelDeploymentStatus, console: Console, now: datetime, limit: int) -> None:
    """Print it."""
    width = min(console.width, cells.MAX_WIDTH)
    if not found.history:
        console.print("no rollout has ended yet")
    else:
        console.print(story.history(found, now, limit), width=width)
    for entry in found.failed_revisions:
        console.print()
        for part in story.failure(entry, now):
            console.print(part, width=width)
    if found.failed_revisions:
        words = "Failed revisions are not tried again: fix the model, or canarium retry NAME."
        console.print(Text(f"\n{words}", style="dim"))


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name=options.program())
    return 0
