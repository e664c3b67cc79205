"""`spec.serving.validation`: what the types refuse, and the way from the manifest to the server."""

from typing import Any

import pytest
from pydantic import ValidationError

from canarium_api.input_rules import (
    MAX_VALIDATION_BYTES,
    FeatureRules,
    InputRules,
    ValidationSpec,
    columns,
)
from canarium_api.runtime_config import RuntimeConfig


def with_features(*features: dict[str, Any]) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "features": list(features)}]}


A = {"name": "a"}


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (with_features({"name": "a", "min": 2, "max": 1}), "no value is between 2 and 1"),
        (with_features({"name": "a", "exclusiveMin": 2, "max": 1}), "no value is between 2 and 1"),
        (with_features({"name": "a", "min": 2, "exclusiveMin": 1}), "say the same twice"),
        (with_features({"name": "a", "minLength": 2, "maxLength": 1}), "above maxLength"),
        (with_features(A, A), "'a' comes twice"),
        (with_features({"name": "a", "index": 1}, {"name": "b", "index": 1}), "column 1 has rules already"),
        (with_features({"name": "a", "min": float("nan")}), "finite number"),
        (with_features({"name": "a", "pattern": "a" * 513}), "at most 512 characters"),
        ({"inputs": [{"name": "x"}, {"name": "x"}]}, "'x' comes twice"),
        ({"level": "lenient"}, "'strict', 'warning' or 'permissive'"),
        ({"expressions": [{"name": "e", "expression": "a" * 1001}]}, "at most 1000 characters"),
        ({"maxRows": 0}, "greater than or equal to 1"),
    ],
)  # fmt: skip
def test_rules_that_contradict_themselves_are_refused(
    manifest: dict[str, Any], message: str
) -> None:
    """World: a manifest; event: it is read; world: an error that says what is wrong."""
    with pytest.raises(ValidationError, match=message):
        ValidationSpec.from_manifest(manifest)


def test_features_stand_in_columns_one_after_the_other_unless_they_say_where() -> None:
    """World: features, one of them with an index; event: their columns; world: counted on from there."""
    features = [FeatureRules(name="a"), FeatureRules(name="b", index=5), FeatureRules(name="c")]
    assert columns(features) == [0, 5, 6]


def test_the_server_reads_the_rules_that_the_operator_writes() -> None:
    """World: rules; event: written into the environment and read; world: the same rules, and nothing for no rules."""
    rules = ValidationSpec.from_manifest(
        {"level": "warning", **with_features({"name": "a", "min": 0.5})}
    )
    config = RuntimeConfig(model_uri="file:///m", validation=rules.to_json())
    assert RuntimeConfig.from_env(config.to_env()).validation_spec == rules
    assert ValidationSpec().to_json() == ""
    assert RuntimeConfig(model_uri="file:///m").validation_spec == ValidationSpec()


def test_rules_that_cannot_be_read_stop_the_server_with_the_field() -> None:
    """World: a variable with a wrong rule; event: it is read; world: the variable and the field are named."""
    environ = {
        "CANARIUM_MODEL_URI": "file:///m",
        "CANARIUM_VALIDATION": '{"inputs": [{"name": ""}]}',
    }
    with pytest.raises(ValidationError) as caught:
        RuntimeConfig.from_env(environ)
    assert RuntimeConfig.describe(caught.value).startswith(
        "CANARIUM_VALIDATION: Value error, inputs.0.name: "
    )


def test_rules_fit_an_environment_variable() -> None:
    """World: more rules than one variable may hold; event: they are written; world: refused, with the remedy."""
    features = [FeatureRules(name=f"f{i}", enum=["x" * 200]) for i in range(1000)]
    spec = ValidationSpec(inputs=[InputRules(name="x", features=features)])
    with pytest.raises(ValueError, match=f"of at most {MAX_VALIDATION_BYTES}: leave out"):
        spec.to_json()
