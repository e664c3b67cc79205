"""`python -m canarium_runtime.golden`: environment in, outcome in the termination log and exit status out."""

import json
from pathlib import Path
from typing import Any

import pytest

from canarium_api.golden import GoldenConfig, Outcome
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.golden import __main__ as job
from canarium_runtime.testing import linear_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`model.onnx` gives a + 10 b, and so do the right answers."""
    linear_model(tmp_path / "model.onnx")
    rows = [f"{i},{i % 7},{i + 10 * (i % 7)}" for i in range(60)]
    (tmp_path / "golden.csv").write_text("\n".join(["a,b,target", *rows]))
    monkeypatch.setenv("CANARIUM_TERMINATION_LOG", str(tmp_path / "log"))
    return tmp_path


def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, thresholds: Any, **changes: Any
) -> tuple[int, Outcome]:
    config = RuntimeConfig(
        model_uri=(folder / "model.onnx").as_uri(), download_dir=str(folder / "downloads")
    )
    settings = {
        "data_uri": (folder / "golden.csv").as_uri(),
        "thresholds": json.dumps(thresholds),
        **changes,
    }
    for name, value in {**config.to_env(), **GoldenConfig(**settings).to_env()}.items():
        monkeypatch.setenv(name, value)
    status = job.main()
    return status, Outcome.model_validate_json((folder / "log").read_text())


@pytest.mark.parametrize(
    ("thresholds", "changes", "status", "passed", "words"),
    [
        ({"metrics": {"mae": {"max": 0.01}}}, {}, 0, True, "3 of 3 checks met on 60 rows, R2 1"),
        ({"minRows": 100}, {}, 1, False, "rows is 60, and at least 100 is asked for"),
        ({"minRws": 100}, {}, 2, None, "MINRWS"),
        ({}, {"data_uri": "file:///gone/golden.csv"}, 2, None, "cannot be read"),
        ({}, {"data_sha256": "0" * 64}, 2, None, "set sha256 to the digest"),
        ({"label": "nope"}, {}, 2, None, "golden.csv: has no column 'nope'"),
    ],
)  # fmt: skip
def test_the_outcome_is_left_for_the_operator(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    thresholds: Any,
    changes: Any,
    status: int,
    passed: bool | None,
    words: str,
) -> None:
    """What cannot be judged is told apart from what was missed."""
    code, outcome = run(folder, monkeypatch, thresholds, **changes)
    assert (code, outcome.passed, words in outcome.message) == (status, passed, True), outcome


def test_an_old_version_is_compared_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the settings of its servers."""
    old = RuntimeConfig(model_uri=(folder / "model.onnx").as_uri())
    against = json.dumps(old.to_env())
    code, outcome = run(folder, monkeypatch, {"minAgreement": 1}, against=against)
    assert (code, outcome.passed) == (0, True)


def test_a_model_that_cannot_be_loaded_could_not_be_judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own pods say the same, and take the canary back."""
    (folder / "model.onnx").write_text("no model")
    code, outcome = run(folder, monkeypatch, {})
    assert (code, outcome.passed) == (3, None)
    assert outcome.message.startswith("ModelUnreadable: ")
