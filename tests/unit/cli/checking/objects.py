"""Manifests as text, and a kustomize of a few lines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from canarium_cli.checking import documents, judging, kustomizing
from canarium_cli.checking.documents import Document
from canarium_cli.checking.findings import Finding
from canarium_cli.checking.kustomizing import BuildError
from canarium_operator.testing.objects import model_deployment

DIGEST = "0123456789abcdef" * 4
MODEL = f"""\
apiVersion: canarium.dev/v1alpha1
kind: ModelDeployment
metadata:
  name: deliveries
  namespace: shop
spec:
  model:
    uri: https://models.example.com/deliveries/v1.onnx
    sha256: {DIGEST}
    version: v1
  traffic:
    gateway: {{name: public}}
"""


def read(text: str, file: str = "model.yaml") -> Document:
    """Read the one document of a text."""
    (document,) = documents.read(text, file)
    return document


def document_of(name: str = "fraud", **spec: Any) -> Document:
    """Make a document of parts of a spec, as the contract tests put them into a cluster."""
    return read(yaml.safe_dump(model_deployment(name, namespace="ml", **spec)))


def judged(text: str) -> list[Finding]:
    """Judge the one document of a text; no templates are there."""
    return judging.judge_object(read(text), {})


@dataclass
class FakeKustomize:
    """Does what these tests need of kustomize: bases, a namespace, a prefix, patches of maps and of one `replace`."""

    def build(self, directory: Path) -> str:
        """See `Builder`."""
        return yaml.safe_dump_all(self._objects(directory))

    def _objects(self, directory: Path) -> list[dict[str, Any]]:
        file = kustomizing.file_of(directory)
        if file is None:
            raise BuildError(f"no kustomization in {directory}")
        value = yaml.safe_load(file.read_text())
        found: list[dict[str, Any]] = []
        for name in [*value.get("resources", []), *value.get("bases", [])]:
            path = directory / name
            if not path.exists():
                raise BuildError(f"{name}: no such file or directory")
            found += self._objects(path) if path.is_dir() else yaml.safe_load_all(path.read_text())
        for body in found:
            for entry in value.get("patches", []):
                text = entry.get("patch") or (directory / entry["path"]).read_text()
                _apply(body, yaml.safe_load(text))
            body["metadata"]["name"] = value.get("namePrefix", "") + body["metadata"]["name"]
            if "namespace" in value:
                body["metadata"]["namespace"] = value["namespace"]
        return found


def _apply(body: dict[str, Any], patch: Any) -> None:
    if isinstance(patch, list):
        for operation in patch:
            *parents, last = operation["path"].strip("/").split("/")
            place = body
            for name in parents:
                place = place[name]
            place[last] = operation["value"]
        return
    for name, value in patch.items():
        if isinstance(value, dict) and isinstance(body.get(name), dict):
            _apply(body[name], value)
        else:
            body[name] = value
