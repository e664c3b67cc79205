"""The git repository of the demo, and the example that it starts from."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_demo import story
from canarium_demo.installation import NAMESPACE
from canarium_demo.models import Artefact
from canarium_demo.repository import Repository, with_config_map, with_model
from canarium_operator.core import validation

EXAMPLE = Path(__file__).parents[3] / "examples" / "01-canary"
DIGEST = "ab" * 32


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def artefact(version: str) -> Artefact:
    content = b"\xff\xfe" + version.encode()
    return Artefact(version=version, summary="a test", content=content, score=0.5)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "repo", EXAMPLE)
    made.create()
    return made


def unknown_fields(written: Any, known: Any, path: str = "spec") -> list[str]:
    """Name what the types would silently drop."""
    if isinstance(written, dict):
        return [
            problem
            for name, value in written.items()
            for problem in (
                unknown_fields(value, known[name], f"{path}.{name}")
                if isinstance(known, dict) and name in known
                else [f"{path}.{name}"]
            )
        ]
    if isinstance(written, list):
        pairs = zip(written, known, strict=True)
        return [p for i, (w, k) in enumerate(pairs) for p in unknown_fields(w, k, f"{path}[{i}]")]
    return []


def test_the_example_is_a_valid_model_deployment() -> None:
    """Against the types, with no field that they do not know, and against the checks beyond the schema."""
    body = load(EXAMPLE / "modeldeployment.yaml")
    spec = ModelDeploymentSpec.from_manifest(body["spec"])
    assert (body["apiVersion"], body["kind"]) == ("canarium.dev/v1alpha1", "ModelDeployment")
    assert unknown_fields(body["spec"], spec.to_manifest()) == []
    assert validation.validate(spec) == []


def test_the_demo_and_the_example_name_the_same_things() -> None:
    """Names stand in both, because the example must read well on its own."""
    body = load(EXAMPLE / "modeldeployment.yaml")
    assert body["metadata"]["name"] == story.NAME
    assert body["spec"]["traffic"]["hostnames"] == [story.HOSTNAME]
    assert load(EXAMPLE / "kustomization.yaml")["namespace"] == NAMESPACE
    assert load(EXAMPLE / "namespace.yaml")["metadata"]["name"] == NAMESPACE


def test_each_version_is_one_commit_that_changes_the_model_alone(repository: Repository) -> None:
    """URI, digest and version; the rest of the file stays as the team wrote it."""
    repository.commit(artefact("v1"))
    before = load(repository.folder / "modeldeployment.yaml")
    commit = repository.commit(artefact("v2"))
    after = load(repository.folder / "modeldeployment.yaml")
    assert after["spec"].pop("model") == {
        "uri": "configmap://digits-v2/model.onnx",
        "sha256": artefact("v2").sha256,
        "version": "v2",
    }
    before["spec"].pop("model")
    assert after == before
    assert len(commit) >= 7
    assert repository.changes().splitlines() == [
        "-    uri: configmap://digits-v1/model.onnx",
        f"-    sha256: {artefact('v1').sha256}",
        "-    version: v1",
        "+    uri: configmap://digits-v2/model.onnx",
        f"+    sha256: {artefact('v2').sha256}",
        "+    version: v2",
    ]


def test_the_config_maps_of_earlier_versions_stay(repository: Repository) -> None:
    """The stable version still reads from its own."""
    for version in ("v1", "v2"):
        repository.commit(artefact(version))
    generated = load(repository.folder / "kustomization.yaml")["configMapGenerator"]
    assert [entry["name"] for entry in generated] == ["digits-v1", "digits-v2"]
    for entry in generated:
        (file,) = entry["files"]
        assert (repository.folder / file.removeprefix("model.onnx=")).exists()


def test_the_first_commit_shows_the_whole_manifest(repository: Repository) -> None:
    """Without the pluses of a diff against nothing."""
    repository.commit(artefact("v1"))
    assert yaml.safe_load(repository.changes())["kind"] == "ModelDeployment"


def test_a_repository_begins_anew(repository: Repository) -> None:
    """What an earlier demo left is gone."""
    repository.commit(artefact("v1"))
    repository.create()
    assert list((repository.folder / "models").iterdir()) == []


def test_a_config_map_is_added_once() -> None:
    """Applying the same version again changes nothing."""
    once = with_config_map("configMapGenerator:\n", "v9")
    assert with_config_map(once, "v9") == once


def test_the_model_is_replaced_in_the_text_and_comments_stay() -> None:
    """A digest that was there is replaced, not doubled."""
    text = "# ours\nmodel:\n  uri: a\n  sha256: old\n  version: v1\n"
    assert with_model(text, "v2", DIGEST) == (
        f"# ours\nmodel:\n  uri: configmap://digits-v2/model.onnx\n  sha256: {DIGEST}\n  version: v2\n"
    )
