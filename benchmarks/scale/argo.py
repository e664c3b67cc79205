"""Argo Rollouts on the same kind of cluster: as many canaries of two pods, with the same steps and pauses, all at once.

`python -m benchmarks.scale.argo --rollouts 200`. What both can do is not all that ours does: Argo moves no traffic here
and makes ReplicaSets alone, we make a Service, an autoscaler, a disruption budget and a ConfigMap for each revision,
and change a route.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from kubernetes.aio.client import ApiClient

from benchmarks.scale.gateway import watch
from benchmarks.scale.run import (
    BUILD,
    NAMESPACE,
    PAUSE,
    STEPS,
    Objects,
    Usage,
    apply,
    free_port,
    result_of,
    scrape,
    show,
    usage_of,
    world,
)
from canarium_devcluster import go_modules
from canarium_devcluster.workshop import Workshop, open_workshop
from canarium_operator.adapters.kubernetes_connection import connect

MODULE: Final = go_modules.Module(
    path="github.com/argoproj/argo-rollouts",
    version="v1.10.1",
    sum="h1:6oyVPGiHHxu3ixkT6mngemh88HLPDoTX1IwO6KNR1Y4=",
)
ROLLOUTS: Final = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/rollouts"
_REQUESTS: Final = re.compile(
    r'controller_clientset_k8s_request_total\{kind="([^"]*)",[^}]*verb="([^"]*)"\} (\S+)'
)


def binary(workshop: Workshop) -> Path:
    """Build its controller, once."""
    folder = workshop.builder.ensure_module(
        "bin-argo-rollouts",
        MODULE,
        package="./cmd/rollouts-controller",
        title=f"Argo Rollouts {MODULE.version}",
    )
    return folder / "rollouts-controller"


def manifest(number: int, version: str) -> dict[str, Any]:
    """Make one Rollout of two pods."""
    labels = {"app": f"model-{number:04d}"}
    steps: list[dict[str, Any]] = []
    for weight in STEPS:
        steps += [{"setWeight": weight}, {"pause": {"duration": f"{PAUSE:g}s"}}]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": labels["app"], "namespace": NAMESPACE},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "strategy": {"canary": {"steps": steps}},
            "template": {
                "metadata": {"labels": labels, "annotations": {"version": version}},
                "spec": {
                    "nodeSelector": {"type": "kwok"},
                    "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
                    "containers": [{"name": "server", "image": "fake"}],
                },
            },
        },
    }


def is_healthy(version: str) -> Callable[[dict[str, Any]], bool]:
    """Tell of a Rollout whether it is Healthy with a version."""

    def test(body: dict[str, Any]) -> bool:
        status, template = body.get("status") or {}, body["spec"]["template"]
        current = status.get("observedGeneration") == str(body["metadata"]["generation"])
        named = template["metadata"]["annotations"]["version"] == version
        return named and current and status.get("phase") == "Healthy"

    return test


@contextmanager
def running(program: Path, kubeconfig: Path) -> Iterator[Callable[[], Usage]]:
    """Run the controller; gives what reads how much it has used."""
    port = free_port()
    command = [
        str(program), f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--loglevel=warn",
        f"--metricsport={port}", f"--healthzPort={free_port()}",
    ]  # fmt: skip
    with (BUILD / "argo.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def usage() -> Usage:
        requests: Counter[str] = Counter()
        for kind, verb, count in _REQUESTS.findall(scrape(port)):
            requests[f"{verb.lower()} {kind}"] += int(float(count))
        return usage_of(process.pid, requests, 0)

    try:
        yield usage
    finally:
        process.terminate()
        process.wait(timeout=30)


async def measure(api: ApiClient, usage: Callable[[], Usage], options: argparse.Namespace) -> None:
    """Converge, rest, and update all at once."""
    seen = Objects()
    watching = asyncio.create_task(watch(api, ROLLOUTS, seen.take))
    await apply(api, ROLLOUTS, [manifest(n, "1") for n in range(options.rollouts)])
    await seen.until("healthy", is_healthy("1"), options.rollouts, 600)
    before = usage()
    await asyncio.sleep(options.rest)
    show(result_of("rest, Argo Rollouts", options.rollouts, before, usage()))
    before, began = usage(), time.monotonic()
    await apply(api, ROLLOUTS, [manifest(n, "2") for n in range(options.rollouts)])
    await seen.until("healthy", is_healthy("2"), options.rollouts, 900)
    took = round(time.monotonic() - began, 1)
    show(result_of("Argo Rollouts", options.rollouts, before, usage(), all_healthy_after=took))
    watching.cancel()


async def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=200)
    parser.add_argument("--rest", type=float, default=30.0, help="seconds")
    options = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    shop = open_workshop()
    program = binary(shop)
    crds = sorted((go_modules.fetch(MODULE).folder / "manifests" / "crds").glob("*-crd.yaml"))
    with world(shop, crds) as kubeconfig, running(program, kubeconfig) as usage:
        async with connect(str(kubeconfig)) as api:
            await measure(api, usage, options)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
