"""Settings of batches (`preferredBatchSizes`, `allowHighPriority`, `padding`): what is refused, how they arrive."""

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


def make_spec(model: dict[str, Any] | None = None, **serving: Any) -> ModelDeploymentSpec:
    raw = model_deployment(serving=serving)["spec"]
    raw["model"] = {**raw["model"], **(model or {})}
    parsed = parse_spec(raw)
    assert isinstance(parsed, ModelDeploymentSpec), parsed
    return parsed


def settings(model: dict[str, Any] | None = None, **serving: Any) -> RuntimeConfig:
    revision = revision_of(make_spec(model, **serving), "runtime:1")
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


def test_padding_reaches_the_servers() -> None:
    """With what is not said at its default; and is off by default."""
    (made,) = settings({"padding": [{"input": "x", "multiple": 8}]}).model_padding
    assert (made.input, made.axis, made.value, made.multiple, made.outputs) == ("x", 1, 0, 8, None)
    assert settings().model_padding == ()


@pytest.mark.parametrize(
    ("model", "field"),
    [
        ({"padding": [{"input": "x"}, {"input": "x", "value": 1}]}, "spec.model.padding[1]"),
        (
            {
                "padding": [{"input": "z"}],
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}],
            },
            "spec.model.padding[0].input",
        ),
    ],
)
def test_padding_that_fits_no_model_is_refused(model: dict[str, Any], field: str) -> None:
    """The rest is known only when the model is loaded."""
    assert [p.field for p in validate(make_spec(model))] == [field]
