"""`canarium diff`: a real git repository before and after, and what is printed."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from canarium_cli import diff
from canarium_cli.changes import git

EXPECTED = Path(__file__).parent / "expected"
MODEL = """\
apiVersion: canarium.dev/v1alpha1
kind: ModelDeployment
metadata: {name: NAME, namespace: shop}
spec:
  model:
    uri: https://models.example.com/NAME/v1.onnx
    sha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    version: v1
  traffic:
    gateway: {name: public}
  rollout:
    canary:
      steps:
      - {weight: 10, pause: 10m, approval: true}
      - {weight: 100}
"""


def model(name: str, *changes: tuple[str, str]) -> str:
    text = MODEL.replace("NAME", name)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two models, at the tag `before`."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    for name, value in (("NAME", "t"), ("EMAIL", "t@example.com")):
        monkeypatch.setenv(f"GIT_AUTHOR_{name}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{name}", value)
    folder = tmp_path / "repository"
    (folder / "prod").mkdir(parents=True)
    for name in ("deliveries", "returns", "fraud"):
        (folder / "prod" / f"{name}.yaml").write_text(model(name))
    run_git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder)
    run_git(folder, "tag", "before")
    monkeypatch.chdir(folder)
    return folder


def run_git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "--message=x")


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(diff.app, list(words))
    return done.exit_code, done.stdout, done.stderr


V2 = (("v1.onnx", "v2.onnx"), ("version: v1", "version: v2"), ("aaaa", "bbbb"))


def change(folder: Path) -> None:
    """Another version of one model, more pods for another, one gone, one new."""
    (folder / "prod/deliveries.yaml").write_text(model("deliveries", *V2))
    scaled = model("returns", ("  traffic:", "  autoscaling: {maxReplicas: 30}\n  traffic:"))
    (folder / "prod/returns.yaml").write_text(scaled)
    (folder / "prod/fraud.yaml").unlink()
    (folder / "prod/churn.yaml").write_text(model("churn"))


@pytest.mark.parametrize("output", ["text", "markdown", "json"])
def test_a_plan_reads_as_expected(repository: Path, output: str) -> None:
    """As in tests/unit/cli/changes/expected, byte for byte; UPDATE_EXPECTED=1 writes it anew."""
    change(repository)
    code, out, _ = run("--from", "before", "-o", output)
    suffix = {"text": "txt", "markdown": "md", "json": "json"}[output]
    file = EXPECTED / f"plan.{suffix}"
    if os.environ.get("UPDATE_EXPECTED"):
        file.write_text(out)
    assert (code, out) == (0, file.read_text())


def test_nothing_changed_is_said_and_moving_a_file_is_no_change(repository: Path) -> None:
    """The object is the same wherever it is written down."""
    (repository / "live").mkdir()
    (repository / "prod/fraud.yaml").rename(repository / "live/fraud.yaml")
    code, out, _ = run("--from", "before", "--exit-code")
    assert (code, out) == (0, "nothing that serves changes since before\n")


@pytest.mark.parametrize(
    ("words", "change_it", "status", "said"),
    [
        (["--from", "before", "--exit-code"], V2, 3, "1 rollout"),
        (["--from", "main"], V2, 0, "1 rollout"),
        (["--from", "before"], (("weight: 100", "weight: 5"), ("10m", "oops")), 1, "would be refused"),
        (["--from", "before"], (("  traffic:", "  trafic: {}\n  traffic:"),), 1, "did you mean traffic?"),
        (["--from", "nowhere"], (), 2, "there is no nowhere here: fetch it first"),
        (["--from", "--all"], (), 2, "is no ref"),
        (["--from", "before"], (("spec:", "spec: ["),), 2, "prod/deliveries.yaml:"),
        (["--from", "before", "prod"], V2, 0, "1 rollout"),
    ],
)  # fmt: skip
def test_the_exit_status_tells_what_came_of_it(
    repository: Path,
    words: list[str],
    change_it: tuple[tuple[str, str], ...],
    status: int,
    said: str,
) -> None:
    """0: a plan; 1: something would be refused; 2: no plan; 3: something would change, where that was asked."""
    (repository / "prod/deliveries.yaml").write_text(model("deliveries", *change_it))
    code, out, error = run(*words)
    assert (code, said in out + error) == (status, True), out + error


def test_a_directory_without_git_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With git's own words."""
    monkeypatch.chdir(tmp_path)
    code, _, error = run("--from", "main")
    assert code == 2
    assert "not a git repository" in error


def test_overlays_are_compared_one_by_one(repository: Path) -> None:
    """A change of the base changes each overlay; a directory that is new has only new objects."""
    (repository / "base").mkdir()
    (repository / "prod/deliveries.yaml").rename(repository / "base/model.yaml")
    (repository / "base/kustomization.yaml").write_text("resources: [model.yaml]\n")
    for name in ("staging", "live"):
        (repository / name).mkdir()
        overlay = f"resources: [../base]\nnamespace: {name}\n"
        (repository / name / "kustomization.yaml").write_text(overlay)
    commit(repository)
    (repository / "base/model.yaml").write_text(model("deliveries", *V2))
    (repository / "more").mkdir()
    (repository / "more/kustomization.yaml").write_text("resources: [../base]\nnamespace: more\n")
    code, out, _ = run("--from", "main", "-o", "json")
    if diff.Kustomize.find() is None:
        assert [c["where"] for c in json.loads(out)["changes"]] == ["files"]
        return
    found = {(c["where"], c["name"], c["effect"]) for c in json.loads(out)["changes"]}
    assert code == 0
    assert found == {
        ("staging", "staging/deliveries", "rollout"),
        ("live", "live/deliveries", "rollout"),
        ("more", "more/deliveries", "first deployment"),
    }


def test_large_files_stay_in_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of gigabytes is not written to a temporary folder for a plan."""
    monkeypatch.setattr(git, "MAX_FILE_BYTES", 1000)
    (repository / "model.bin").write_bytes(b"x" * 1001)
    (repository / "a name with ünicode.txt").write_text("small")
    commit(repository)
    folder = repository.parent / "tree"
    folder.mkdir()
    git.write_tree(repository, git.commit_of(repository, "main"), folder)
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "prod/deliveries.yaml",
        "prod/returns.yaml",
        "prod/fraud.yaml",
        "a name with ünicode.txt",
    }
