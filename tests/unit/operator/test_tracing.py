"""`spec.serving.tracing`: what is refused, and how it reaches the servers."""

from typing import Any

import pytest

from canarium_api.runtime_config import RuntimeConfig
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources.configmap import make_configmap
from canarium_operator.core.resources.workload import make_workload
from canarium_operator.core.revision import revision_of
from canarium_operator.core.validation import parse_spec, validate
from canarium_operator.testing.objects import model_deployment

REF = ObjectRef(namespace="ml", name="fraud", uid="u-1")
ENDPOINT = "http://otel-collector.telemetry:4318"


def make_spec(**serving: Any) -> ModelDeploymentSpec:
    parsed = parse_spec(model_deployment(serving=serving)["spec"])
    assert isinstance(parsed, ModelDeploymentSpec), parsed
    return parsed


def settings(**serving: Any) -> RuntimeConfig:
    revision = revision_of(make_spec(**serving), "runtime:1")
    return RuntimeConfig.from_env(make_configmap(REF, revision)["data"])


def environment(**serving: Any) -> list[Manifest]:
    spec = make_spec(**serving)
    workload = make_workload(REF, revision_of(spec, "runtime:1"), spec.rollout)
    found: list[Manifest] = workload["spec"]["template"]["spec"]["containers"][0].get("env", [])
    return found


def test_tracing_reaches_the_servers() -> None:
    """With what a pod knows of itself."""
    tracing = {"endpoint": ENDPOINT, "ratio": 0.25}
    assert validate(make_spec(tracing=tracing)) == []
    made = settings(tracing=tracing)
    assert (made.tracing_endpoint, made.tracing_ratio) == (ENDPOINT, 0.25)
    assert {e["name"] for e in environment(tracing=tracing)} == {
        "K8S_POD_NAME",
        "K8S_NAMESPACE_NAME",
        "K8S_NODE_NAME",
    }


def test_without_tracing_nothing_changes() -> None:
    """Pods have no variables for it, and nothing is traced."""
    assert environment() == []
    assert settings().tracing_endpoint is None


def test_variables_of_several_features_stand_side_by_side() -> None:
    """Those of the cache, of tracing and of the limits."""
    names = [
        e["name"]
        for e in environment(
            cache={"redis": {"urlFrom": {"name": "answers"}}},
            tracing={"endpoint": ENDPOINT},
            rateLimit={
                "requestsPerSecond": 5,
                "burst": 5,
                "redisSecret": {"name": "limits", "key": "url"},
            },
        )
    ]
    assert len(names) == len(set(names)) == 5
    assert {"CANARIUM_CACHE_REDIS_URL", "CANARIUM_RATE_LIMIT_REDIS_URL"} < set(names)


@pytest.mark.parametrize(
    "tracing",
    [
        {},
        {"endpoint": "otel:4318"},
        {"endpoint": "http://me:secret@otel:4318"},
        {"endpoint": ENDPOINT, "ratio": 1.5},
        {"endpoint": ENDPOINT, "ratio": -0.1},
    ],
)
def test_what_cannot_be_carried_out_is_refused(tracing: dict[str, Any]) -> None:
    """The problem names the field."""
    problems = parse_spec(model_deployment(serving={"tracing": tracing})["spec"])
    assert isinstance(problems, list)
    assert all(p.field.startswith("spec.serving.tracing") for p in problems)
