"""The CRD on a real API server: the rules that only CEL can hold, the samples, and what `kubectl get` shows."""

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import validation
from canarium_operator.errors import RejectedError

from .world import COLLECTIONS, ROOT, RealWorld, call, object_of

pytestmark = pytest.mark.cluster
SAMPLES = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "manifests/samples").glob("*.yaml"))
}


WITHIN: dict[str, Any] = {"traffic": {}}
"""Reached from inside the cluster alone."""


def steps(*weights: int) -> dict[str, Any]:
    return {"rollout": {"canary": {"steps": [{"weight": weight} for weight in weights]}}}


def versions(*named: tuple[str, int]) -> dict[str, Any]:
    found = [
        {"name": name, "weight": weight, "model": {"uri": f"https://m.example.com/{number}"}}
        for number, (name, weight) in enumerate(named)
    ]
    return {"rollout": {"fixed": {"versions": found}}}


def metrics(*found: dict[str, Any]) -> dict[str, Any]:
    return {"rollout": {"analysis": {"metrics": list(found)}}}


MODEL = {"uri": "https://models.example.com/m"}
MORE = {"name": "more", "uri": "https://models.example.com/more.onnx"}
TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}


def ab_test(**ways: Any) -> dict[str, Any]:
    return {"rollout": {"abTest": {"goals": ["error-rate"], **ways}}}


@pytest.mark.parametrize(
    ("remedy", "spec"),
    [
        ("add the digest", {"model": {"uri": "http://models.example.com/a.onnx"}}),
        ("set model.allowCode to true", {"model": {**MODEL, "format": "python"}}),
        ("add the digest", {"model": {**MODEL, "format": "python", "allowCode": True}}),
        (
            "add the digest",
            {"model": {**MODEL, "warmup": {"uri": "http://models.example.com/w.jsonl"}}},
        ),
        ("set uri, or remove sha256", {"model": {**MODEL, "warmup": {"sha256": "0" * 64}}}),
        ("give one another name or version", {"serving": {"models": [MORE, MORE]}}),
        ("list models, or remove it", {"serving": {"modelMemory": "1Gi"}}),
        ("list it there", {"serving": {"fallbacks": [{"model": "more"}]}}),
        ("exactly one of model, url and outputs", {"serving": {"fallbacks": [{}]}}),
        (
            "add the digest",
            {"serving": {"models": [{"name": "more", "uri": "http://models.example.com/a.onnx"}]}},
        ),
        (
            "set accelerator to auto or gpu",
            {"serving": {"execution": {"accelerator": "none", "provider": "cuda"}}},
        ),
        (
            "set accelerator to auto or none",
            {"serving": {"execution": {"accelerator": "gpu", "provider": "openvino"}}},
        ),
        (
            "set serving.processes to 1, or remove rollout.shadow",
            {"serving": {"processes": 2}, "rollout": {"shadow": {}}},
        ),
        (
            "set serving.processes to 1, or use audit.file",
            {"serving": {"processes": 0, "audit": {"kafka": {"bootstrapServers": ["kafka:9092"]}}}},
        ),
        ("lower the one or raise the other", {"autoscaling": {"minReplicas": 30}}),
        ("set cpu or memory above 0", {"autoscaling": {"cpu": 0, "memory": 0}}),
        ("reorder the steps", steps(5, 5)),
        ("reorder the steps", steps(*range(1, 20), 1)),
        ("unless the name is built in", metrics({"name": "fairness", "min": 1})),
        ("no ratio of .* pods gives 1% 2% : use 5, 6, 7, ", steps(1, 2, 50) | WITHIN),
        ("use 25, 40, 50, 100, raise", steps(30) | WITHIN | {"autoscaling": {"maxReplicas": 3}}),
        ("lower them, spec.model gets the rest", versions(("eu", 60), ("us", 40))),
        ("give each version a name of its own", versions(("eu", 20), ("eu", 10))),
        ("choose another name", versions(("main", 20))),
        ("splits by weight and by header: set traffic.gateway", versions(("eu", 20)) | WITHIN),
        (
            "nothing tells users apart: set traffic.gateway",
            ab_test(header={"name": "x-group", "value": "b"}) | WITHIN,
        ),
        (
            "rollout takes one of",
            {"rollout": {**versions(("eu", 20))["rollout"], "canary": {"steps": [{"weight": 50}]}}},
        ),
        ("set both, or neither", {"rollout": {"readyStep": 2}}),
        ("set both, or neither", {"rollout": {"readyStep": 2, "readyWhen": "Admitted"}}),
        ("set both, or neither", {"rollout": {"readyWhen": "StepReached"}}),
        (
            "use readyWhen: Promoted or Admitted",
            {
                "rollout": {
                    **versions(("eu", 20))["rollout"],
                    "readyWhen": "StepReached",
                    "readyStep": 1,
                }
            },
        ),
        ("set traffic.gateway, or remove", {"traffic": {"hostnames": ["fraud.example.com"]}}),
        ("say who gets the new version in one way", ab_test()),
        (
            "say who gets the new version in one way",
            ab_test(header={"name": "a", "value": "b"}, sticky={"header": "x-user"}),
        ),
        (
            "name the one that carries the key",
            ab_test(sticky={"header": "x-user", "cookie": "uid"}),
        ),
        (
            "remove the others",
            {"rollout": {**ab_test(sticky={"header": "x"})["rollout"], "blueGreen": {}}},
        ),
        (
            "give the second check a name of its own",
            metrics({"name": "error-rate"}, {"name": "error-rate"}),
        ),
    ],
)
async def test_a_rule_names_its_remedy(real: RealWorld, remedy: str, spec: dict[str, Any]) -> None:
    """What the types cannot say, CEL rules refuse with a sentence that says what to do."""
    with pytest.raises(RejectedError, match=remedy):
        await real.put(object_of(real, **spec))


@pytest.mark.parametrize("name", ["a" * 53, "7fraud", "fraud.v2"])
async def test_a_name_that_no_service_could_have_is_refused(real: RealWorld, name: str) -> None:
    """Services are named after the object, so its name is checked before anything exists."""
    with pytest.raises(RejectedError, match=r"metadata\.name must"):
        await real.put(object_of(real, name))


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"uri": "http://models.example.com/a.onnx", "sha256": "0" * 64}},
        {"model": {"uri": "pvc://models/a/b.onnx"}},
        {"rollout": {"readyWhen": "StepReached", "readyStep": 6}},
        {"rollout": {"readyWhen": "Admitted", **versions(("eu", 20))["rollout"]}},
        {
            "serving": {
                "models": [MORE, {**MORE, "version": "2"}],
                "modelMemory": "512Mi",
                "fallbacks": [{"model": "more", "version": "2"}, {"outputs": {"y": [1]}}],
                "backendTimeout": "1s",
                "breakerFailures": 0,
            }
        },
        {"model": {"uri": "configmap://tiny/model.py", "format": "python", "allowCode": True}},
        {"model": {**MODEL, "format": "torch", "inputs": [TENSOR], "outputs": [TENSOR]}},
        {"model": {**MODEL, "warmup": {"samples": [{"instances": [[1, 2]]}]}}},
        {
            "serving": {
                "execution": {"accelerator": "gpu", "provider": "tensorrt", "precision": "fp16"}
            }
        },
        {"model": {"uri": "configmap://tiny/model.onnx"}},
        {"model": {"uri": "file:///models/model.onnx"}},
        {"autoscaling": {"minReplicas": 20, "maxReplicas": 20, "memory": 0}},
        steps(*range(1, 21)),
        metrics(
            {"name": "error-rate", "max": "1%", "maxIncrease": 0.001},
            {"name": "latency-p99", "max": "200ms", "maxRatio": 2},
            {"name": "agreement", "query": "sum(agree)", "min": 0.98, "max": 1},
        ),
        metrics(),
        versions(("eu", 60), ("us", 39), ("lab", 0)),
        WITHIN,
        steps(1, 5, 10, 25, 50, 100) | WITHIN,
        steps(5, 87, 100) | WITHIN,
        steps(25, 40, 50) | WITHIN | {"autoscaling": {"maxReplicas": 3}},
        steps(1, 99) | WITHIN | {"autoscaling": {"maxReplicas": 1000}},
        {"serving": {"resources": {"limits": {"cpu": 2, "memory": "1.5Gi", "nvidia.com/gpu": 1}}}},
        {"serving": {"affinity": {"nodeAffinity": {"x": [1]}}, "tolerations": [{"key": "spot"}]}},
        {
            "traffic": {
                "gateway": {"name": "g", "namespace": "infra"},
                "hostnames": ["*.example.com"],
            }
        },
    ],
)
async def test_a_good_spec_is_stored_and_understood(real: RealWorld, spec: dict[str, Any]) -> None:
    """What the schema admits, the operator's own types read back; numbers and strings alike for limits and
    quantities.
    """
    ref = await real.put(object_of(real, **spec))
    body = await real.cluster.get(ref)
    assert body is not None
    assert isinstance(validation.parse_spec(body["spec"]), ModelDeploymentSpec)


@pytest.mark.parametrize("sample", SAMPLES)
async def test_a_sample_is_accepted(real: RealWorld, sample: str) -> None:
    """Every sample in manifests/ is valid, for the API server and for the operator."""
    manifest = copy.deepcopy(SAMPLES[sample])
    manifest["metadata"]["namespace"] = real.namespace
    ref = await real.put(manifest)
    body = await real.cluster.get(ref)
    assert body is not None
    spec = validation.parse_spec(body["spec"])
    assert isinstance(spec, ModelDeploymentSpec)
    assert validation.validate(spec) == []


async def test_kubectl_get_shows_what_a_rollout_does(real: RealWorld) -> None:
    """The printer columns find their cells in the status; the reason says what is done, also where that is Ready."""
    ref = await real.put(object_of(real))
    body = await real.cluster.get(ref)
    assert body is not None
    now = datetime.now(UTC).isoformat()
    ready, progressing = (
        {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": "m",
            "lastTransitionTime": now,
            "observedGeneration": 1,
        }
        for kind, reason in (("Ready", "Admitted"), ("Progressing", "AwaitingSamples"))
    )
    status = {
        "observedGeneration": 1,
        "phase": "Canary",
        "message": "step 2/6",
        "conditions": [ready, progressing],
        "rollout": {"steps": 6, "weights": [1, 5], "weight": 5, "startedAt": now},
        "summary": {"step": "2/6", "canary": "v7@9c1fab12", "stable": "v6@41aa0000"},
    }
    await real.cluster.apply_status({**body, "status": status})
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    path = COLLECTIONS["ModelDeployment"].format(ns=real.namespace)
    _, shown = await call(real.api, "GET", path, headers=table)
    names = [column["name"] for column in shown["columnDefinitions"]]
    row = dict(zip(names, shown["rows"][0]["cells"], strict=True))
    assert names == [
        "Name", "Ready", "Phase", "Step", "Weight", "Canary", "Stable", "Reason", "Age", "Message",
    ]  # fmt: skip
    assert row | {"Age": ""} == {
        "Name": "fraud",
        "Ready": "True",
        "Phase": "Canary",
        "Step": "2/6",
        "Weight": 5,
        "Canary": "v7@9c1fab12",
        "Stable": "v6@41aa0000",
        "Reason": "AwaitingSamples",
        "Age": "",
        "Message": "step 2/6",
    }
