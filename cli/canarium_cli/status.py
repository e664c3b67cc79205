"""`canarium status NAME`: where a ModelDeployment stands, in one screen."""

import json
from typing import Annotated, Any, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from canarium_api.experiment import ExperimentStatus
from canarium_api.status import Check, ModelDeploymentStatus, RevisionStatus
from canarium_cli import options
from canarium_cli.statuses import status_of

_COLOURS: Final = {
    "Pass": "green",
    "Fail": "red",
    "Error": "red",
    "Better": "green",
    "Worse": "red",
    "NoDifference": "blue",
}
_ACTIONS: Final = 5
"""How many of the latest actions are shown."""
app = options.new_app()


@app.command()
@options.in_words
def status(
    name: options.Name,
    namespace: options.Namespace = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON.")] = False,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Show phase, revisions, step and checks of a ModelDeployment, and what people did to it lately."""
    access, space, short = options.find(name, namespace, kubeconfig, context)
    body = access.read(space, short)
    if as_json:
        print(json.dumps(body.get("status") or {}, indent=2))
        return
    show(body, Console(highlight=False))


def show(body: dict[str, Any], console: Console) -> None:
    """Print a ModelDeployment.

    Args:
        body: as the API server gives it.
        console: where to.
    """
    found, meta = status_of(body), body["metadata"]
    seen = found.observed_generation == meta.get("generation")
    console.print(f"[bold]{meta['namespace']}/{meta['name']}[/bold]  {found.phase}", soft_wrap=True)
    note = "" if seen else "the operator has not seen the present spec yet; before: "
    console.print(f"{note}{found.message}", soft_wrap=True, markup=False)
    console.print(_revisions(found))
    if found.rollout is not None and found.rollout.checks:
        console.print(_checks(found.rollout.checks))
    if found.rollout is not None and found.rollout.experiment is not None:
        console.print(_experiment(found.rollout.experiment))
    for action in found.actions[-_ACTIONS:]:
        line = f"{action.at:%Y-%m-%d %H:%M:%SZ}  {action.verb}: {action.message}"
        console.print(line, soft_wrap=True, markup=False)


def _revisions(found: ModelDeploymentStatus) -> Table:
    table = Table("", "version", "revision", "pods", "weight", box=box.SIMPLE_HEAD)
    rows: list[tuple[str, RevisionStatus | None]] = [
        ("stable", found.stable),
        ("canary", found.canary),
    ]
    for role, revision in rows:
        if revision is not None:
            table.add_row(
                role,
                revision.model_version,
                revision.revision,
                f"{revision.ready_replicas}/{revision.replicas}",
                f"{revision.weight}%",
            )
    return table


def _checks(checks: list[Check]) -> Table:
    table = Table(
        "check", "verdict", "value", "stable", "limit", "what it says", box=box.SIMPLE_HEAD
    )
    for check in checks:
        colour = _COLOURS.get(check.verdict, "yellow")
        table.add_row(
            check.name,
            f"[{colour}]{check.verdict}[/{colour}]",
            _text(check.value),
            _text(check.baseline),
            _text(check.limit),
            _text(check.message),
        )
    return table


def _experiment(found: ExperimentStatus) -> Table:
    share = f"{found.share}%: " if found.share is not None else ""
    end = f"until {found.ends_at:%Y-%m-%d %H:%M}Z at the latest" if found.ends_at else ""
    if found.concluded_at is not None:
        end = f"{found.verdict} since {found.concluded_at:%Y-%m-%d %H:%M}Z"
    table = Table(
        "goal", "verdict", "B", "A", "effect", "interval", "p", "requests B, A", "needed",
        title=f"A/B test: {share}{found.assignment}; {end}".replace("[", r"\["),
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )  # fmt: skip
    for goal in found.goals:
        colour = _COLOURS.get(goal.verdict, "yellow")
        between = f"{goal.interval[0]:g} to {goal.interval[1]:g}" if goal.interval else ""
        table.add_row(
            goal.name,
            f"[{colour}]{goal.verdict}[/{colour}]",
            *(
                "" if number is None else f"{number:.4g}"
                for number in (goal.value, goal.baseline, goal.effect)
            ),
            between,
            "" if goal.p_value is None else f"{goal.p_value:.2g}",
            f"{goal.samples}, {goal.baseline_samples}",
            _text(goal.needed),
        )
    return table


def _text(value: object) -> str:
    return "" if value is None else str(value).replace("[", r"\[")


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name=options.program())
    return 0
