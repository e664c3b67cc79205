"""`canarium describe NAME`: what a ModelDeployment does and why, and how it came there."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from canarium_cli import options
from canarium_cli.access_errors import AccessError, ForbiddenError
from canarium_cli.rendering import cells, parts, story
from canarium_cli.rendering.story import Story
from canarium_cli.statuses import status_of

if TYPE_CHECKING:
    from canarium_cli.access import Access

app = options.new_app()


@app.command()
@options.in_words
def describe(
    name: options.Name,
    namespace: options.Namespace = None,
    output: options.AsDocument = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Tell the whole story: what it does, why and until when; revisions, checks, conditions, history, pods, Events."""
    access, space, short = options.find(name, namespace, kubeconfig, context)
    body = access.read(space, short)
    if output is not None:
        options.print_object(body, output)
        return
    console = cells.console()
    width = min(console.width, cells.MAX_WIDTH)
    console.print(story.tell(gather(access, body, datetime.now(UTC))), width=width)


def gather(access: "Access", body: dict[str, Any], now: datetime) -> Story:
    """Read what belongs to a ModelDeployment; what may not be read is noted and left out."""
    space, short = body["metadata"]["namespace"], body["metadata"]["name"]
    status = status_of(body)
    found: dict[str, list[dict[str, Any]]] = {"pods": [], "events": []}
    notes = []
    for what in found:
        try:
            found[what] = getattr(access, what)(space, short)
        except ForbiddenError:
            notes.append(f"{what} are not shown: you may not list them in {space}")
        except AccessError as error:
            notes.append(f"{what} are not shown: {error}")
    return Story(
        body=body,
        status=status,
        now=now,
        pods=parts.pods_of(found["pods"], status),
        events=parts.events_of(found["events"]),
        notes=notes,
    )


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name=options.program())
    return 0
