"""The add-ons' manifests: complete after rendering, and no more rights than needed."""

from pathlib import Path
from typing import Any

import pytest

from canarium_devcluster import layout, manifests

FOLDER = layout.find().source / "manifests"
VALUES = {
    "COREDNS_IMAGE": "coredns",
    "METRICS_SERVER_IMAGE": "metrics-server",
    "PROMETHEUS_IMAGE": "prometheus",
    "TRAEFIK_IMAGE": "traefik",
    "ENVOY_GATEWAY_IMAGE": "envoy-gateway",
    "ENVOY_IMAGE": "envoy",
    "DNS_IP": "10.96.0.10",
    "GATEWAY_IP": "10.96.0.80",
    "GATEWAY_BESIDE_IP": "10.96.0.81",
    "PROMETHEUS_IP": "10.96.0.90",
    "GATEWAY_CLASS": "traefik",
    "KUBELET_TRUST": "--x",
}


def documents() -> list[dict[str, Any]]:
    return [d for path in sorted(FOLDER.glob("*.yaml")) for d in manifests.render(path, VALUES)]


def workloads() -> list[dict[str, Any]]:
    return [d for d in documents() if d["kind"] == "Deployment"]


@pytest.mark.parametrize("workload", workloads(), ids=lambda d: str(d["metadata"]["name"]))
def test_every_pod_meets_the_restricted_standard(workload: dict[str, Any]) -> None:
    """Non-root, read-only root, no capabilities, the runtime's seccomp profile, bounded memory."""
    pod = workload["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert container["readinessProbe"]


def test_prometheus_may_read_pods_and_nothing_else() -> None:
    """Discovery needs no more."""
    (role,) = (
        d
        for d in documents()
        if d["kind"] == "ClusterRole" and d["metadata"]["name"].endswith("prometheus")
    )
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    ]


def test_a_changed_config_map_starts_pods_anew(tmp_path: Path) -> None:
    """The hash of a file's text is an annotation of its pods."""
    path = tmp_path / "m.yaml"
    hashes = set()
    for content in ("a", "b"):
        path.write_text(f'data: {content}\nhash: "@MANIFEST_HASH@"\n')
        (document,) = manifests.render(path, {})
        hashes.add(document["hash"])
    assert len(hashes) == 2


def test_a_forgotten_value_is_named(tmp_path: Path) -> None:
    """Nothing is applied with a placeholder in it."""
    path = tmp_path / "m.yaml"
    path.write_text("image: '@NEW_IMAGE@'\n")
    with pytest.raises(KeyError, match="NEW_IMAGE"):
        manifests.render(path, VALUES)
