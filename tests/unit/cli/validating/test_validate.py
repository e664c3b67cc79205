"""`canarium validate` from the command line: real ONNX files, data and thresholds in, reports and exit status out."""

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from canarium_cli import validate
from canarium_cli.validating import page, svg, thresholds, words
from canarium_cli.validating.report import Report, Subject, to_json, to_junit
from canarium_cli.validating.thresholds import ThresholdsError
from canarium_runtime.testing import linear_model

from . import golden

EXPECTED = Path(__file__).parent / "expected"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`model.onnx` gives a + 10 b; `golden.csv` has 60 rows of which the answer is that; thresholds ask for it."""
    monkeypatch.chdir(tmp_path)
    linear_model(tmp_path / "model.onnx")
    with open("golden.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "target"])
        writer.writerows([i, i % 7, i + 10 * (i % 7)] for i in range(60))
    Path("limits.yaml").write_text(
        "metrics:\n  mae: {max: 0.01}\n  r2: {min: 0.99}\nmaxSize: 1Mi\n"
    )
    return tmp_path


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(validate.app, list(words))
    return done.exit_code, done.stdout, done.stderr


USUAL = ("model.onnx", "--data", "golden.csv")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([*USUAL, "--thresholds", "limits.yaml"], 0, "passed: 5 of 5 checks"),
        (USUAL, 0, "passed: 2 of 2 checks"),
        ([*USUAL, "--reference", "golden.csv"], 0, "no feature has drifted"),
        ([*USUAL, "--against", "model.onnx"], 0, "agreement        100.0% of 60 rows"),
        ([*USUAL, "--thresholds", "strict.yaml"], 1, "MISSED rows is 60, and at least 1000 is asked for"),
        ([*USUAL, "--thresholds", "typo.yaml"], 2, "typo.yaml:2: metrics.acuracy: there is no such"),
        ([*USUAL, "--thresholds", "gone.yaml"], 2, "gone.yaml: cannot be read"),
        ([*USUAL, "--label", "nope"], 2, "golden.csv: has no column 'nope'"),
        ([*USUAL, "--features", "a"], 2, "takes 2 numbers a row"),
        ([*USUAL, "-o", "pdf"], 2, "write one of text, json"),
        (["gone.onnx", "--data", "golden.csv"], 2, "gone.onnx: no such file"),
        (["broken.onnx", "--data", "golden.csv"], 3, "ModelUnreadable: "),
        (["manifest.yaml", "--data", "golden.csv"], 0, "model            model.onnx"),
    ],
)  # fmt: skip
def test_the_exit_status_tells_what_came_of_it(
    folder: Path, arguments: list[str], status: int, said: str
) -> None:
    """0: met; 1: missed; 2: data, thresholds or arguments cannot be used; 3: the model cannot."""
    Path("strict.yaml").write_text("minRows: 1000\n")
    Path("typo.yaml").write_text("metrics:\n  acuracy: {min: 1}\n")
    Path("broken.onnx").write_text("no model")
    Path("manifest.yaml").write_text(
        "apiVersion: canarium.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: m}\n"
        f"spec: {{model: {{uri: {(folder / 'model.onnx').as_uri()}}}}}\n"
    )
    code, out, error = run(*arguments)
    assert (code, said in out + error) == (status, True), out + error


def test_all_reports_are_written_at_once(folder: Path) -> None:
    """Each in its format."""
    code, _, _ = run(*USUAL, "--thresholds", "limits.yaml", "--report", "out")
    assert code == 0
    document = json.loads((folder / "out/report.json").read_text())
    assert (document["passed"], document["task"], document["data"]["rows"]) == (
        True,
        "regression",
        60,
    )
    assert document["model"]["inputs"] == ["x FP32 [-1, 2]"]
    suite = ET.parse(folder / "out/junit.xml").getroot()[0]  # noqa: S314 - we wrote it
    assert (suite.get("tests"), suite.get("failures")) == ("5", "0")
    assert (folder / "out/report.md").read_text().startswith(words.MARKER)
    assert (folder / "out/report.html").read_text().startswith("<!doctype html>")


def test_a_model_whose_inputs_break_clients_misses_the_contract(folder: Path) -> None:
    """A model with rows of one size only, where clients send any number."""
    linear_model(folder / "fixed.onnx", rows=1)
    code, out, _ = run("fixed.onnx", "--data", "golden.csv", "--against", "model.onnx")
    assert code == 1
    assert (
        "MISSED clients of the old version would break: input 'x' has shape [1, 2], it had [-1, 2]"
        in out
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: {f1: {mni: 1}}", "limits.yaml:1: metrics.f1.mni: there is no such threshold: did you mean min?"),
        ("a: 1", "limits.yaml:1: a: there is no such threshold: known are task, label, features"),
        ("latency:\n  p95: fast", "limits.yaml:2: latency.p95: 'fast' is not a duration"),
        ("maxSize: big", "limits.yaml:1: maxSize: 'big' is not a quantity"),
        ("minAgreement: 2", "limits.yaml:1: minAgreement: Input should be less than or equal to 1"),
        ("metrics: {accuracy: {min: .nan}}", "limits.yaml:1: metrics.accuracy.min: Input should be a finite number"),
        ("- 1", "a mapping is expected"),
        ("a: [", "limits.yaml:1: is not YAML"),
        ("a: 1\n---\nb: 1", "2 documents, where one is expected"),
    ],
)  # fmt: skip
def test_a_threshold_that_is_none_is_named(tmp_path: Path, text: str, message: str) -> None:
    """With file, line, field and the remedy; a misspelt one would never be missed."""
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(ThresholdsError) as caught:
        thresholds.read(path, {})
    assert message in str(caught.value)


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    """So that one file serves several data sets."""
    path = tmp_path / "limits.yaml"
    path.write_text("label: a\nminRows: 5\n")
    found = thresholds.read(path, {"label": "b"})
    assert (found.label, found.min_rows) == ("b", 5)


REPORT = Report(
    model=Subject(
        name="fraud-v2.onnx",
        sha256="ab" * 32,
        size_bytes=3_500_000,
        platform="onnxruntime_onnx",
        device="cpu",
        inputs=["x FP32 [-1, 2]"],
        outputs=["label INT64 [-1]", "probabilities FP32 [-1, 2]"],
    ),
    against=Subject(
        name="fraud-v1.onnx",
        sha256="cd" * 32,
        size_bytes=900,
        platform="onnxruntime_onnx",
        device="cpu",
        inputs=[],
        outputs=[],
    ),
    data="golden.csv",
    reference="reference.csv",
    found=golden.EVALUATION,
    checks=golden.CHECKS,
    at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    version="0.1.0",
)


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("report.txt", words.text),
        ("report.md", words.markdown),
        ("report.json", to_json),
        ("junit.xml", to_junit),
        ("report.html", page.html),
    ],
)
def test_a_report_reads_as_expected(name: str, writer: "golden.Writer") -> None:
    """As in expected/, byte for byte; UPDATE_EXPECTED=1 writes it anew."""
    golden.compare(EXPECTED / name, writer(REPORT))


class Page(HTMLParser):
    """Notes what a page asks for, and whether its elements nest."""

    VOID = ("meta", "br", "link", "img", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.labels = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.note(tag, attributes)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.note(tag, attributes)

    def note(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [str(v) for k, v in attributes if k in ("src", "href")]
        self.labels += tag == "svg" and any(k == "aria-label" and v for k, v in attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_hides_nothing_in_markup() -> None:
    """No link leads out, all elements close, plots have words, and a name with markup stays text."""
    evil = replace(REPORT, data='<script>alert("x")</script>.csv')
    text = page.html(evil)
    found = Page()
    found.feed(text)
    assert (found.open, found.links) == ([], [])
    assert "<script" not in text
    assert "url(" not in text
    assert "http" not in text
    assert found.labels == text.count("<svg")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.26, [0, 0.05, 0.1, 0.15, 0.2, 0.25]),
        (0, 285, [0, 50, 100, 150, 200, 250]),
        (-3, 3, [-3, -2, -1, 0, 1, 2, 3]),
        (1e6, 1.5e6, [1e6, 1.1e6, 1.2e6, 1.3e6, 1.4e6, 1.5e6]),
    ],
)
def test_axes_have_round_numbers(low: float, high: float, expected: list[float]) -> None:
    """Few enough to be read."""
    assert svg.ticks(low, high) == pytest.approx(expected)
