"""`canarium check DIR|FILE...`: are these manifests such as the cluster and the operator take them?"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from canarium_cli.checking import judging, objects, sources
from canarium_cli.checking.documents import Document
from canarium_cli.checking.kustomizing import Kustomize
from canarium_cli.checking.report import Output, Report, render
from canarium_cli.checking.sources import Group, SourceError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def check(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="DIR|FILE...", help="What to check; - is standard input."),
    ] = None,
    output: Annotated[
        Output, typer.Option("-o", "--output", help="Format of the report.")
    ] = Output.TEXT,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors.")] = False,
    kustomize: Annotated[
        bool,
        typer.Option(help="Build kustomizations, and check what comes out."),
    ] = True,
) -> None:
    """Check ModelDeployments and AnalysisTemplates without a cluster.

    Looked at are the CRD's schema and its rules across fields, unknown fields, what the operator refuses besides,
    objects that are there twice, and what kstatus makes of a status in the file. Exit status 0: nothing is wrong
    (warnings may be there, unless --strict); 1: something is; 2: nothing could be checked.
    """
    builder = Kustomize.find() if kustomize else None
    try:
        groups = sources.collect(paths or ["."], builder, Path.cwd().resolve())
    except SourceError as error:
        _fail(str(error))
        return
    report = Report(findings=judging.judge(groups), objects=names(groups), strict=strict)
    if not report.objects and report.errors == 0:
        _fail(f"no ModelDeployment in {', '.join(paths or ['.'])}: nothing was checked")
    print(render(report, output, colours=sys.stdout.isatty()))
    raise typer.Exit(1 if report.errors else 0)


def names(groups: list[Group]) -> list[str]:
    """Name what is checked: `FILE: KIND NAMESPACE/NAME`."""

    def name(document: Document) -> str:
        return f"{document.place('metadata.name').file}: {objects.name_of(document)}"

    return [name(d) for group in groups for d in group.documents if objects.is_ours(d)]


def _fail(message: str) -> None:
    print(f"canarium check: {message}", file=sys.stderr)
    raise typer.Exit(2)


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name="canarium check")
    return 0
