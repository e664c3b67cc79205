"""`canarium diff --from REF [DIR]`: what would happen if the working tree were applied in place of a git ref."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from canarium_cli.changes import git, pairing
from canarium_cli.changes.git import GitError
from canarium_cli.changes.pairing import TreeError
from canarium_cli.changes.planning import Effect
from canarium_cli.changes.render import Output, render
from canarium_cli.checking.kustomizing import Kustomize

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def diff(
    ref: Annotated[str, typer.Option("--from", metavar="REF", help="A commit, branch or tag.")],
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="What to look at.", exists=True, file_okay=False)
    ] = Path(),
    output: Annotated[
        Output, typer.Option("-o", "--output", help="Format of the plan.")
    ] = Output.TEXT,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 3 where something would change.")
    ] = False,
    kustomize: Annotated[
        bool, typer.Option(help="Build kustomizations, and compare what comes out.")
    ] = True,
) -> None:
    """Say which ModelDeployments change, whether a rollout begins, by which steps, and what is applied in place.

    Exit status 0: the plan was made; 1: an object would be refused, or its declared inputs and outputs break clients;
    2: no plan could be made; 3, with --exit-code: something would change.
    """
    builder = Kustomize.find() if kustomize else None
    try:
        top = git.top_of(directory)
        commit = git.commit_of(top, ref)
        inside = directory.resolve().relative_to(top)
        with tempfile.TemporaryDirectory(prefix="canarium-diff-") as name:
            folder = Path(name).resolve()
            git.write_tree(top, commit, folder)
            before = pairing.read_tree(folder / inside, folder, builder)
        after = pairing.read_tree(top / inside, top, builder)
    except (GitError, TreeError) as error:
        print(f"canarium diff: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    changes = pairing.compare(before, after)
    print(render(changes, ref, output))
    if any(change.effect is Effect.REFUSED or change.breaks for change in changes):
        raise typer.Exit(1)
    raise typer.Exit(3 if exit_code and changes else 0)


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name="canarium diff")
    return 0
