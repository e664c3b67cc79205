"""The commands: ``canarium cluster ...`` or ``python -m canarium_devcluster ...``."""

from __future__ import annotations

import contextlib
import enum
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from canarium_devcluster import (
    cluster,
    dev_images,
    gateways,
    inspection,
    kind,
    launcher,
    preflight,
)
from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.gitops import session
from canarium_devcluster.progress import spoken
from canarium_devcluster.workshop import Workshop, open_workshop

app = typer.Typer(
    no_args_is_help=True,
    help="A real single-node Kubernetes on this machine, without docker.",
)


class With(enum.StrEnum):
    """What makes the cluster."""

    EMBEDDED = "embedded"
    KIND = "kind"


Name = Annotated[str, typer.Option("--name", help="The cluster's name; several can run at once.")]
How = Annotated[With, typer.Option("--with", help="embedded: no docker; kind: needs docker.")]
Also = Annotated[
    list[str],
    typer.Option("--also", help="Another beside it, with a Gateway of its own: envoy."),
]
GatewayName = Annotated[str, typer.Option("--gateway", help="Gateway API implementation.")]


@contextlib.contextmanager
def _workshop() -> Iterator[Workshop]:
    """The workshop; problems of the user's become one sentence and exit status 1."""
    problems = Console(stderr=True)
    try:
        yield open_workshop(Console())
    except DevclusterError as problem:
        problems.print(str(problem), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from problem
    except KeyboardInterrupt:
        problems.print("Interrupted; run the command again to go on.", style="yellow")
        raise typer.Exit(130) from None


@app.command()
def up(
    name: Name = cluster.DEFAULT_NAME,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what was in it.")] = False,
    how: How = With.EMBEDDED,
    gateway: GatewayName = gateways.DEFAULT,
    also: Also = [],  # noqa: B006 - typer reads it and nobody changes it
) -> None:
    """Build what is missing, start the cluster, wait until all of it is ready."""
    with _workshop() as workshop:
        began = time.monotonic()
        if how is With.KIND:
            if also:
                raise DevclusterError("`--also` is for the embedded cluster", "leave it out")
            kind.up(workshop, name, fresh=fresh, gateway=gateway)
        else:
            mine = launcher.up(workshop, name, fresh=fresh, gateway=gateway, also=also)
            _tell_usage(workshop, mine, also)
        workshop.progress.say(f"Ready after {spoken(time.monotonic() - began)}.")


def _tell_usage(workshop: Workshop, mine: cluster.Cluster, also: list[str]) -> None:
    say, where = workshop.progress.say, mine.addresses
    say("")
    say(f"export KUBECONFIG={mine.kubeconfig}")
    say(f"{mine.kubectl} get pods -A")
    say(f"Gateway     http://{where.gateway_ip}/ (Gateway public in canarium-gateway)")
    for each in also:
        say(f"Gateway     http://{where.gateway_beside_ip}/ (Gateway {each} in canarium-gateway)")
    say(
        f"Prometheus  http://{where.prometheus_ip}:9090/ (in pods: http://prometheus.monitoring:9090)"
    )
    say(f"Pods reach this machine as {where.host_ip}")
    say("")


@app.command()
def down(
    name: Name = cluster.DEFAULT_NAME,
    purge: Annotated[bool, typer.Option("--purge", help="Remove its directory too.")] = False,
    how: How = With.EMBEDDED,
) -> None:
    """Stop the cluster and leave nothing of it on the machine."""
    with _workshop() as workshop:
        began = time.monotonic()
        if how is With.KIND:
            kind.down(workshop, name)
        else:
            launcher.down(workshop, name, purge=purge)
        workshop.progress.say(f"Down after {spoken(time.monotonic() - began)}.")


@app.command()
def status(
    name: Name = cluster.DEFAULT_NAME,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    memory: Annotated[bool, typer.Option("--memory", help="Memory by program.")] = False,
) -> None:
    """Say what runs; exit status 1 unless everything does."""
    with _workshop() as workshop:
        found = inspection.status(cluster.get(workshop.layout.state, name))
        sizes = inspection.memory_bytes(found.pid) if memory and found.pid else {}
        if as_json:
            sys.stdout.write(json.dumps(_as_json(found, sizes), indent=2) + "\n")
        else:
            _print_status(workshop, found, sizes)
        if not found.healthy:
            raise typer.Exit(1)


def _as_json(found: inspection.Status, sizes: dict[str, int]) -> dict[str, object]:
    mine = found.cluster
    return {
        "name": mine.name,
        "running": found.pid is not None,
        "healthy": found.healthy,
        "kubeconfig": str(mine.kubeconfig),
        "kubectl": str(mine.kubectl),
        "gateway": f"http://{mine.addresses.gateway_ip}",
        "prometheus": f"http://{mine.addresses.prometheus_ip}:9090",
        "hostIP": mine.addresses.host_ip,
        "components": found.components,
        "memoryBytes": sizes,
    }


def _print_status(workshop: Workshop, found: inspection.Status, sizes: dict[str, int]) -> None:
    say = workshop.progress.say
    if found.pid is None:
        say(f"The cluster '{found.cluster.name}' does not run.")
        return
    table = Table("component", "state", "restarts", "since", "last exit")
    for component, state in sorted(found.components.items()):
        row = (state["state"], str(state["restarts"]), state["since"][:19])
        table.add_row(component, *row, state.get("lastExit", state.get("message", "")))
    workshop.progress.console.print(table)
    ready = sum(1 for p in found.pods if p[2])
    say(
        f"API server {'ready' if found.api_ready else 'not ready'}, {ready}/{len(found.pods)} pods ready"
    )
    for namespace, pod, is_ready in found.pods:
        if not is_ready:
            say(f"  not ready: {namespace}/{pod}")
    for program, size in sorted(sizes.items(), key=lambda item: -item[1]):
        say(f"  {size / 2**20:7.1f} MiB  {program}")
    if sizes:
        say(f"  {sum(sizes.values()) / 2**20:7.1f} MiB  in all")


@app.command()
def logs(
    component: Annotated[str, typer.Argument(help="etcd, kube-apiserver, kubelet, node, ...")],
    name: Name = cluster.DEFAULT_NAME,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0)] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f")] = False,
) -> None:
    """Print the end of a component's log."""
    with _workshop() as workshop:
        path = inspection.log_file(cluster.get(workshop.layout.state, name), component)
        for line in inspection.last_lines(path, lines):
            sys.stdout.write(line)
        if follow:
            for line in inspection.follow(path):
                sys.stdout.write(line)
                sys.stdout.flush()


@app.command()
def load(
    archive: Annotated[Path, typer.Argument(help="An OCI or docker archive.")],
    name: Name = cluster.DEFAULT_NAME,
) -> None:
    """Load an image archive into the cluster."""
    with _workshop() as workshop:
        launcher.load_archive(workshop, name, archive)
        workshop.progress.say(f"Loaded {archive}.")


@app.command(name="load-dev")
def load_dev(name: Name = cluster.DEFAULT_NAME, how: How = With.EMBEDDED) -> None:
    """Build the operator's and the runtime's image from this checkout and load them."""
    with _workshop() as workshop:
        make = kind.load_dev if how is With.KIND else dev_images.load_into
        changed = make(workshop, name)
        workshop.progress.say(f"Loaded {', '.join(changed)}." if changed else "Nothing changed.")


@app.command()
def gitops(
    repositories: Annotated[
        list[str], typer.Argument(help="Names; new ones are made, all are kept.", metavar="NAME...")
    ],
    name: Name = cluster.DEFAULT_NAME,
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Of the git server, on loopback.")
    ] = session.DEFAULT_PORT,
) -> None:
    """Serve git repositories and run Flux, which applies what is pushed to them, until Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, in order
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell's `&` ignores it
    with _workshop() as workshop:
        try:
            session.serve(workshop, cluster.get(workshop.layout.state, name), repositories, port)
        except KeyboardInterrupt:
            workshop.progress.say("Flux has ended; what it applied stays.")


@app.command()
def kubeconfig(
    name: Name = cluster.DEFAULT_NAME,
    content: Annotated[bool, typer.Option("--print", help="The content, not the path.")] = False,
) -> None:
    """Print the path of the kubeconfig."""
    with _workshop() as workshop:
        path = cluster.get(workshop.layout.state, name).kubeconfig
        sys.stdout.write(path.read_text() if content else f"{path}\n")


@app.command()
def build(
    gateway: GatewayName = gateways.DEFAULT,
    also: Also = [],  # noqa: B006 - typer reads it and nobody changes it
) -> None:
    """Build all binaries and images without starting anything."""
    with _workshop() as workshop:
        launcher.build(workshop, gateway, also=also)
        workshop.progress.say("Everything is built.")


@app.command(name="system-packages")
def system_packages() -> None:
    """Install the Debian packages that a cluster and the tests need, where this is possible."""
    with _workshop() as workshop:
        preflight.ensure_system_packages(workshop.progress.say)


def application(_word: str) -> typer.Typer:
    """Give the app, for the completion and the reference of `canarium cluster`."""
    return app


def main() -> None:
    """Entry point of ``python -m canarium_devcluster``."""
    app()
