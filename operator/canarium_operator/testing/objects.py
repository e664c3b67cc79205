"""Builders of ModelDeployments as a user writes them."""

from typing import Any

from canarium_api import API_VERSION, KIND
from canarium_operator.core.manifests import Manifest


def model_deployment(
    name: str = "fraud", *, namespace: str = "ml", version: str = "1", **spec: Any
) -> Manifest:
    """Build a short manifest: a model and a gateway.

    Args:
        name: of the object.
        namespace: of the object.
        version: of the model; part of its URI, so another version is another revision.
        spec: further parts of the spec, such as `autoscaling={"minReplicas": 1}`; they replace the builder's own.
    """
    body: dict[str, Any] = {
        "model": {
            "uri": f"https://models.example.com/{name}/{version}/model.onnx",
            "version": version,
        },
        "traffic": {"gateway": {"name": "public"}},
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**body, **spec},
    }
