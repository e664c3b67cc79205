"""examples/model-repository: its pipelines are what GitHub and GitLab take, and its scripts do what they say."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from tests.docs.pages import ROOT

from canarium_cli import check, diff, validate
from canarium_cli.checking import judging, sources
from canarium_cli.checking.kustomizing import Builder, Kustomize
from canarium_cli.validating import thresholds

from .checking.objects import FakeKustomize

REPOSITORY = ROOT / "examples/model-repository"
PIPELINES = {
    "vendor.github-workflows": REPOSITORY / ".github/workflows/model.yaml",
    "vendor.gitlab-ci": REPOSITORY / ".gitlab-ci.yml",
}
APPS = {"check": check.app, "diff": diff.app, "validate": validate.app}


def scripts_of(value: Any) -> Iterator[str]:
    """All shell of a pipeline: `run` of GitHub, `script` of GitLab."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "run":
                yield item
            elif name == "script":
                yield "\n".join(item)
            else:
                yield from scripts_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from scripts_of(item)


SHELL = [
    pytest.param(text, id=f"{path.name}-{number}")
    for path in PIPELINES.values()
    for number, text in enumerate(scripts_of(yaml.safe_load(path.read_text())))
] + [pytest.param(path.read_text(), id=path.name) for path in REPOSITORY.glob("scripts/*.sh")]


@pytest.mark.parametrize("schema", PIPELINES)
def test_a_pipeline_is_what_its_system_takes(schema: str) -> None:
    """By the published schema, which check-jsonschema brings along."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    done = subprocess.run(
        [*command, str(PIPELINES[schema])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mistake_in_a_pipeline_would_be_found(tmp_path: Path) -> None:
    """A job without steps is no job."""
    path = tmp_path / "model.yaml"
    path.write_text("on: push\njobs: {test: {runs-on: ubuntu-latest, stepz: []}}\n")
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
    ]
    assert subprocess.run([*command, str(path)], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("text", SHELL)
def test_its_shell_parses_and_its_commands_exist(text: str) -> None:
    """`bash -n`; and of each `canarium COMMAND`, the options."""
    plain = re.sub(r"\$\{\{.*?\}\}", "x", text)
    done = subprocess.run(["bash", "-n"], input=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line in re.findall(
        r"canarium (?:check|diff|validate)\b[^>|&;}]*", plain.replace("\\\n", " ")
    ):
        _, name, *words = shlex.split(line.split(" #")[0].split("\n")[0])
        command = typer.main.get_command(APPS[name])
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line


@pytest.mark.parametrize("builder", [FakeKustomize(), Kustomize.find()])
def test_its_manifests_and_thresholds_have_nothing_wrong(builder: Builder | None) -> None:
    """Not even a warning."""
    if builder is None:
        pytest.skip("neither kustomize nor kubectl is on PATH")
    groups = sources.collect([str(REPOSITORY / "deploy")], builder, ROOT)
    assert {g.title.rpartition("/")[2] for g in groups if g.documents} == {"staging", "production"}
    assert judging.judge(groups) == []
    found = thresholds.read(REPOSITORY / "thresholds.yaml", {})
    assert found.metrics.accuracy is not None


KUBECTL = """\
#!/usr/bin/env bash
case "$*" in
  *jsonpath=*wait*|wait*jsonpath*) exit "$DIGEST" ;;
  *condition=Ready*) [ "$READY" = 0 ] && exit 0; [ "$READY" = 1 ] && exit 1; exec sleep 30 ;;
  *condition=Stalled*) [ "$STALLED" = 0 ] && exit 0; [ "$STALLED" = 1 ] && exit 1; exec sleep 30 ;;
  get*) echo "what the operator says" ;;
esac
"""


@pytest.mark.parametrize(
    ("digest", "ready", "stalled", "status"),
    [
        ("0", "0", "wait", 0),
        ("0", "wait", "0", 1),
        ("0", "1", "wait", 2),
        ("0", "wait", "1", 2),
        ("1", "0", "wait", 2),
    ],
)
def test_waiting_for_a_rollout_ends_with_its_outcome(
    tmp_path: Path, digest: str, ready: str, stalled: str, status: int
) -> None:
    """0: it serves; 1: it was taken back; 2: neither in time, or the commit never came. Whoever is left is ended."""
    fake = tmp_path / "kubectl"
    fake.write_text(KUBECTL)
    fake.chmod(0o755)
    done = subprocess.run(
        ["scripts/wait-for-rollout.sh", "staging"],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "DIGEST": digest,
            "READY": ready,
            "STALLED": stalled,
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert ("what the operator says" in done.stdout) == (digest == "0")
