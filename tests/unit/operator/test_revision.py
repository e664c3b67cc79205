"""What makes a revision, and what does not."""

from typing import Any

import pytest

from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.revision import Revision, revision_of

DIGEST = "ab" * 32


def spec(model: dict[str, Any] | None = None, **parts: Any) -> ModelDeploymentSpec:
    body = {
        "model": {
            "uri": "https://models/1.onnx",
            "sha256": DIGEST,
            "version": "1",
            **(model or {}),
        },
        "traffic": {"gateway": {"name": "public"}},
        **parts,
    }
    return ModelDeploymentSpec.from_manifest(body)


def test_names_of_revisions_never_change_by_an_upgrade_of_the_operator() -> None:
    """A pinned name: if this fails, every user's model would start a canary when the operator is upgraded."""
    assert revision_of(spec(), "runtime:1").name == "5d441150b7"
    full = spec(serving={"maxBatchSize": 8, "maxDelay": "5ms", "nodeSelector": {"a": "b"}})
    assert revision_of(full, "runtime:1").name == "19700c2d3e"


def test_a_default_that_is_written_out_is_the_same_revision() -> None:
    """The API server writes defaults into the object; that is no change."""
    assert (
        revision_of(spec(serving={"maxBatchSize": 32}), "r").name == revision_of(spec(), "r").name
    )


@pytest.mark.parametrize(
    "other",
    [
        spec(autoscaling={"minReplicas": 5}),
        spec(traffic={"gateway": {"name": "other"}}),
        spec(rollout={"scaleDownDelay": "5s"}),
        spec({"uri": "https://elsewhere/1.onnx"}),
    ],
    ids=["size", "gateway", "rollout", "the same bytes elsewhere"],
)
def test_what_decides_no_prediction_makes_no_revision(other: ModelDeploymentSpec) -> None:
    """These change in place, without a canary."""
    assert revision_of(other, "r").name == revision_of(spec(), "r").name


@pytest.mark.parametrize(
    "other",
    [
        spec({"sha256": "cd" * 32}),
        spec({"version": "2"}),
        spec(serving={"maxBatchSize": 8}),
        spec(serving={"resources": {"limits": {"cpu": "2"}}}),
        spec(serving={"image": "mine:1"}),
    ],
    ids=["bytes", "version", "batching", "resources", "image"],
)
def test_what_decides_a_prediction_or_its_latency_makes_a_revision(
    other: ModelDeploymentSpec,
) -> None:
    """These go through a canary."""
    assert revision_of(other, "r").name != revision_of(spec(), "r").name


def test_another_runtime_image_of_the_operator_makes_a_revision() -> None:
    """A new server is rolled out like a new model."""
    assert revision_of(spec(), "runtime:2").name != revision_of(spec(), "runtime:1").name


def test_a_template_gives_the_revision_back() -> None:
    """The ConfigMap's copy is enough to run a revision that the spec no longer names."""
    revision = revision_of(spec(serving={"maxBatchSize": 8}), "runtime:1")
    assert Revision.from_template(revision.name, revision.to_template()) == revision


@pytest.mark.parametrize(
    ("version", "display"), [("7", "v7@"), ("v7", "v7@"), (None, "vabababab@")]
)
def test_a_revision_shows_its_version_and_the_start_of_its_hash(
    version: str | None, display: str
) -> None:
    """For `kubectl get`."""
    revision = revision_of(spec({"version": version} if version else {"version": None}), "r")
    assert revision.display == f"{display}{revision.name[:8]}"
