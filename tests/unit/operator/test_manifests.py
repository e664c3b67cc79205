"""The installation's manifests, as files: what the operator may do, and that all parts name the same things."""

import re
from pathlib import Path
from typing import Any

import yaml

from canarium_operator.settings import OperatorSettings

ROOT = Path(__file__).parents[3]
BASE = ROOT / "manifests/base"


def documents(name: str) -> dict[str, dict[str, Any]]:
    """The documents of a file, by kind and name."""
    found = yaml.safe_load_all((BASE / name).read_text(encoding="utf-8"))
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in found}


def test_the_role_is_exactly_this() -> None:
    """A new permission is added here too, with a reason that a reviewer has seen."""
    role = documents("rbac.yaml")["ClusterRole/canarium-operator"]
    granted = {
        f"{group}/{resource}".strip("/"): " ".join(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert granted == {
        "canarium.dev/modeldeployments": "get list watch",
        "canarium.dev/modeldeployments/status": "patch",
        "canarium.dev/modeldeployments/finalizers": "update",
        "canarium.dev/analysistemplates": "get",
        "canarium.dev/clusteranalysistemplates": "get",
        "configmaps": "get list watch create patch delete",
        "services": "get list watch create patch delete",
        "services/proxy": "get",
        "apps/deployments": "get list watch create patch delete",
        "apps/deployments/scale": "get patch",
        "autoscaling/horizontalpodautoscalers": "get list watch create patch delete",
        "policy/poddisruptionbudgets": "get list watch create patch delete",
        "batch/jobs": "get list watch create patch delete",
        "gateway.networking.k8s.io/httproutes": "get list watch create patch delete",
        "gateway.networking.k8s.io/gateways": "get",
        "gateway.networking.k8s.io/gatewayclasses": "get",
        "pods": "list watch",
        "discovery.k8s.io/endpointslices": "list watch",
        "events": "create",
    }
    assert "*" not in str(role["rules"])


def test_users_get_the_roles_of_their_namespace() -> None:
    """Viewers see, editors change; nobody but the operator writes a status."""
    roles = documents("user-roles.yaml")
    aggregation = "rbac.authorization.k8s.io/aggregate-to-"
    for name, audiences in (
        ("canarium-view", ["view", "edit", "admin"]),
        ("canarium-edit", ["edit", "admin"]),
    ):
        labels = roles[f"ClusterRole/{name}"]["metadata"]["labels"]
        assert [
            label.removeprefix(aggregation) for label in labels if label.startswith(aggregation)
        ] == audiences
    (rule,) = roles["ClusterRole/canarium-edit"]["rules"]
    assert rule["resources"] == ["modeldeployments", "analysistemplates"]


def test_the_operator_runs_restricted_and_alone() -> None:
    """One pod, no root, nothing writable but /tmp, in a namespace that enforces it."""
    labels = documents("namespace.yaml")["Namespace/canarium-system"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    spec = documents("operator.yaml")["Deployment/canarium-operator"]["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_settings_and_ports_are_those_of_the_operator() -> None:
    """Every variable in the manifests is a setting, and the probes ask where the operator answers."""
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))
    literals = kustomization["configMapGenerator"][0]["literals"]
    environ = dict(literal.split("=", 1) for literal in literals)
    settings = OperatorSettings.from_env(environ)
    names = {f"CANARIUM_{name.upper()}" for name in OperatorSettings.model_fields}
    assert environ.keys() <= names
    spec = documents("operator.yaml")["Deployment/canarium-operator"]["spec"]["template"]
    ports = {port["name"]: port["containerPort"] for port in spec["spec"]["containers"][0]["ports"]}
    assert ports == {"metrics": settings.metrics_port, "health": settings.health_port}
    assert spec["metadata"]["annotations"]["prometheus.io/port"] == str(settings.metrics_port)


def test_the_image_copies_only_its_own_parts() -> None:
    """Neither the runtime nor its libraries get into the operator's image."""
    text = (ROOT / "operator/Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    assert copied == [
        "pyproject.toml constraints.txt",
        "api/canarium_api",
        "operator/canarium_operator",
    ]
    assert re.findall(r"--extra (\w+)", text) == ["operator"]
    assert "USER 65532:65532" in text
