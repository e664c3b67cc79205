"""From a checkout to a cluster in which Canarium runs: the launcher's work, then `kubectl apply -k`."""

import dataclasses
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from canarium_demo.errors import DemoError
from canarium_demo.kubernetes import Kubectl
from canarium_demo.observer import OPERATOR, OPERATOR_NAMESPACE, OPERATOR_SELECTOR
from canarium_devcluster import dev_images, launcher
from canarium_devcluster.workshop import open_workshop

NAMESPACE: Final = "canarium-demo"
_CRD: Final = "crd/modeldeployments.canarium.dev"
_READY_SECONDS: Final = 120


@dataclasses.dataclass(frozen=True, kw_only=True)
class Installation:
    """A running cluster with Canarium in it."""

    cluster: str
    """Its name."""
    checkout: Path
    kubectl: Kubectl
    gateway: str
    """URL, by address."""
    prometheus: str
    """URL, by address."""


def install(console: Console, name: str) -> Installation:
    """Bring up the cluster, load the images, install Canarium, and wait until the operator is ready."""
    workshop = open_workshop(console)
    say = workshop.progress.say
    mine = launcher.up(workshop, name)
    changed = dev_images.load_into(workshop, name)
    say(f"Images loaded: {', '.join(changed)}." if changed else "Images: nothing changed.")
    kubectl = Kubectl(mine.kubectl, mine.kubeconfig)
    checkout = workshop.layout.checkout
    say("Installing Canarium: kubectl apply --server-side -k manifests/overlays/devcluster")
    operator = (f"deployment/{OPERATOR}", "--namespace", OPERATOR_NAMESPACE)
    ran_before = bool(kubectl.run("get", *operator, "--ignore-not-found", "--output", "name"))
    kubectl.apply(checkout / "manifests" / "overlays" / "devcluster")
    if ran_before and dev_images.OPERATOR_IMAGE in changed:
        kubectl.run("rollout", "restart", *operator)  # the tag is the same, the image is not
    _wait_until_ready(kubectl)
    _remove_leftovers(kubectl, say_to=console)
    return Installation(
        cluster=name,
        checkout=checkout,
        kubectl=kubectl,
        gateway=f"http://{mine.addresses.gateway_ip}",
        prometheus=f"http://{mine.addresses.prometheus_ip}:9090",
    )


def take_down(console: Console, name: str) -> None:
    """End the cluster and everything in it."""
    launcher.down(open_workshop(console), name, purge=True)


def _wait_until_ready(kubectl: Kubectl) -> None:
    limit = f"--timeout={_READY_SECONDS}s"
    try:
        kubectl.run("rollout", "status", f"deployment/{OPERATOR}", "-n", OPERATOR_NAMESPACE, limit)
    except DemoError as error:
        raise DemoError(
            f"The operator was not ready within {_READY_SECONDS} s.", operator_details(kubectl)
        ) from error
    # After the operator: this fails at once for a CRD so new that it has no conditions yet.
    kubectl.run("wait", "--for=condition=Established", _CRD, limit)


def operator_details(kubectl: Kubectl) -> str:
    """Give what explains an operator that does not run: its pods, and the end of its log."""
    about = ("--namespace", OPERATOR_NAMESPACE, "--selector", OPERATOR_SELECTOR)
    pods = kubectl.run("get", "pods", *about, "-o", "wide", check=False)
    return pods + kubectl.run("logs", *about, "--tail=20", check=False)


def _remove_leftovers(kubectl: Kubectl, say_to: Console) -> None:
    """Delete what an earlier demo left, so that version 1 is a first deployment again."""
    if not kubectl.run("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"):
        return
    began = time.monotonic()
    limit = f"--timeout={_READY_SECONDS}s"
    with say_to.status(f"Removing the namespace {NAMESPACE} of an earlier demo"):
        # Pods first: a namespace that finds some looks again only after half of their grace period.
        about = ("--all", "--namespace", NAMESPACE, "--cascade=foreground", limit)
        kubectl.run("delete", "mdep", *about)
        kubectl.run("delete", "namespace", NAMESPACE, limit)
    say_to.print(
        f"Removed the namespace {NAMESPACE} of an earlier demo in {time.monotonic() - began:.0f} s."
    )
