"""`spec.serving.preferredBatchSizes` and `allowHighPriority`: what is refused, and how they reach the servers."""

from typing import Any

import pytest

from canarium_api.runtime_config import RuntimeConfig
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources.configmap import make_configmap
from canarium_operator.core.revision import revision_of
from canarium_operator.core.validation import parse_spec, validate
from canarium_operator.testing.objects import model_deployment

REF = ObjectRef(namespace="ml", name="fraud", uid="u-1")


def make_spec(**serving: Any) -> ModelDeploymentSpec:
    parsed = parse_spec(model_deployment(serving=serving)["spec"])
    assert isinstance(parsed, ModelDeploymentSpec), parsed
    return parsed


def settings(**serving: Any) -> RuntimeConfig:
    revision = revision_of(make_spec(**serving), "runtime:1")
    return RuntimeConfig.from_env(make_configmap(REF, revision)["data"])


def test_they_reach_the_servers() -> None:
    """And leave them as they are by default."""
    made = settings(preferredBatchSizes=[8, 16], allowHighPriority=True)
    assert (made.preferred_batch_sizes, made.allow_high_priority) == ((8, 16), True)
    assert (settings().preferred_batch_sizes, settings().allow_high_priority) == ((), None)


@pytest.mark.parametrize(
    ("serving", "words"),
    [
        ({"preferredBatchSizes": [16, 8]}, "must rise"),
        ({"preferredBatchSizes": [8, 8]}, "must rise"),
        ({"preferredBatchSizes": [8, 64]}, "above maxBatchSize, which is 32"),
    ],
)
def test_sizes_that_no_run_can_have_are_refused(serving: dict[str, Any], words: str) -> None:
    """With the remedy."""
    (problem,) = validate(make_spec(**serving))
    assert problem.field == "spec.serving.preferredBatchSizes"
    assert words in problem.message


def test_sizes_that_fit_are_taken() -> None:
    """Nothing is said of them."""
    assert validate(make_spec(preferredBatchSizes=[8, 32])) == []
