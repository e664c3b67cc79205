"""`canarium get [NAME]`: lists ModelDeployments as `kubectl get mdep` does, with colours that say what is wrong."""

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from canarium_api import GROUP, KIND
from canarium_cli import options
from canarium_cli.access_errors import GoneError
from canarium_cli.options import Format
from canarium_cli.rendering import cells
from canarium_cli.rendering.listing import Listing

if TYPE_CHECKING:
    from canarium_cli.access import Access

app = options.new_app()


@app.command()
@options.in_words
def get(
    name: Annotated[
        str | None,
        typer.Argument(help="NAME or NAMESPACE/NAME; without it, all.", metavar="[NAME]"),
    ] = None,
    namespace: options.Namespace = None,
    everywhere: Annotated[
        bool, typer.Option("-A", "--all-namespaces", help="In all namespaces.")
    ] = False,
    selector: Annotated[
        str,
        typer.Option("-l", "--selector", help="Labels, as kubectl has it: team=risk,tier!=dev."),
    ] = "",
    watch: Annotated[
        bool, typer.Option("-w", "--watch", help="Go on: a line for each change, until Ctrl-C.")
    ] = False,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="No line of headings.")] = False,
    output: options.Output = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """List ModelDeployments, or show one, in a line each."""
    if name and (everywhere or selector):
        options.fail("a NAME cannot be given with --all-namespaces or --selector", options.USAGE)
    if watch and output not in (None, Format.WIDE):
        options.fail(f"-o {output} cannot be given with --watch", options.USAGE)
    access, space, short = options.find(name or "", namespace, kubeconfig, context)
    where = None if everywhere else space
    if short:
        body = access.read(space, short)
        bodies, version = [body], body["metadata"].get("resourceVersion", "")
    else:
        bodies, version = access.objects(where, selector)
    if output in (Format.JSON, Format.YAML):
        options.print_object(bodies[0] if short else _as_list(bodies), output)
        return
    if output is Format.NAME:
        for body in bodies:
            print(f"{KIND.lower()}.{GROUP}/{body['metadata']['name']}")
        return
    console = cells.console()
    listing = Listing(namespaces=everywhere, wide=output is Format.WIDE)
    if bodies or watch:
        _print(console, listing, bodies, heading=not no_headers)
    elif everywhere:
        print("there are no ModelDeployments in this cluster", file=sys.stderr)
    else:
        print(
            f"there are no ModelDeployments in {space}; -A looks in all namespaces", file=sys.stderr
        )
    if watch:
        _follow(access, where, console, listing, name=short, selector=selector, version=version)


def _as_list(bodies: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": bodies,
        "metadata": {"resourceVersion": ""},
    }


def _print(
    console: Console, listing: Listing, bodies: list[dict[str, Any]], *, heading: bool
) -> None:
    for line in listing.lines(bodies, datetime.now(UTC), heading=heading):
        console.print(line, soft_wrap=True)


def _follow(
    access: "Access",
    where: str | None,
    console: Console,
    listing: Listing,
    *,
    name: str,
    selector: str,
    version: str,
) -> None:
    """Print each change, for ever: a watch that ends is asked for again from where it ended."""
    while True:
        try:
            changes = access.watch(where, name=name, selector=selector, version=version)
            for kind, body in changes:
                version = body["metadata"].get("resourceVersion", "")
                if kind == "DELETED":
                    console.print(f"{body['metadata']['name']} was deleted", style="yellow")
                    continue
                _print(console, listing, [body], heading=False)
        except GoneError:
            bodies, version = access.objects(where, selector)
            bodies = [b for b in bodies if not name or b["metadata"]["name"] == name]
            _print(console, listing, bodies, heading=False)


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name=options.program())
    return 0
