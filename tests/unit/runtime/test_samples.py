"""Requests of the user's own before ready: where they come from, and what a wrong one says."""

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime import samples
from canarium_runtime.errors import LoadError
from canarium_runtime.repository import Repository
from canarium_runtime.testing import FakeBackend

ROW = {"instances": [[1, 2]]}


def config(**settings: Any) -> RuntimeConfig:
    """Settings of a server."""
    return RuntimeConfig(**{"model_uri": "file:///m.onnx", **settings})


def collected(
    tmp_path: Path, artefact: Path | None = None, **settings: Any
) -> list[samples.Sample]:
    """Gather what some settings name."""
    repository = Repository(directory=tmp_path, timeout=timedelta(seconds=5), max_bytes=10_000)
    return samples.collect(config(**settings), artefact or tmp_path / "none", repository)


def test_they_come_from_the_spec_a_file_and_the_artefact(tmp_path: Path) -> None:
    """In this order; empty lines do not count."""
    import zipfile

    file = tmp_path / "more.jsonl"
    file.write_text(f"{json.dumps(ROW)}\n\n{json.dumps(ROW)}\n")
    artefact = tmp_path / "m.zip"
    with zipfile.ZipFile(artefact, "w") as archive:
        archive.writestr("warmup.jsonl", json.dumps(ROW))
    found = collected(
        tmp_path,
        artefact,
        warmup_samples=[ROW],
        warmup_uri=f"file://{file}",
        warmup_sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        model_format="python",
        allow_code=True,
    )
    assert [s.origin for s in found] == [
        "warmup.samples[0]",
        "model.warmup.uri line 1",
        "model.warmup.uri line 3",
        "warmup.jsonl line 1",
    ]
    backend = FakeBackend()
    samples.run(backend, found)
    assert backend.batch_rows == [1, 1, 1, 1]


def test_settings_travel_by_the_environment() -> None:
    """As JSON, and a mistake names the variable."""
    written = config(
        warmup_samples=[ROW], model_inputs=[{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    )
    assert RuntimeConfig.from_env(written.to_env()) == written
    with pytest.raises(ValueError, match=r"warmup_samples\n.*is not JSON"):
        RuntimeConfig.from_env({"CANARIUM_MODEL_URI": "x", "CANARIUM_WARMUP_SAMPLES": "[{"})


def test_another_digest_is_refused(tmp_path: Path) -> None:
    """The file is held to its digest, as the model is."""
    (tmp_path / "more.jsonl").write_text("{}")
    with pytest.raises(LoadError, match="expected 0000"):
        collected(tmp_path, warmup_uri=f"file://{tmp_path}/more.jsonl", warmup_sha256="0" * 64)


@pytest.mark.parametrize("limit", ["MAX_SAMPLES", "MAX_FILE_BYTES"])
def test_there_is_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """To their number and to their bytes."""
    monkeypatch.setattr(samples, limit, 1)
    (tmp_path / "more.jsonl").write_text(f"{json.dumps(ROW)}\n" * 2)
    with pytest.raises(LoadError, match="more than 1") as caught:
        collected(tmp_path, warmup_uri=f"file://{tmp_path}/more.jsonl")
    assert caught.value.failure.reason == "WarmupFailed"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "expected an object"),
        (b'{"instances": [["a", 2]]}', "expected a number"),
        (b'{"inputs": [{"name": "w"}]}', "expected one of"),
        (b'{"instances": [[1e39, 2]]}', "a number that fits FP32"),
    ],
)
def test_one_that_fails_is_named_with_the_reason(body: bytes, why: str) -> None:
    """World: a body; world: the server does not become ready, and says which and why."""
    with pytest.raises(LoadError, match=rf"a\.jsonl line 7 fails: .*{why}") as caught:
        samples.run(FakeBackend(), [samples.Sample("a.jsonl line 7", body)])
    assert (caught.value.failure.reason, caught.value.failure.permanent) == ("WarmupFailed", True)


def test_a_model_that_fails_on_one_says_so() -> None:
    """What the backend raises, not only what validation does."""
    backend = FakeBackend(compute=lambda inputs: [inputs["x"].sum(axis=1)])
    nan = np.array([[np.nan, 1]], np.float32)
    backend.infer = lambda inputs, outputs: FakeBackend.infer(backend, {"x": nan}, outputs)  # type: ignore[method-assign]
    with pytest.raises(LoadError, match=r"samples\[0\] fails: secret detail"):
        samples.run(backend, [samples.Sample("warmup.samples[0]", json.dumps(ROW).encode())])
