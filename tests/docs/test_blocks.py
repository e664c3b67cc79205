"""What stands in fenced blocks works: YAML is what the API server takes, Python compiles, commands exist."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import typer
import yaml
from tests.docs.pages import ROOT, Block, blocks

from canarium_api import API_VERSION, KIND, structural
from canarium_api.crdgen import make_crd
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_cli.__main__ import COMMANDS
from canarium_devcluster.app import app
from canarium_operator.core import validation

CRD = make_crd()["spec"]["versions"][0]
FILES = sorted(
    path
    for folder in ("examples", "manifests")
    for path in (ROOT / folder).rglob("*.yaml")
    if "models" not in path.parts
)
COLUMNS = [column["name"].upper() for column in CRD["additionalPrinterColumns"]]


def problems_of(document: Any) -> list[str]:
    """Say what the API server, or the operator after it, has against a ModelDeployment; of other objects, nothing."""
    if not isinstance(document, dict) or document.get("kind") != KIND:
        return []
    if document.get("apiVersion") != API_VERSION:
        return [f"apiVersion is not {API_VERSION}"]
    properties = CRD["schema"]["openAPIV3Schema"]["properties"]
    found = []
    for part in ("spec", "status"):
        if part not in document:
            continue
        if structural.prune(document[part], properties[part]) != document[part]:
            found.append(f"{part} has fields that the CRD does not know")
        found += map(str, structural.violations(document[part], properties[part], part))
    spec = validation.parse_spec(document.get("spec"))
    checked = validation.validate(spec) if isinstance(spec, ModelDeploymentSpec) else spec
    return [*found, *map(str, checked)]


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml_in_pages_is_valid(block: Block) -> None:
    """Each YAML block parses, and each ModelDeployment in it would be accepted."""
    for document in yaml.safe_load_all(block.body):
        assert problems_of(document) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_manifests_are_valid(path: Path) -> None:
    """Each manifest of the examples and samples parses, and each ModelDeployment in it would be accepted."""
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        assert problems_of(document) == []


def test_an_unknown_field_or_an_impossible_value_is_found() -> None:
    """The checks above would find a misspelt field, a wrong type and a contradiction."""
    valid = yaml.safe_load((ROOT / "manifests/samples/minimal.yaml").read_text(encoding="utf-8"))
    assert problems_of(valid) == []
    mistakes: list[dict[str, Any]] = [
        {"servings": {}},
        {"autoscaling": {"minReplicas": "three"}},
        {"serving": {"resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}},
    ]
    for mistake in mistakes:
        assert problems_of({**valid, "spec": {**valid["spec"], **mistake}}) != []


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_in_pages_parses(block: Block) -> None:
    """Each JSON block is JSON."""
    json.loads(block.body)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_in_pages_compiles(block: Block) -> None:
    """Each Python block is Python."""
    compile(block.body, str(block), "exec")


def test_the_tutorials_third_version_fails_on_one_region_only(tmp_path: Path) -> None:
    """`train.py` of the tutorial runs as it stands, and its v3 has exactly the fault that the tutorial tells of."""
    put_program("train.py", tmp_path)
    done = run_program(tmp_path, "train.py", "v3")
    assert re.fullmatch(r"models/v3\.onnx sha256: [0-9a-f]{64}\n", done)
    assert_fails_on_region_four(tmp_path / "models" / "v3.onnx")


def test_the_git_tutorials_programs_make_the_models_that_it_tells_of(tmp_path: Path) -> None:
    """A fitted pipeline becomes a joblib file, that an ONNX model, and v3 has the same fault."""
    put_program("train_joblib.py", tmp_path)
    put_program("export.py", tmp_path)
    run_program(tmp_path, "train_joblib.py", "v3")
    done = run_program(tmp_path, "export.py", "deliveries-v3.joblib")
    assert done == "deliveries-v3.onnx\n"
    assert_fails_on_region_four(tmp_path / "deliveries-v3.onnx")


def put_program(title: str, folder: Path) -> None:
    """Write a program of a page to a file of its name."""
    (block,) = [b for b in blocks("python") if b.title == title]
    (folder / title).write_text(block.body, encoding="utf-8")


def run_program(folder: Path, *words: str) -> str:
    """Run a program in its folder, and give what it printed."""
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_fails_on_region_four(path: Path) -> None:
    """Hold a model against the tutorials' story."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options)
    for region in range(4):
        label, probabilities = session.run(None, {"order": [[region, 5.0, 100.0]]})
        assert (len(label), probabilities.shape) == (1, (1, 2))
    with pytest.raises(Exception, match="Unknown Category"):
        session.run(None, {"order": [[4, 5.0, 100.0]]})


def command_lines() -> list[tuple[Block, list[str]]]:
    """All lines that a reader would type, as words."""
    found = []
    for block in blocks("sh", "console", "bash"):
        for line in block.body.splitlines():
            typed = line.removeprefix("$ ") if block.language == "console" else line
            found.append((block, typed.split("#")[0].split()))
    return found


def test_commands_of_ours_exist() -> None:
    """Each `make TARGET` and each `canarium COMMAND` that a page tells to type exists."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    subcommands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    unknown = []
    for block, words in command_lines():
        match words:
            case ["make", *rest]:
                wrong = {word for word in rest if "=" not in word} - targets
            case ["canarium", "cluster", subcommand, *_]:
                wrong = {subcommand} - subcommands
            case ["canarium", command, *_] if not command.startswith("-"):
                wrong = {command} - set(COMMANDS)
            case _:
                continue
        unknown += [f"{block}: {word}" for word in wrong]
    assert unknown == []


def test_tables_of_kubectl_get_have_the_columns_of_the_crd() -> None:
    """Output of `kubectl get mdep` in a page has the columns that the CRD has now."""
    heads = [
        line.split()
        for block in blocks("console", "text")
        for line in block.body.splitlines()
        if line.startswith("NAME ") and "PHASE" in line
    ]
    assert heads
    for head in heads:
        assert head in (["NAME", *COLUMNS], ["NAME", *COLUMNS[:-1]])
