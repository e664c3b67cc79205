"""`canarium init`: a manifest that the operator takes, from nothing but a model's file."""

import hashlib
import os
from pathlib import Path, PurePath

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.e2e import models
from tests.unit.cli.api_server import run

from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_cli.drafting import MAX_NAME, Draft, ModelFile, guess, manifest
from canarium_operator.core import validation


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small ONNX model, in an empty folder that is the present one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fraud-v7.onnx"
    path.write_bytes(models.good(1).content)
    return path


@pytest.mark.parametrize(
    ("path", "name", "version"),
    [
        ("fraud-v7.onnx", "fraud", "v7"),
        ("models/fraud_2.1.onnx", "fraud", "2.1"),
        ("fraud/7/model.onnx", "fraud", "7"),
        ("fraud/v3.onnx", "fraud", "v3"),
        ("fraud/model.onnx", "fraud", "1"),
        ("models/model.onnx", "model", "1"),
        ("resnet50.onnx", "resnet50", "1"),
        ("Credit Risk.pt2", "credit-risk", "1"),
        ("2fa/model.onnx", "m-2fa", "1"),
        ("x" * 80 + ".onnx", "x" * MAX_NAME, "1"),
    ],
)
def test_name_and_version_are_guessed_from_the_path(path: str, name: str, version: str) -> None:
    """As people name files of models."""
    assert guess(PurePath(path)) == (name, version)


@given(st.text(min_size=1, max_size=90).filter(lambda s: "/" not in s and "\0" not in s))
def test_whatever_a_file_is_called_the_manifest_is_taken(stem: str) -> None:
    """Names, versions and URIs are quoted where YAML would read something else."""
    path = PurePath(f"/w/{stem}.onnx")
    name, version = guess(path)
    model = ModelFile(path=path, format="onnx", sha256="0" * 64, size=1)
    uri = f"https://models.example.com/{name}/{version}"
    text = manifest(model, Draft(name=name, version=version, uri=uri))
    document = yaml.safe_load(text.split("\n", 1)[1])
    assert document["metadata"]["name"] == name
    assert document["spec"]["model"]["version"] == version
    spec = validation.parse_spec(document["spec"])
    assert isinstance(spec, ModelDeploymentSpec)
    assert validation.validate(spec, name) == []


def test_a_manifest_and_a_kustomization_are_written(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inputs, outputs and digest are the file's own."""
    assert (
        run("init", model.name, "--gateway", "gateways/public", "--hostname", "f.example.com") == 0
    )
    out = capsys.readouterr().out
    assert "takes input FP32 [?, 4]" in out
    assert "gives score FP32 [?, 1]" in out
    assert "kubectl apply --server-side -k ." in out
    document = yaml.safe_load(Path("modeldeployment.yaml").read_text())
    assert document["metadata"] == {"name": "fraud"}
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert document["spec"] == {
        "model": {"uri": "configmap://fraud-v7/model.onnx", "sha256": digest, "version": "v7"},
        "traffic": {"gateway": {"name": "public", "namespace": "gateways"}, "hostnames": ["f.example.com"]},
    }  # fmt: skip
    generator = yaml.safe_load(Path("kustomization.yaml").read_text())
    assert generator["configMapGenerator"] == [
        {"name": "fraud-v7", "files": ["model.onnx=fraud-v7.onnx"]}
    ]


def test_what_is_there_is_never_written_over(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the manifest nor the kustomization."""
    Path("kustomization.yaml").write_text("mine")
    assert run("init", model.name) == 0
    assert "kubectl create configmap fraud-v7 --from-file=model.onnx=" in capsys.readouterr().out
    before = Path("modeldeployment.yaml").read_bytes()
    assert run("init", model.name, "--name", "other") == 1
    assert "is there already, and is not written over" in capsys.readouterr().err
    assert Path("modeldeployment.yaml").read_bytes() == before
    assert Path("kustomization.yaml").read_text() == "mine"


def test_standard_output_holds_the_manifest_alone(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a pipe."""
    assert (
        run(
            "init", str(model), "-o", "-", "--uri", "https://m.example.com/f.onnx", "--version", "7"
        )
        == 0
    )
    spec = yaml.safe_load(capsys.readouterr().out)["spec"]
    assert spec["model"]["uri"] == "https://m.example.com/f.onnx"
    assert spec["model"]["version"] == "7"
    assert os.listdir() == [model.name]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.pkl", b"", "export the model to ONNX"),
        ("m.joblib", b"", "skl2onnx"),
        ("m.txt", b"", "its name does not end in one of .onnx, .pt2, .pt"),
        ("m.onnx", b"no model", "cannot be read as an ONNX model"),
        ("m.pt2", b"x" * 1_000_001, "--uri https://..."),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_way_out(
    model: Path, name: str, content: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is written."""
    (model.parent / name).write_bytes(content)
    assert run("init", name) == 1
    assert words in capsys.readouterr().err
    assert not Path("modeldeployment.yaml").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nowhere.onnx",), "nowhere.onnx: No such file"),
        (("fraud-v7.onnx", "--hostname", "f.example.com"), "give --gateway, too"),
        (("fraud-v7.onnx", "--uri", "ftp://x/y"), "model.uri"),
        (("fraud-v7.onnx", "--version", "a b"), "model.version"),
        (("fraud-v7.onnx", "--name", "x" * 53), "at most 52 characters"),
        (("fraud-v7.onnx", "-o", "no/such/folder/m.yaml"), "No such file or directory"),
    ],
)
def test_what_the_operator_would_refuse_is_refused_here(
    model: Path, words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the operator's own checks."""
    assert run("init", *words) == 1
    assert says in capsys.readouterr().err


def test_a_torch_archive_gets_its_format(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its inputs are not read: that needs torch."""
    model.rename("fraud.pt2")
    assert run("init", "fraud.pt2", "-o", "-") == 0
    spec = yaml.safe_load(capsys.readouterr().out)["spec"]
    assert spec["model"]["format"] == "torch"
    assert spec["model"]["uri"] == "configmap://fraud-1/model.pt2"


def next_version(version: str) -> Path:
    """Write the file of another version."""
    path = Path(f"fraud-{version}.onnx")
    path.write_bytes(models.good(2).content)
    return path


def test_an_update_changes_what_the_new_version_changes_and_nothing_else(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Comments, order and the owner's own settings stay; the old version's ConfigMap stays, too."""
    assert run("init", model.name) == 0
    manifest, beside = Path("modeldeployment.yaml"), Path("kustomization.yaml")
    mine = "  autoscaling: {minReplicas: 1}  # we are few\n"
    manifest.write_text(manifest.read_text() + mine)
    before, resources = manifest.read_text().splitlines(), beside.read_text()
    capsys.readouterr()
    new = next_version("v8")
    assert run("init", new.name, "--update") == 0
    digest = hashlib.sha256(new.read_bytes()).hexdigest()
    after = manifest.read_text().splitlines()
    changed = [line.strip() for line, old in zip(after, before, strict=True) if line != old]
    assert [line.replace('"', "") for line in changed] == [
        "uri: configmap://fraud-v8/model.onnx",
        f"sha256: {digest}",
        "version: v8",
    ]
    assert beside.read_text() == resources + (
        "- {name: fraud-v8, files: [model.onnx=fraud-v8.onnx]}\n"
    )
    out = capsys.readouterr().out
    assert "version v7 -> v8" in out
    assert "ConfigMap fraud-v8; leave the others" in out


def test_an_update_to_what_is_there_changes_nothing(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that it can be run twice."""
    run("init", model.name)
    new = next_version("v8")
    run("init", new.name, "--update")
    files = {path: path.read_bytes() for path in Path().iterdir()}
    capsys.readouterr()
    assert run("init", new.name, "--update") == 0
    assert "has these bytes of version v8 already" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in Path().iterdir()} == files


def test_an_update_of_a_model_at_a_url_leaves_the_kustomization_alone(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no ConfigMap to make."""
    url = "https://models.example.com/fraud/{}/model.onnx"
    assert run("init", model.name, "--uri", url.format(7)) == 0
    assert run("init", next_version("v8").name, "--update", "--uri", url.format(8)) == 0
    spec = yaml.safe_load(Path("modeldeployment.yaml").read_text())["spec"]
    assert spec["model"]["uri"] == url.format(8)
    assert not Path("kustomization.yaml").exists()


def test_an_update_without_a_kustomization_says_how_to_make_the_configmap(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest is written all the same."""
    assert run("init", model.name) == 0
    Path("kustomization.yaml").write_text("just words\n")
    capsys.readouterr()
    assert run("init", next_version("v8").name, "--update") == 0
    assert "kubectl create configmap fraud-v8" in capsys.readouterr().out
    assert "version: v8" in Path("modeldeployment.yaml").read_text()
    assert Path("kustomization.yaml").read_text() == "just words\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--version", "v7"), "has version v7 already, with other bytes"),
        (("--name", "other"), "leave out all other options"),
        (("--version", "a b"), "model.version"),
        (("-o", "other.yaml"), "other.yaml is not there: leave out --update"),
        (("-o", "kustomization.yaml"), "has 0 ModelDeployments"),
    ],
)
def test_an_update_that_cannot_be_made_changes_nothing(
    model: Path, words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is wrong is found before anything is written."""
    run("init", model.name)
    new = next_version("v8")
    files = {path: path.read_bytes() for path in Path().iterdir()}
    capsys.readouterr()
    assert run("init", new.name, "--update", *words) == 1
    assert says in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path().iterdir()} == files


def test_an_update_too_large_for_a_configmap_asks_for_a_uri(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the first version does."""
    run("init", model.name)
    Path("fraud-v8.pt2").write_bytes(b"x" * 1_000_001)
    assert run("init", "fraud-v8.pt2", "--update") == 1
    assert "--uri" in capsys.readouterr().err


def test_an_update_may_change_the_format(model: Path) -> None:
    """From ONNX to torch, and the manifest says so."""
    run("init", model.name)
    Path("fraud-v8.pt2").write_bytes(b"x")
    assert run("init", "fraud-v8.pt2", "--update") == 0
    spec = yaml.safe_load(Path("modeldeployment.yaml").read_text())["spec"]
    assert spec["model"]["format"] == "torch"
    assert spec["model"]["uri"] == "configmap://fraud-v8/model.pt2"
