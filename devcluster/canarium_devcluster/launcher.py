"""Brings a cluster up and down: the order of things, and what each waits for."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from canarium_devcluster import (
    addons,
    cluster,
    containerd,
    gateway_crds,
    gateways,
    kube,
    node,
    preflight,
)
from canarium_devcluster.addresses import Addresses
from canarium_devcluster.cluster import Cluster
from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.images import Image
from canarium_devcluster.progress import spoken
from canarium_devcluster.workshop import Workshop

_READY_SECONDS = 180.0


def build(
    workshop: Workshop, gateway: str = gateways.DEFAULT, *, also: Sequence[str] = ()
) -> addons.Addons:
    """Make everything that a cluster needs, without starting one."""
    chosen = _chosen(gateway, also)
    _check_machine(workshop, chosen)
    return _build(workshop, Addresses(0), chosen)


def up(
    workshop: Workshop,
    name: str = cluster.DEFAULT_NAME,
    *,
    fresh: bool = False,
    gateway: str = gateways.DEFAULT,
    also: Sequence[str] = (),
    controller_flags: Sequence[str] = (),
) -> Cluster:
    """Bring a cluster up, or repair one that runs; returns when all add-ons are ready.

    ``also`` names implementations from ``gateways.BESIDE``. ``controller_flags`` go to the controller
    manager of a node that is started, after our own and hence before them.
    """
    chosen = _chosen(gateway, also)
    _check_machine(workshop, chosen)
    state = workshop.layout.state
    mine = cluster.open_or_create(state, name)
    with cluster.locked(state / f".{name}.lock"):
        if fresh:
            node.stop(mine)
            node.wipe(mine)
        extras = _build(workshop, mine.addresses, chosen)
        began = time.monotonic()
        _start(workshop, mine, controller_flags)
        since = _since(mine)
        api = _api(mine)
        _step(workshop, began, "API server ready")
        pause = workshop.component_image("pause")
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
            loading = pool.submit(_load, mine, [pause, *extras.images])
            kube.apply_all(api, extras.documents)
            loaded = loading.result()
        _step(workshop, began, f"{len(loaded)} images loaded")
        kube.apply_all(api, extras.workloads)
        for what, check in _checks(mine, api, extras, since, also):
            _wait(mine, what, check)
            _step(workshop, began, f"{what} ready")
    return mine


def down(workshop: Workshop, name: str, *, purge: bool = False) -> None:
    """Stop a cluster; with ``purge`` its directory goes too, and its addresses are free again."""
    state = workshop.layout.state
    mine = cluster.existing(state).get(name)
    if mine is None:
        workshop.progress.say(f"There is no cluster '{name}', so nothing to do.")
        return
    with cluster.locked(state / f".{name}.lock"):
        node.stop(mine)
        if purge:
            node.purge(mine)
    if purge:
        (state / f".{name}.lock").unlink(missing_ok=True)


def running(workshop: Workshop, name: str) -> Cluster:
    """The cluster of that name, which must run."""
    mine = cluster.get(workshop.layout.state, name)
    if mine.node() is None:
        raise DevclusterError(
            f"The cluster '{name}' does not run",
            f"start it with `canarium cluster up --name {name}`",
        )
    return mine


def load(workshop: Workshop, name: str, images: list[Image]) -> list[str]:
    """Load images into a running cluster; returns the names of those that changed."""
    return containerd.load_images(running(workshop, name), images)


def load_archive(workshop: Workshop, name: str, archive: Path) -> None:
    """Load an archive that some other tool made."""
    if not archive.is_file():
        raise DevclusterError(f"There is no file {archive}")
    containerd.load_archive(running(workshop, name), archive)


def _chosen(gateway: str, also: Sequence[str]) -> list[gateways.Gateway]:
    """The one that serves ``public``, then those beside it."""
    return [gateways.get(gateway), *(gateways.beside(name) for name in dict.fromkeys(also))]


def _check_machine(workshop: Workshop, chosen: Sequence[gateways.Gateway]) -> None:
    where = workshop.layout
    probes = preflight.machine_probes()
    # Without go nothing can be asked of the cache; the tools are checked as for a build then.
    must_build = not (
        probes.go_version()
        and not workshop.builder.missing()
        and gateway_crds.fetched(workshop)
        and all(each.fetched(workshop) for each in chosen)
    )
    preflight.require(
        preflight.check(
            probes,
            must_build=must_build,
            wanted_go=preflight.wanted_go(where.source),
            cache=where.cache,
            state=where.state,
        )
    )


def _build(
    workshop: Workshop, where: Addresses, chosen: Sequence[gateways.Gateway]
) -> addons.Addons:
    missing = workshop.builder.missing()
    if missing:
        known = [workshop.cache.last_seconds(g.kind) for g in missing]
        total = f", about {spoken(sum(t for t in known if t))}" if all(known) else ""
        names = ", ".join(g.title for g in missing)
        workshop.progress.say(f"To build{total}: {names}. An interrupted build resumes.")
    workshop.builder.ensure_all()
    return addons.prepare(workshop, where, *chosen)


def _start(workshop: Workshop, mine: Cluster, controller_flags: Sequence[str]) -> None:
    groups = workshop.builder.ensure_all()
    if mine.node() is not None:
        workshop.progress.say(f"The cluster '{mine.name}' runs; checking it.")
        if node.outdated(mine, groups):
            workshop.progress.say("It runs older binaries; `down` and `up` bring the new ones.")
        return
    node.install(mine, groups, workshop.component_image("pause"), controller_flags)
    node.start(mine)


def _since(mine: Cluster) -> float:
    found = mine.node()
    if found is None:
        log = mine.logs / "node.log"
        raise DevclusterError(
            "The node ended as soon as it started",
            f"the whole log is {log}",
            details=log.read_text(errors="replace")[-2000:],
        )
    return found[1]


def _api(mine: Cluster) -> kube.Api:
    api = kube.Api(mine.kubeconfig)

    def check() -> str | None:
        _since(mine)  # fail at once when the node is gone
        return None if api.ready() else "it does not answer"

    _wait(mine, "The API server", check)
    return api


def _load(mine: Cluster, images: list[Image]) -> list[str]:
    containerd.wait_until_listening(mine)
    return containerd.load_images(mine, images)


def _checks(
    mine: Cluster, api: kube.Api, extras: addons.Addons, since: float, also: Sequence[str]
) -> list[tuple[str, Callable[[], str | None]]]:
    where = mine.addresses

    def deployment(namespace: str, name: str) -> Callable[[], str | None]:
        return lambda: addons.deployment_lacks(api, namespace, name, since)

    def beside(name: str) -> Callable[[], str | None]:
        return lambda: addons.gateway_lacks(api, name)

    return [
        ("node", lambda: addons.node_lacks(api, mine.node_name, since)),
        *((name, deployment(namespace, name)) for namespace, name in extras.deployments),
        ("gateway's status", lambda: addons.gateway_lacks(api)),
        ("gateway's address", addons.answers(f"http://{where.gateway_ip}/")),
        *((f"Gateway {name}", beside(name)) for name in also),
        *(("its address", addons.answers(f"http://{where.gateway_beside_ip}/")) for _ in also[:1]),
        ("Prometheus' address", addons.answers(f"http://{where.prometheus_ip}:9090/-/ready")),
    ]


def _wait(mine: Cluster, what: str, check: Callable[[], str | None]) -> None:
    remedy = f"read `canarium cluster logs kubelet --name {mine.name}`"
    kube.wait_for(what, check, seconds=_READY_SECONDS, remedy=remedy)


def _step(workshop: Workshop, began: float, what: str) -> None:
    workshop.progress.say(f"  {spoken(time.monotonic() - began):>6}  {what}")
