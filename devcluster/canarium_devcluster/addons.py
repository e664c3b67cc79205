"""What every cluster gets beside Kubernetes: DNS, metrics, a Gateway and Prometheus."""

from __future__ import annotations

import dataclasses
import datetime as dt
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from canarium_devcluster import gateway_crds, kube, manifests
from canarium_devcluster.addresses import Addresses
from canarium_devcluster.gateways import Gateway
from canarium_devcluster.images import Image
from canarium_devcluster.workshop import Workshop

_EMBEDDED_TRUST = (
    "--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
)
_KIND_TRUST = "--kubelet-insecure-tls"  # its kubelets sign their certificates themselves
_HTTP_SECONDS = 3.0
_WORKLOADS = {"Deployment", "Job"}
_GATEWAYS = "/apis/gateway.networking.k8s.io/v1/namespaces/canarium-gateway/gateways"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Addons:
    """Images and manifests, ready to be applied."""

    images: tuple[Image, ...]
    documents: tuple[dict[str, Any], ...]
    workloads: tuple[dict[str, Any], ...]  # to be applied when the images are loaded
    deployments: tuple[tuple[str, str], ...]  # namespace, name


def prepare(
    workshop: Workshop, where: Addresses, gateway: Gateway, *beside: Gateway, kind: bool = False
) -> Addons:
    """Build images and fill in manifests; ``kind`` brings its own DNS."""
    chosen = (gateway, *beside)
    images: dict[str, Image] = {
        "METRICS_SERVER_IMAGE": workshop.component_image("metrics-server"),
        "PROMETHEUS_IMAGE": workshop.component_image("prometheus"),
    }
    for each in chosen:
        images |= each.images(workshop)
    if not kind:
        images["COREDNS_IMAGE"] = workshop.component_image("coredns")
    values = {
        **{placeholder: image.name for placeholder, image in images.items()},
        **_values(where, gateway),
        "KUBELET_TRUST": _KIND_TRUST if kind else _EMBEDDED_TRUST,
    }
    files = ["metrics-server.yaml", "gateway.yaml", "prometheus.yaml"]
    files += [name for each in chosen for name in each.manifests]
    files = [*files, "kind.yaml"] if kind else ["coredns.yaml", *files]
    folder = workshop.layout.source / "manifests"
    documents = [d for name in files for d in manifests.render(folder / name, values)]
    crds = [*gateway_crds.documents(workshop), *(d for g in chosen for d in g.crds(workshop))]
    deployments = [
        ("kube-system", "coredns"),
        ("kube-system", "metrics-server"),
        *(("canarium-gateway", name) for each in chosen for name in each.deployments),
        ("monitoring", "prometheus"),
    ]
    workloads = [d for d in documents if d["kind"] in _WORKLOADS]
    others = [d for d in documents if d["kind"] not in _WORKLOADS]
    # The Gateway's objects wait for the CRDs, which take the API server a moment.
    own = [d for d in others if not d["apiVersion"].startswith("gateway.")]
    return Addons(
        images=tuple(images.values()),
        documents=(*crds, *own, *(d for d in others if d not in own)),
        workloads=tuple(workloads),
        deployments=tuple(deployments),
    )


def _values(where: Addresses, gateway: Gateway) -> Mapping[str, str]:
    return {
        "DNS_IP": where.dns_ip,
        "GATEWAY_IP": where.gateway_ip,
        "GATEWAY_BESIDE_IP": where.gateway_beside_ip,
        "PROMETHEUS_IP": where.prometheus_ip,
        "GATEWAY_CLASS": gateway.class_name,
    }


def deployment_lacks(api: kube.Api, namespace: str, name: str, since: float) -> str | None:
    """What keeps a Deployment from being ready, looking at pods started after ``since``.

    After a restart of the node the stored status still tells of the pods of the time before.
    """
    deployment = api.find(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
    if deployment is None:
        return f"{name} does not exist"
    spec, status = deployment["spec"], deployment.get("status", {})
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return f"{name} is not looked at yet"
    if status.get("updatedReplicas", 0) < spec["replicas"]:
        return f"{name} is being rolled out"
    labels = ",".join(f"{k}%3D{v}" for k, v in spec["selector"]["matchLabels"].items())
    pods = api.get(f"/api/v1/namespaces/{namespace}/pods?labelSelector={labels}")["items"]
    fresh = [p for p in pods if _pod_lacks(p, since) is None]
    if len(fresh) >= spec["replicas"]:
        return None
    return next(filter(None, (_pod_lacks(p, since) for p in pods)), f"{name} has no pods")


def _pod_lacks(pod: dict[str, Any], since: float) -> str | None:
    name = pod["metadata"]["name"]
    if pod["metadata"].get("deletionTimestamp"):
        return f"pod {name} is going away"
    for status in pod.get("status", {}).get("containerStatuses", []):
        waiting = status["state"].get("waiting")
        if waiting:
            return f"pod {name}: {waiting.get('reason', '')} {waiting.get('message', '')}".strip()
        running = status["state"].get("running")
        if running and _seconds(running["startedAt"]) < int(since):
            return f"pod {name} is not started anew yet"
    if kube.condition(pod, "Ready").get("status") != "True":
        scheduled = kube.condition(pod, "PodScheduled")
        if scheduled.get("status") == "False":
            return f"pod {name}: {scheduled.get('message', 'not scheduled')}"
        return f"pod {name} is not ready"
    return None


def node_lacks(api: kube.Api, name: str, since: float) -> str | None:
    """What keeps the node from being ready; its heartbeat must be newer than ``since``."""
    node = api.find(f"/api/v1/nodes/{name}")
    if node is None:
        return "the node is not registered"
    ready = kube.condition(node, "Ready")
    if ready.get("status") != "True":
        return str(ready.get("message", "the node has no status"))
    if _seconds(ready["lastHeartbeatTime"]) < int(since):
        return "the node has not reported yet"
    return None


def gateway_lacks(api: kube.Api, name: str = "public") -> str | None:
    """What keeps the Gateway of that name from being programmed."""
    gateway = api.find(f"{_GATEWAYS}/{name}")
    if gateway is None:
        return "the Gateway does not exist"
    programmed = kube.condition(gateway, "Programmed")
    current = programmed.get("observedGeneration") == gateway["metadata"]["generation"]
    if programmed.get("status") != "True" or not current:
        return str(programmed.get("message", "no controller has looked at it"))
    return None if gateway["status"].get("addresses") else "it has no address"


def answers(url: str) -> Callable[[], str | None]:
    """A check that something answers HTTP there, be it with 404."""

    def check() -> str | None:
        try:
            with urllib.request.urlopen(url, timeout=_HTTP_SECONDS):  # noqa: S310 - our own address
                return None
        except urllib.error.HTTPError as answer:
            return None if answer.code < 500 else f"{url} answers {answer.code}"
        except OSError as problem:
            return f"{url} does not answer: {problem}"

    return check


def _seconds(timestamp: str) -> float:
    return dt.datetime.fromisoformat(timestamp).timestamp()
