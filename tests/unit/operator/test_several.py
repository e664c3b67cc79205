"""`spec.serving.models` and `spec.serving.fallbacks`: what is refused, and how it reaches the servers."""

import json
from typing import Any

import pytest

from canarium_api.runtime_config import FallbackEntry, ModelEntry, RuntimeConfig
from canarium_api.v1alpha1 import ModelDeploymentSpec, ModelFormat
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources.configmap import make_configmap
from canarium_operator.core.resources.workload import make_workload
from canarium_operator.core.revision import revision_of
from canarium_operator.core.validation import parse_spec, validate
from canarium_operator.testing.objects import model_deployment

REF = ObjectRef(namespace="ml", name="fraud", uid="u-1")
DIGEST = "a" * 64
SMALL = {"name": "small", "uri": "https://models/small.onnx", "sha256": DIGEST}
URL = "https://models.eu.example.com/v2/models/fraud/infer"


def make_spec(model: dict[str, Any] | None = None, **serving: Any) -> ModelDeploymentSpec:
    changes: dict[str, Any] = {"serving": serving}
    if model is not None:
        changes["model"] = model
    parsed = parse_spec(model_deployment(**changes)["spec"])
    assert isinstance(parsed, ModelDeploymentSpec), parsed
    return parsed


def settings(**serving: Any) -> RuntimeConfig:
    revision = revision_of(make_spec(**serving), "runtime:1")
    return RuntimeConfig.from_env(make_configmap(REF, revision)["data"])


def pod(**serving: Any) -> Manifest:
    spec = make_spec(**serving)
    workload = make_workload(REF, revision_of(spec, "runtime:1"), spec.rollout)
    found: Manifest = workload["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize(
    "serving",
    [
        {"models": [SMALL]},
        {"models": [SMALL, {**SMALL, "version": "2"}], "modelMemory": "512Mi"},
        {"models": [SMALL], "fallbacks": [{"model": "small"}], "backendTimeout": "200ms"},
        {"models": [SMALL], "fallbacks": [{"model": "small", "version": "1"}]},
        {"fallbacks": [{"url": URL, "timeout": "1s"}, {"outputs": {"y": [0.5]}}]},
        {"fallbacks": [{"url": "http://other.ml.svc:8080/v2/models/fraud/versions/2/infer"}]},
        {"fallbacks": [{"outputs": {"y": 0}}], "breakerFailures": 0},
        {"backendTimeout": "2s"},
    ],
)
def test_what_can_be_served_is_taken(serving: dict[str, Any]) -> None:
    """Nothing is said of it."""
    assert validate(make_spec(**serving), "fraud") == []


@pytest.mark.parametrize(
    ("serving", "field", "words"),
    [
        ({"models": [SMALL, SMALL]}, "models[1].name", "small 1 is listed already: give it"),
        (
            {"models": [{**SMALL, "name": "fraud"}]},
            "models[0].name",
            "fraud is the model's own name, whose versions are the rollout's",
        ),
        (
            {"models": [{"name": "a", "uri": "http://models/a.onnx"}]},
            "models[0].sha256",
            "an http:// URI proves nothing: add the digest",
        ),
        (
            {"models": [{"name": "a", "uri": "pvc://claim/../a.onnx"}]},
            "models[0].uri",
            "'..' is not allowed",
        ),
        (
            {"models": [{**SMALL, "format": "python"}]},
            "models[0].format",
            "set model.allowCode to true",
        ),
        ({"modelMemory": "1Gi"}, "modelMemory", "bounds serving.models: list models"),
        (
            {"models": [SMALL], "modelMemory": "2Gi"},
            "modelMemory",
            "2Gi is above the memory limit of 1Gi: lower it, or raise",
        ),
        ({"models": [SMALL], "modelMemory": "0"}, "modelMemory", "must be above 0"),
        ({"fallbacks": [{}]}, "fallbacks[0]", "exactly one of model, url and outputs"),
        (
            {"fallbacks": [{"url": URL, "outputs": {"y": 1}}]},
            "fallbacks[0]",
            "exactly one of model, url and outputs",
        ),
        ({"fallbacks": [{"model": "small"}]}, "fallbacks[0].model", "small is none of"),
        (
            {"models": [SMALL], "fallbacks": [{"model": "small", "version": "9"}]},
            "fallbacks[0].model",
            "small 9 is none of serving.models: list it there",
        ),
        (
            {"fallbacks": [{"url": URL, "version": "9"}]},
            "fallbacks[0].version",
            "set model, or remove version",
        ),
        (
            {"fallbacks": [{"url": "http://h:99999/v2/models/m/infer"}]},
            "fallbacks[0].url",
            "port 99999 does not exist",
        ),
        ({"fallbacks": [{"url": URL, "timeout": "0s"}]}, "fallbacks[0].timeout", "above 0"),
        ({"fallbacks": [{"outputs": {"y": "x" * 70_000}}]}, "fallbacks", "more than 65536"),
        ({"backendTimeout": "0s"}, "backendTimeout", "must be above 0"),
        (
            {"backendTimeout": "30s"},
            "backendTimeout",
            "30s is not below requestTimeout (30s)",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_field_and_remedy(
    serving: dict[str, Any], field: str, words: str
) -> None:
    """One problem, which names its field and what to do."""
    (problem,) = validate(make_spec(**serving), "fraud")
    assert problem.field == f"spec.serving.{field}"
    assert words in problem.message


def test_code_from_the_network_needs_a_digest_in_each_of_the_models() -> None:
    """`model.allowCode` is about all models of a pod."""
    model = {"uri": "https://m/a.py", "sha256": DIGEST, "format": "python", "allowCode": True}
    more = {"name": "a", "uri": "https://m/b.onnx"}
    (problem,) = validate(make_spec(model, models=[more]), "fraud")
    assert problem.field == "spec.serving.models[0].sha256"
    assert "where model.allowCode is true" in problem.message
    assert validate(make_spec(model, models=[{**SMALL, "format": "python"}]), "fraud") == []


@pytest.mark.parametrize(
    ("serving", "field"),
    [
        ({"models": [{"name": "a b", "uri": "https://m/a"}]}, "spec.serving.models[0].name"),
        ({"models": [{"name": "a", "uri": "ftp://m/a"}]}, "spec.serving.models[0].uri"),
        ({"models": [{"name": "a"}]}, "spec.serving.models[0].uri"),
        ({"models": []}, "spec.serving.models"),
        ({"fallbacks": []}, "spec.serving.fallbacks"),
        ({"fallbacks": [{"url": "http://h/predict"}]}, "spec.serving.fallbacks[0].url"),
        (
            {"fallbacks": [{"url": "http://u:p@h/v2/models/m/infer"}]},
            "spec.serving.fallbacks[0].url",
        ),
        ({"backendTimeout": "soon"}, "spec.serving.backendTimeout"),
        ({"breakerFailures": -1}, "spec.serving.breakerFailures"),
    ],
)
def test_what_is_misspelt_is_refused_by_its_field(serving: dict[str, Any], field: str) -> None:
    """The types refuse it."""
    problems = parse_spec(model_deployment(serving=serving)["spec"])
    assert isinstance(problems, list)
    assert [problem.field for problem in problems] == [field]


def test_the_servers_get_what_the_spec_says() -> None:
    """All of it, in order."""
    found = settings(
        models=[
            {
                "name": "b",
                "version": "3",
                "uri": "https://m/b.pt2",
                "sha256": DIGEST,
                "format": "torch",
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
            },
            SMALL,
        ],
        modelMemory="512Mi",
        fallbacks=[
            {"model": "small"},
            {"url": URL, "timeout": "2s"},
            {"outputs": {"y": [0.5, 0.5]}},
        ],
        backendTimeout="200ms",
        breakerFailures=3,
    )
    first, second = found.models
    assert (first.name, first.version, first.format) == ("b", "3", ModelFormat.TORCH)
    assert [t.name for t in first.inputs] == ["x"]
    assert second == ModelEntry(name="small", uri="https://models/small.onnx", sha256=DIGEST)
    assert found.model_memory_bytes == 512 << 20
    assert found.fallbacks == (
        FallbackEntry(model="small"),
        FallbackEntry.model_validate({"url": URL, "timeout": "2s"}),
        FallbackEntry(outputs={"y": [0.5, 0.5]}),
    )
    assert found.backend_timeout is not None
    assert (found.backend_timeout.total_seconds(), found.breaker_failures) == (0.2, 3)


def test_models_on_volumes_are_mounted_beside_one_another() -> None:
    """Two claims and a ConfigMap with equal paths do not meet."""
    more = [
        {"name": "a", "uri": "pvc://claim/m.onnx"},
        {"name": "b", "uri": "https://m/b.onnx"},
        {"name": "c", "uri": "configmap://small/m.onnx"},
    ]
    assert [m.uri for m in settings(models=more).models] == [
        "file:///models-1/m.onnx",
        "https://m/b.onnx",
        "file:///models-3/m.onnx",
    ]
    found = pod(models=more)
    (container,) = found["containers"]
    paths = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert (paths["model-1"], paths["model-3"]) == ("/models-1", "/models-3")
    assert all(m["readOnly"] for m in container["volumeMounts"] if m["name"] != "tmp")
    volumes = {v["name"]: v for v in found["volumes"]}
    assert volumes["model-1"]["persistentVolumeClaim"]["claimName"] == "claim"
    assert volumes["model-3"]["configMap"]["name"] == "small"


def test_without_them_revisions_and_configmaps_are_as_before() -> None:
    """An operator that knows several models restarts no pod, and names no revision anew."""
    revision = revision_of(make_spec(), "runtime:1")
    serving = revision.to_template()["serving"]
    new = {"models", "modelMemory", "fallbacks", "backendTimeout", "breakerFailures"}
    assert not new & serving.keys()
    data = make_configmap(REF, revision)["data"]
    assert not {"CANARIUM_MODELS", "CANARIUM_FALLBACKS", "CANARIUM_BACKEND_TIMEOUT"} & data.keys()
    assert (data["CANARIUM_MODEL_MEMORY_BYTES"], data["CANARIUM_BREAKER_FAILURES"]) == ("0", "5")
    assert [v["name"] for v in pod()["volumes"]] == ["tmp"]
    assert json.dumps(revision.to_template()).count("fallback") == 0


def test_they_are_part_of_the_revision() -> None:
    """They decide what is answered, so a change of them goes through a rollout."""
    names = {
        revision_of(make_spec(**serving), "runtime:1").name
        for serving in (
            {},
            {"models": [SMALL]},
            {"models": [SMALL], "modelMemory": "512Mi"},
            {"models": [SMALL], "fallbacks": [{"model": "small"}]},
            {"backendTimeout": "1s"},
            {"breakerFailures": 1},
        )
    }
    assert len(names) == 6
