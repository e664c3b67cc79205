"""The other way: kind, where a docker daemon answers.

The same images, add-ons and names as the embedded cluster; kind's own DNS is kept. The machine
reaches the gateway and Prometheus by the ports that kind-config.yaml maps.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from canarium_devcluster import addons, addresses, dev_images, gateways, images, kube
from canarium_devcluster import processes as run
from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.images import Image
from canarium_devcluster.workshop import Workshop

_CONFIG = "kind-config.yaml"
_READY_SECONDS = 300.0
_GATEWAY_URL = "http://127.0.0.1:8080/"
_PROMETHEUS_URL = "http://127.0.0.1:9090"


def up(
    workshop: Workshop, name: str, *, fresh: bool = False, gateway: str = gateways.DEFAULT
) -> Path:
    """Create the cluster when there is none, load images, apply add-ons; returns the kubeconfig."""
    _require_docker()
    where = addresses.Addresses(0)  # the ranges in kind-config.yaml
    chosen = gateways.get(gateway)
    extras = addons.prepare(workshop, where, chosen, kind=True)
    if fresh and _exists(name):
        down(workshop, name)
    kubeconfig = _kubeconfig(workshop, name)
    if not _exists(name):
        config = workshop.layout.checkout / _CONFIG
        _kind(
            workshop,
            f"Creating the kind cluster '{name}'",
            *("create", "cluster", "--name", name, "--config", str(config)),
            *("--kubeconfig", str(kubeconfig), "--wait", "120s"),
        )
    else:
        _kind(
            workshop,
            "Reading the kubeconfig",
            *("export", "kubeconfig", "--name", name, "--kubeconfig", str(kubeconfig)),
        )
    load_images(workshop, name, list(extras.images))
    api = kube.Api(kubeconfig)
    kube.apply_all(api, [*extras.documents, *extras.workloads])
    for namespace, deployment in extras.deployments:
        _wait_for_deployment(api, namespace, deployment)
    kube.wait_for("The gateway", lambda: addons.gateway_lacks(api), seconds=_READY_SECONDS)
    for url in (_GATEWAY_URL, f"{_PROMETHEUS_URL}/-/ready"):
        kube.wait_for(url, addons.answers(url), seconds=_READY_SECONDS)
    workshop.progress.say(f"\nexport KUBECONFIG={kubeconfig}")
    workshop.progress.say(f"Gateway {_GATEWAY_URL}, Prometheus {_PROMETHEUS_URL}\n")
    return kubeconfig


def _wait_for_deployment(api: kube.Api, namespace: str, name: str) -> None:
    def check() -> str | None:
        return addons.deployment_lacks(api, namespace, name, since=0.0)

    kube.wait_for(name, check, seconds=_READY_SECONDS)


def down(workshop: Workshop, name: str) -> None:
    """Delete the cluster."""
    _require_docker()
    _kind(workshop, f"Deleting the kind cluster '{name}'", "delete", "cluster", "--name", name)


def load_images(workshop: Workshop, name: str, wanted: list[Image]) -> None:
    """Load images through archives, as kind takes them."""
    with tempfile.TemporaryDirectory() as folder:
        for image in wanted:
            archive = images.save(image, Path(folder, "image.tar"))
            _kind(
                workshop,
                f"Loading {image.name}",
                *("load", "image-archive", str(archive), "--name", name),
            )


def load_dev(workshop: Workshop, name: str) -> list[str]:
    """Build the project's own images and load them."""
    _require_docker()
    wanted = [dev_images.operator_image(workshop), dev_images.runtime_image(workshop)]
    load_images(workshop, name, wanted)
    return [image.name for image in wanted]


def _require_docker() -> None:
    for tool in ("docker", "kind"):
        if shutil.which(tool) is None:
            raise DevclusterError(
                f"`--with kind` needs `{tool}`, which is not on the PATH",
                "install it, or leave the option out to use the embedded cluster",
            )
    if run.answer(["docker", "info"], timeout_seconds=20) is None:
        raise DevclusterError("No docker daemon answers", "start it, or leave `--with kind` out")


def _exists(name: str) -> bool:
    return name in (run.answer(["kind", "get", "clusters"], timeout_seconds=30) or "").split()


def _kubeconfig(workshop: Workshop, name: str) -> Path:
    folder = workshop.layout.cache / "kind"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.kubeconfig"


def _kind(workshop: Workshop, title: str, *arguments: str) -> None:
    with workshop.progress.step(title, remember=f"kind-{arguments[0]}"):
        log = workshop.layout.build_logs / f"kind-{arguments[0]}.log"
        run.run_logged(["kind", *arguments], log, what=title)
