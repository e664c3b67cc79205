"""The end of the demo: what was measured, what the object says, and how to go on."""

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from canarium_demo.installation import NAMESPACE, Installation
from canarium_demo.models import INPUT, Digits
from canarium_demo.report import Report
from canarium_demo.story import HOSTNAME, NAME
from canarium_demo.tally import Tally
from canarium_demo.world import World


def print_summary(console: Console, world: World, tally: Tally, report: Report) -> None:
    """Print what each version did to its clients, and the report's figures."""
    console.print()
    console.rule("[bold]What the clients saw", align="left")
    table = Table(box=None, padding=(0, 3, 0, 0))
    table.add_column("version")
    for title in ("requests", "failed", "digits right", "weights seen"):
        table.add_column(title, justify="right")
    table.add_column("in the end")
    for version in sorted(set(world.versions.values())):
        table.add_row(*_row(world, tally, version))
    console.print(table)
    unanswered = tally.requests_of("")
    if unanswered:
        console.print(f"{unanswered} requests were answered by no version: {list(tally.notes)}")
    console.print(
        f"{report.requests} requests in all, {report.failed_requests} failed, of which "
        f"{report.failed_requests_on_stable} not through the bad version itself; "
        f"{report.operator_restarts} restart of the operator; {report.seconds:.0f} s in all.",
        highlight=False,
        soft_wrap=True,
    )


def _row(world: World, tally: Tally, version: str) -> tuple[str, ...]:
    revisions = world.revisions_of(version)
    accuracy = next((a for r in revisions if (a := tally.accuracy(r)) is not None), None)
    outcomes = [e.outcome for e in world.status.history if e.model_version == version]
    was_canary = "Deployed" not in outcomes
    weights = world.canary_weights(version) if was_canary else []
    return (
        version,
        str(sum(tally.requests_of(r) for r in revisions)),
        str(sum(tally.failed_of(r) for r in revisions)),
        "" if accuracy is None else f"{accuracy:.1%}",
        " ".join(f"{w}%" for w in weights),
        outcomes[-1] if outcomes else "",
    )


def print_object(console: Console, installation: Installation) -> None:
    """Print the object as `kubectl describe` shows it."""
    command = ("describe", "mdep", NAME, "--namespace", NAMESPACE)
    console.print()
    console.rule(f"[bold]kubectl {' '.join(command)}", align="left")
    _plain(console, installation.kubectl.run(*command, check=False))


def print_next_steps(
    console: Console, installation: Installation, repository: Path, data: Digits
) -> None:
    """Say how to go on playing, and how to end it."""
    pixels = ",".join(f"{pixel:g}" for pixel in data.held_out[0])
    body = f'{{"inputs": {{"{INPUT}": [[{pixels}]]}}}}'
    console.print()
    console.rule("[bold]Go on playing", align="left")
    _plain(
        console,
        f"""\
export KUBECONFIG={installation.kubectl.kubeconfig}
alias kubectl={installation.kubectl.binary}

kubectl get mdep {NAME} -n {NAMESPACE} -w       follow it
kubectl get pods,hpa,httproute -n {NAMESPACE}   what it is made of
git -C {repository} log -p -- '*.yaml'
    edit, then: kubectl apply --server-side -k {repository}
kubectl annotate mdep {NAME} -n {NAMESPACE} canarium.dev/retry="$(date +%s)" --overwrite
    try the bad version once more; without requests it waits for evidence and says so
curl -H 'Host: {HOSTNAME}' {installation.gateway}/predict -d '{body}'
    a {data.held_out_labels[0]}, if it is read right
{installation.prometheus}   Prometheus, for example: sum by (model_version, status) (rate(ml_predictions_total[1m]))

{down_command(installation.cluster)}   when you have seen enough""",
    )


def down_command(cluster: str) -> str:
    """Write the command that ends a cluster, as it can be typed here whether or not the environment is active."""
    program = Path(sys.executable).with_name("canarium")
    beside = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    return f"{beside if program.exists() else 'canarium'} cluster down --name {cluster} --purge"


def _plain(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
