"""`canarium check`: files, directories and kustomizations in, findings and exit status out."""

import json
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from canarium_cli import check
from canarium_cli.checking import judging, sources
from canarium_cli.checking.kustomizing import Builder, Kustomize

from .objects import DIGEST, MODEL, FakeKustomize

BROKEN = MODEL.replace("version: v1", "versoin: v1")
BASE = {
    "base/kustomization.yaml": "resources: [model.yaml]\n",
    "base/model.yaml": MODEL.replace("  namespace: shop\n", ""),
}


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=["fake", "real"])
def builder(request: pytest.FixtureRequest) -> Builder:
    """A kustomize; the real one where it is installed."""
    if request.param == "fake":
        return FakeKustomize()
    found = Kustomize.find()
    if found is None:
        pytest.skip("neither kustomize nor kubectl is on PATH")
    return found


def run(*words: str, stdin: str | None = None) -> tuple[int, str, str]:
    done = CliRunner().invoke(check.app, list(words), input=stdin)
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("files", "words", "status", "said"),
    [
        ({"m.yaml": MODEL}, ["."], 0, "1 object checked, nothing wrong"),
        ({"m.yaml": MODEL}, [], 0, "1 object checked"),
        ({"m.yaml": MODEL}, ["m.yaml"], 0, "1 object checked"),
        ({"m.yaml": BROKEN}, ["."], 1, "m.yaml:10:5  error  spec.model.versoin: there is no such"),
        ({"m.yaml": MODEL.replace(f"    sha256: {DIGEST}\n", "")}, ["."], 0, "1 warning"),
        ({"m.yaml": MODEL.replace(f"    sha256: {DIGEST}\n", "")}, ["--strict", "."], 1, "1 warning"),
        ({"m.yaml": MODEL + "  a: [\n"}, ["."], 1, "m.yaml:14:1  error  is not YAML"),
        ({"m.yaml": MODEL, "chart/x.yaml": "{{ nothing.of.ours }}"}, ["."], 0, "nothing wrong"),
        ({"c/x.yaml": "{{ if }} # canarium.dev/"}, ["."], 1, "render a chart first"),
        ({"x.yaml": "a: 1"}, ["."], 2, "no ModelDeployment in .: nothing was checked"),
        ({}, ["nowhere"], 2, "nowhere: no such file or directory"),
    ],
)  # fmt: skip
def test_the_exit_status_tells_what_came_of_it(
    root: Path, files: Mapping[str, str], words: list[str], status: int, said: str
) -> None:
    """0: nothing is wrong; 1: something is; 2: nothing could be checked."""
    write(root, files)
    code, out, error = run(*words)
    assert (code, said in out + error) == (status, True), out + error


def test_a_list_and_standard_input_are_taken_apart() -> None:
    """`kubectl get mdep -o yaml | canarium check -` has items, whose lines are those of the list."""
    body = "\n".join(f"  {line}" for line in BROKEN.splitlines())
    text = f"apiVersion: v1\nkind: List\nitems:\n- {body[2:]}\n"
    code, out, _ = run("-", stdin=text)
    assert code == 1
    assert "-:13:7  error  spec.model.versoin" in out


def test_overlays_are_built_and_each_mistake_is_traced_to_its_file(
    root: Path, builder: Builder
) -> None:
    """Of the base, of a patch in a file, and of one in the kustomization itself; no duplicate in two overlays."""
    patch = (
        "apiVersion: canarium.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: deliveries}\n"
    )
    write(
        root,
        {
            **BASE,
            "base/model.yaml": BASE["base/model.yaml"] + "  serving:\n    maxbatchSize: 8\n",
            "staging/kustomization.yaml": (
                "resources: [../base]\nnamespace: shop\npatches:\n- patch: |-\n    - op: replace\n"
                '      path: /spec/model/version\n      value: "v 2"\n  target: {kind: ModelDeployment}\n'
            ),
            "production/kustomization.yaml": (
                "resources: [../base]\nnamespace: shop\nnamePrefix: prod-\npatches: [{path: p.yaml}]\n"
            ),
            "production/p.yaml": patch + "spec:\n  autoscaling:\n    minReplicas: none\n",
        },
    )
    groups = sources.collect(["."], builder, root.resolve())
    found = {(f.file, f.line, f.field, f.target.split(" ")[1]) for f in judging.judge(groups)}
    assert found == {
        ("base/model.yaml", 13, "spec.serving.maxbatchSize", "shop/deliveries"),
        ("base/model.yaml", 13, "spec.serving.maxbatchSize", "shop/prod-deliveries"),
        ("staging/kustomization.yaml", 5, "spec.model.version", "shop/deliveries"),
        ("production/p.yaml", 6, "spec.autoscaling.minReplicas", "shop/prod-deliveries"),
    }


def test_a_kustomization_that_does_not_build_is_an_error_and_its_files_are_checked(
    root: Path, builder: Builder
) -> None:
    """Both are told at once."""
    write(root, {**BASE, "base/model.yaml": BROKEN})
    write(root, {"base/kustomization.yaml": "resources: [model.yaml, gone.yaml]\n"})
    found = judging.judge(sources.collect(["."], builder, root.resolve()))
    assert [(f.file, f.rule) for f in found] == [
        ("base/kustomization.yaml", "kustomize"),
        ("base/model.yaml", "unknown-field"),
    ]
    assert "gone.yaml" in found[0].message


def test_without_kustomize_files_are_checked_as_they_stand_and_a_note_says_so(root: Path) -> None:
    """A patch lacks what the whole has, so only its fields are looked at."""
    patch = (
        "apiVersion: canarium.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: deliveries}\n"
    )
    write(root, {**BASE, "base/p.yaml": patch + "spec: {modle: {}}\n"})
    write(
        root,
        {"base/kustomization.yaml": "resources: [model.yaml]\npatchesStrategicMerge: [p.yaml]\n"},
    )
    found = judging.judge(sources.collect(["."], None, root.resolve()))
    assert {(f.file, f.severity, f.rule) for f in found} == {
        (".", "note", "kustomize"),
        ("base/kustomization.yaml", "warning", "kustomize"),
        ("base/p.yaml", "error", "unknown-field"),
    }


def test_the_json_report_has_every_part_of_a_finding(root: Path) -> None:
    """Programs need not parse text."""
    write(root, {"m.yaml": BROKEN})
    code, out, _ = run("-o", "json", ".")
    assert (code, json.loads(out)) == (
        1,
        {
            "passed": False,
            "objects": ["m.yaml: ModelDeployment shop/deliveries"],
            "findings": [
                {
                    "file": "m.yaml",
                    "line": 10,
                    "column": 5,
                    "severity": "error",
                    "rule": "unknown-field",
                    "target": "ModelDeployment shop/deliveries",
                    "field": "spec.model.versoin",
                    "message": "there is no such field: did you mean version?",
                }
            ],
        },
    )


def test_github_gets_workflow_commands_that_nothing_can_break(root: Path) -> None:
    """A colon, a comma, a percent sign or a line break in a name or a message stays inside."""
    write(root, {"a,b:c.yaml": MODEL.replace("version: v1", 'version: "5%\\n::x"')})
    _, out, _ = run("-o", "github", ".")
    first = out.splitlines()[0]
    assert first.startswith(
        "::error file=a%2Cb%3Ac.yaml,line=10,col=5,title=ModelDeployment shop/deliveries::spec.model.version: '5%25"
    )
    assert len(out.splitlines()) == 2


def test_junit_has_a_case_for_each_object(root: Path) -> None:
    """One fails, one passes with a warning beside it, and counts agree."""
    other = MODEL.replace("deliveries\n", "returns\n", 1).replace(f"    sha256: {DIGEST}\n", "")
    write(root, {"m.yaml": BROKEN, "n.yaml": other})
    code, out, _ = run("-o", "junit", ".")
    suite = ET.fromstring(out)[0]  # noqa: S314 - we wrote it
    assert (code, suite.get("tests"), suite.get("failures")) == (1, "2", "1")
    failed, passed = suite
    assert failed.find("failure").get("type") == "unknown-field"  # type: ignore[union-attr]
    assert "m.yaml:10:5 error" in str(failed.findtext("failure"))
    assert "not pinned" in str(passed.findtext("system-out"))
