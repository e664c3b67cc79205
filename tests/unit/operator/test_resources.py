"""The makers: a plan goes in, Kubernetes objects come out."""

import dataclasses
from typing import Any

import pytest

from canarium_api.runtime_config import RuntimeConfig
from canarium_api.v1alpha1 import ModelDeploymentSpec, ModelFormat
from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.plan import Plan, RevisionPlan
from canarium_operator.core.resources import model_source, route
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.revision import Revision, revision_of
from canarium_operator.testing.objects import model_deployment

REF = ObjectRef(namespace="ml", name="fraud", uid="u-1")
IMAGE = "runtime:1"


def make_spec(**spec: Any) -> ModelDeploymentSpec:
    return ModelDeploymentSpec.from_manifest(model_deployment(**spec)["spec"])


def make_plan(
    spec: ModelDeploymentSpec, *others: Revision, weights: dict[str, int] | None = None
) -> Plan:
    revisions = (revision_of(spec, IMAGE), *others)
    return Plan(
        ref=REF,
        spec=spec,
        revisions=tuple(
            RevisionPlan(revision=r, min_replicas=2, max_replicas=9) for r in revisions
        ),
        weights=weights,
    )


def children(**spec: Any) -> dict[str, Manifest]:
    """All children of one revision with all the traffic, by kind."""
    parsed = make_spec(**spec)
    plan = make_plan(parsed, weights={revision_of(parsed, IMAGE).name: 100})
    return {child["kind"]: child for child in desired_children(plan)}


def pod(**spec: Any) -> Manifest:
    template: Manifest = children(**spec)["Deployment"]["spec"]["template"]
    return template


def container(**spec: Any) -> Manifest:
    found: Manifest = pod(**spec)["spec"]["containers"][0]
    return found


def test_every_child_is_owned_labelled_and_stamped() -> None:
    """It goes with its owner, is found by its labels, and tells what it was made from."""
    found = children()
    assert found.keys() == {
        "ConfigMap", "Service", "Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler", "HTTPRoute",
    }  # fmt: skip
    for child in found.values():
        meta = child["metadata"]
        assert meta["namespace"] == "ml"
        assert meta["ownerReferences"] == [naming.owner_reference(REF)]
        assert naming.object_labels(REF).items() <= meta["labels"].items()
        assert len(meta["annotations"][naming.HASH_ANNOTATION]) == 16


def test_labels_of_gitops_tools_are_not_copied() -> None:
    """Nothing of the ModelDeployment's own metadata reaches a child, or a tool would prune the children."""
    names = {name for child in children().values() for name in child["metadata"]["labels"]}
    assert {name.split("/")[0] for name in names} == {"app.kubernetes.io", "canarium.dev"}


def test_the_server_reads_what_the_operator_writes() -> None:
    """The ConfigMap is the server's settings, exactly as it parses them."""
    config = RuntimeConfig.from_env(
        children(version="7", serving={"maxBodySize": "1Mi", "validation": {"allowNan": True}})[
            "ConfigMap"
        ]["data"]
    )
    assert config.validation_spec.allow_nan
    assert config.deployment == "ml/fraud"
    assert config.model_name == "fraud"
    assert config.model_version == "7"
    assert config.max_body_bytes == 1024 * 1024
    assert config.drain_delay.total_seconds() == 5


def config_of(**spec: Any) -> RuntimeConfig:
    return RuntimeConfig.from_env(children(**spec)["ConfigMap"]["data"])


def test_what_a_model_declares_reaches_the_server() -> None:
    """Format, tensors, leave to run code, and requests for the warm-up."""
    tensor = {"name": "x", "datatype": "BF16", "shape": [-1, 2]}
    sample = {"instances": [[1, 2]]}
    model = {
        "uri": "https://models.example.com/m.zip",
        "sha256": "0" * 64,
        "format": "python",
        "allowCode": True,
        "entrypoint": "serve:Scorer",
        "inputs": [tensor],
        "outputs": [tensor],
        "warmup": {"samples": [sample], "uri": "https://models.example.com/w.jsonl"},
    }
    config = config_of(model=model)
    assert (config.model_format, config.allow_code) == (ModelFormat.PYTHON, True)
    assert config.model_entrypoint == "serve:Scorer"
    assert [t.to_manifest() for t in config.model_inputs] == [tensor]
    assert [t.to_manifest() for t in config.model_outputs] == [tensor]
    assert config.warmup_samples == (sample,)
    assert config.warmup_uri == "https://models.example.com/w.jsonl"


@pytest.mark.parametrize(
    ("limits", "asked", "expected"),
    [
        ({}, "auto", "none"),
        ({"nvidia.com/gpu": "1"}, "auto", "gpu"),
        ({"nvidia.com/gpu.shared": "1"}, "auto", "gpu"),
        ({"nvidia.com/mig-1g.10gb": "1"}, "auto", "gpu"),
        ({"nvidia.com/gpu": "0"}, "auto", "none"),
        ({"nvidia.com/gpu": "1"}, "none", "none"),
        ({}, "gpu", "gpu"),
    ],
)
def test_a_pod_that_has_a_gpu_runs_its_model_there(
    limits: dict[str, str], asked: str, expected: str
) -> None:
    """World: the pod's resources and what the spec asks for; world: what the server is told."""
    serving = {
        "resources": {"limits": {"cpu": "1", "memory": "1Gi", **limits}},
        "execution": {"accelerator": asked, "gpuMemory": "2Gi", "precision": "bf16"},
    }
    config = config_of(serving=serving)
    assert config.accelerator == expected
    assert (config.gpu_memory_bytes, config.precision) == (2 * 1024**3, "bf16")


def test_threads_are_the_pods_cpus_unless_the_spec_says_how_many() -> None:
    """0 has the server look at its cgroup; one more thread or less is another revision, as it is another latency."""
    assert config_of().intra_op_threads == 0
    assert config_of(serving={"execution": {"threads": 1}}).intra_op_threads == 1


def test_grpc_is_a_port_more_where_it_is_wanted() -> None:
    """The server is told, pod and Service have a port named grpc; probes stay with HTTP. Without it: nothing."""
    with_it, without = children(serving={"grpc": True}), children()
    assert with_it["ConfigMap"]["data"]["CANARIUM_GRPC_PORT"] == "8001"
    assert "CANARIUM_GRPC_PORT" not in without["ConfigMap"]["data"]
    assert with_it["Service"]["spec"]["ports"][1] == {
        "name": "grpc",
        "port": 8001,
        "targetPort": "grpc",
        "protocol": "TCP",
        "appProtocol": "kubernetes.io/h2c",
    }
    assert [port["name"] for port in without["Service"]["spec"]["ports"]] == ["http"]
    server = container(serving={"grpc": True})
    assert [port["name"] for port in server["ports"]] == ["http", "grpc"]
    assert server["readinessProbe"]["httpGet"]["port"] == "http"
    assert [port["name"] for port in container()["ports"]] == ["http"]


def test_the_services_that_lead_to_pods_have_the_port_too() -> None:
    """The Service of a model without a gateway, and the preview of a canary."""
    plan = make_plan(make_spec(serving={"grpc": True}))
    name = plan.revisions[0].revision.name
    whole = dataclasses.replace(plan, front=frozenset({name}), preview=name)
    services = [child for child in desired_children(whole) if child["kind"] == "Service"]
    assert len(services) == 3
    for child in services:
        assert [port["name"] for port in child["spec"]["ports"]] == ["http", "grpc"]


def test_a_revision_outlives_its_spec() -> None:
    """From its ConfigMap alone it can be made again."""
    spec = make_spec(serving={"maxBatchSize": 4})
    revision = revision_of(spec, IMAGE)
    assert Revision.from_template(revision.name, revision.to_template()) == revision


def test_replicas_are_left_to_the_autoscaler() -> None:
    """The Deployment never says how many, the HPA does."""
    found = children(autoscaling={"minReplicas": 2, "maxReplicas": 9, "cpu": 50, "memory": 0})
    assert "replicas" not in found["Deployment"]["spec"]
    hpa = found["HorizontalPodAutoscaler"]["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (2, 9)
    assert hpa["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    assert hpa["metrics"] == [
        {
            "type": "Resource",
            "resource": {
                "name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50},
            },
        }
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"autoscaling": {"minReplicas": 1}},
        {"rollout": {"progressDeadline": "1h", "scaleDownDelay": "5s"}},
        {"rollout": {"canary": {"steps": [{"weight": 50}]}}},
        {"traffic": {"gateway": {"name": "other"}, "hostnames": ["a.example.com"]}},
    ],
)
def test_only_the_revision_decides_what_pods_are_made_of(change: dict[str, Any]) -> None:
    """Autoscaling, traffic and rollout settings never restart a pod."""
    assert pod(**change) == pod()


def test_pods_pass_restricted_pod_security() -> None:
    """No root, no privileges, nothing writable but /tmp, no token."""
    spec = pod()["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container()["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]


def test_a_pod_has_time_to_drain() -> None:
    """Delay for the endpoints, time for the requests, and a margin before SIGKILL."""
    assert (
        pod(serving={"drainTimeout": "90s"})["spec"]["terminationGracePeriodSeconds"] == 5 + 90 + 5
    )


def test_probes_follow_the_open_inference_protocol() -> None:
    """Ready means that the model answers; a slow load is not killed, a hung server is."""
    probes = {
        name: container()[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    paths = {name: probe["httpGet"]["path"] for name, probe in probes.items()}
    assert paths == {
        "startupProbe": "/v2/health/ready",
        "readinessProbe": "/v2/health/ready",
        "livenessProbe": "/v2/health/live",
    }
    assert (
        probes["startupProbe"]["periodSeconds"] * probes["startupProbe"]["failureThreshold"] == 3600
    )
    assert probes["readinessProbe"]["periodSeconds"] == 2


def test_labels_of_the_user_never_displace_ours() -> None:
    """A label under canarium.dev/ in other hands would break the selectors."""
    labels = pod(serving={"podLabels": {"team": "risk", naming.REVISION_LABEL: "x"}})["metadata"][
        "labels"
    ]
    assert labels["team"] == "risk"
    assert labels[naming.REVISION_LABEL] != "x"


def test_what_the_user_says_of_scheduling_is_passed_on() -> None:
    """And what was not said is absent."""
    assert "affinity" not in pod()["spec"]
    spec = pod(
        serving={
            "nodeSelector": {"gpu": "yes"},
            "tolerations": [{"key": "spot"}],
            "affinity": {"podAffinity": {}},
            "imagePullSecrets": ["registry"],
            "serviceAccountName": "reader",
            "resources": {"limits": {"nvidia.com/gpu": 1}},
        }
    )["spec"]
    assert spec["nodeSelector"] == {"gpu": "yes"}
    assert spec["tolerations"] == [{"key": "spot"}]
    assert spec["affinity"] == {"podAffinity": {}}
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["serviceAccountName"] == "reader"
    assert spec["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}


@pytest.mark.parametrize(
    ("uri", "seen", "volume"),
    [
        ("https://h/a.onnx", "https://h/a.onnx", None),
        ("file:///srv/a.onnx", "file:///srv/a.onnx", None),
        (
            "pvc://claim/a/b.onnx",
            "file:///models/a/b.onnx",
            {"name": "model", "persistentVolumeClaim": {"claimName": "claim", "readOnly": True}},
        ),
        (
            "configmap://tiny/m.onnx",
            "file:///models/m.onnx",
            {
                "name": "model",
                "configMap": {"name": "tiny", "items": [{"key": "m.onnx", "path": "m.onnx"}]},
            },
        ),
    ],
)
def test_volumes_are_mounted_and_read_as_files(
    uri: str, seen: str, volume: Manifest | None
) -> None:
    """The server knows no volumes: it gets a path below /models."""
    source = model_source.locate(uri)
    assert source.uri == seen
    assert source.volumes == ([volume] if volume else [])
    assert all(mount["readOnly"] for mount in source.mounts)
    assert children(model={"uri": uri})["ConfigMap"]["data"]["CANARIUM_MODEL_URI"] == seen


def test_moving_the_same_bytes_changes_where_new_pods_fetch_them() -> None:
    """With a digest, another URI is the same revision: the same pods, another ConfigMap."""
    here, there = (
        children(model={"uri": f"https://{host}/m.onnx", "sha256": "0" * 64}) for host in ("a", "b")
    )
    assert here["Deployment"] == there["Deployment"]
    assert here["ConfigMap"]["metadata"]["name"] == there["ConfigMap"]["metadata"]["name"]
    assert here["ConfigMap"]["data"] != there["ConfigMap"]["data"]


def test_a_drain_takes_one_pod_at_a_time_and_never_waits_for_broken_ones() -> None:
    """The budget is on the unavailable, so it also lets a single pod go."""
    budget = children()["PodDisruptionBudget"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_the_route_splits_by_weight_and_comes_back_as_weights() -> None:
    """`weights_of` reads what `make_route` wrote."""
    plan = make_plan(make_spec())
    made = route.make_route(plan, {"aaa": 90, "bbb": 10})
    backends = made["spec"]["rules"][0]["backendRefs"]
    assert [(b["name"], b["weight"]) for b in backends] == [("fraud-aaa", 90), ("fraud-bbb", 10)]
    assert route.weights_of(made) == {"aaa": 90, "bbb": 10}


def test_foreign_backends_and_rules_do_not_hide() -> None:
    """A backend that somebody added stands under its own name; weights of several rules add up; zeros are absent."""
    rules = [
        {"backendRefs": [{"name": "fraud-aaa", "weight": 90}, {"name": "fraud-bbb", "weight": 0}]},
        {"backendRefs": [{"name": "fraud-aaa", "weight": 5}, {"name": "elsewhere"}]},
    ]
    assert route.weights_of({"metadata": {"name": "fraud"}, "spec": {"rules": rules}}) == {
        "aaa": 95,
        "elsewhere": 1,
    }


def test_the_route_has_a_host_of_its_own_by_default() -> None:
    """Two models behind one gateway never answer for one another."""
    assert children()["HTTPRoute"]["spec"]["hostnames"] == ["fraud.ml.models.local"]


def test_the_gateway_is_sought_in_the_own_namespace_by_default() -> None:
    """Unless the spec names another, or a listener."""
    (parent,) = children()["HTTPRoute"]["spec"]["parentRefs"]
    assert (parent["name"], parent["namespace"], "sectionName" in parent) == ("public", "ml", False)
    traffic = {"gateway": {"name": "g", "namespace": "infra", "sectionName": "https"}}
    (parent,) = children(traffic=traffic)["HTTPRoute"]["spec"]["parentRefs"]
    assert (parent["name"], parent["namespace"], parent["sectionName"]) == ("g", "infra", "https")


def test_the_gateway_waits_longer_than_the_server() -> None:
    """In whole seconds, since the Gateway API's durations have neither days nor fractions."""
    rule = children(serving={"requestTimeout": "1d"})["HTTPRoute"]["spec"]["rules"][0]
    assert rule["timeouts"] == {"request": "86405s"}


def test_the_route_comes_right_after_what_it_points_at() -> None:
    """A rollback does not wait for the objects of the canary."""
    spec = make_spec(version="2")
    stable = revision_of(make_spec(version="1"), IMAGE)
    plan = make_plan(spec, stable, weights={stable.name: 100})
    order = [
        (child["kind"], child["metadata"]["labels"].get(naming.REVISION_LABEL))
        for child in desired_children(plan)
    ]
    assert order[:5] == [(kind, stable.name) for kind, _ in order[:5]]
    assert order[5] == ("HTTPRoute", None)
    assert order[6] == ("ConfigMap", revision_of(spec, IMAGE).name)


def test_there_is_no_route_before_there_is_somebody_to_serve() -> None:
    """No weights, no route."""
    kinds = {child["kind"] for child in desired_children(make_plan(make_spec()))}
    assert "HTTPRoute" not in kinds


@pytest.mark.parametrize(("processes", "answers_port"), [(1, 8081), (2, None), (0, None)])
def test_only_a_server_of_one_process_offers_its_answers(
    processes: int, answers_port: int | None
) -> None:
    """Each process would have a part of them; the server would refuse such settings."""
    config = config_of(serving={"processes": processes})
    assert (config.processes, config.answers_port) == (processes, answers_port)
