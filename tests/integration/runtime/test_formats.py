"""Whole servers with models of each format: from settings to answers, and to the reason when they cannot serve."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.runtime.servers import Server
from tests.unit.runtime.backends import worlds
from tests.unit.runtime.backends.worlds import CODE, write_text, write_zip

Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers, and end them."""
    servers: list[Server] = []

    def start_one(artefact: Path, **settings: str) -> Server:
        digest = hashlib.sha256(artefact.read_bytes()).hexdigest()
        servers.append(Server(tmp_path, artefact.as_uri(), model_sha256=digest, **settings))
        return servers[-1]

    yield start_one
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


DECLARED = {
    "model_inputs": json.dumps([{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]),
    "model_outputs": json.dumps(
        [
            {"name": "y", "datatype": "FP32", "shape": [-1]},
            {"name": "z", "datatype": "FP32", "shape": [-1, 2]},
        ]
    ),
}
BAD = '[{"instances": [[1]]}]'
SAMPLES = {"warmup_samples": json.dumps([{"instances": [[1, 2]]}])}


CHAIN = """
[[steps]]
file = "halves.py"
format = "python"
entrypoint = "model:Halve"
[[steps]]
file = "linear.onnx"
format = "onnx"
inputs = {x = "half"}
"""


def write_chain(folder: Path) -> Path:
    """Write a chain that halves its rows before an ONNX model."""
    members = {
        "chain.toml": CHAIN,
        "halves.py": worlds.HALVES,
        "linear.onnx": worlds.write_onnx(folder / "linear.onnx"),
    }
    return write_zip(folder / "chain.zip", members)


def write_script(folder: Path) -> Path:
    """Write TorchScript."""
    return worlds.write_script(folder / "m.ts")


@pytest.mark.parametrize(
    ("write", "settings", "outputs"),
    [
        (
            write_script,
            {"model_format": "torch", **DECLARED},
            {"y": [43, 1], "z": [[6, 8], [2, 0]]},
        ),
        (
            write_chain,
            {"model_format": "chain", "allow_code": "true"},
            {"y": [21.5, 0.5], "z": [[3, 4], [1, 0]]},
        ),
    ],
    ids=["TorchScript", "chain"],
)
def test_a_model_of_each_format_is_served(
    start: Start,
    tmp_path: Path,
    write: Callable[[Path], Path],
    settings: dict[str, str],
    outputs: dict[str, Any],
) -> None:
    """Declared requests run first, then clients' do. Programs of torch.export are loaded in the unit tests."""
    server = start(write(tmp_path), **settings, **SAMPLES)
    server.wait_ready()
    answer = httpx.post(server.url + "/predict", json={"instances": [[3, 4], [1, 0]]}, timeout=30)
    assert answer.status_code == 200
    assert answer.json()["outputs"] == outputs
    server.terminate()
    assert server.exit_code() == 0


def test_a_class_refuses_a_request_in_its_own_words(start: Start, tmp_path: Path) -> None:
    """422 with the message for what it means for the client, 500 without it for what it does not."""
    code = CODE.replace("import Tensor", "import InvalidInput, Tensor").replace(
        'x = inputs["x"]',
        'x = inputs["x"]\n'
        '        if (x < 0).any(): raise InvalidInput("x must not be negative", input="x")\n'
        '        if (x > 9).any(): raise RuntimeError("secret")\n',
    )
    server = start(write_text(tmp_path / "m.py", code), model_format="python", allow_code="true")
    server.wait_ready()
    answers: list[tuple[int, Any]] = []
    for row in ([1, 2], [-1, 2], [10, 2]):
        response = httpx.post(server.url + "/predict", json={"instances": [row]})
        answers.append((response.status_code, response.text))
    assert [status for status, _ in answers] == [200, 422, 500]
    assert "x must not be negative" in answers[1][1]
    assert "secret" not in answers[2][1]


@pytest.mark.parametrize(
    ("settings", "reason", "words"),
    [
        ({}, "CodeNotAllowed", "model.allowCode"),
        ({"allow_code": "true", "warmup_samples": BAD}, "WarmupFailed", "warmup.samples[0]"),
        ({"allow_code": "true", "accelerator": "gpu"}, "AcceleratorUnavailable", "nvidia.com/gpu"),
    ],
)
def test_a_server_that_cannot_serve_says_why(
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    reason: str,
    words: str,
) -> None:
    """World: code without leave, a wrong request for the warm-up, a GPU that is not there; world: the reason."""
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "none")
    server = start(write_text(tmp_path / "m.py", CODE), model_format="python", **settings)
    assert server.exit_code() == 1
    assert server.failure().reason == reason
    assert words in server.failure().message


def test_code_from_the_network_needs_a_digest(tmp_path: Path) -> None:
    """Before anything is fetched."""
    server = Server(tmp_path, "https://127.0.0.1:1/m.py", model_format="python", allow_code="true")
    assert server.exit_code() == 1
    assert server.failure().reason == "InvalidConfig"
    assert "model.sha256 is required" in server.failure().message


def test_requests_in_the_archive_are_run(start: Start, tmp_path: Path) -> None:
    """And one of them that fails is named with its line."""
    rows = '{"instances": [[1, 2]]}\n{"instances": [[1, 2, 3]]}\n'
    path = write_zip(tmp_path / "m.zip", {"model.py": CODE, "warmup.jsonl": rows})
    server = start(path, model_format="python", allow_code="true")
    assert server.exit_code() == 1
    assert "warmup.jsonl line 2 fails" in server.failure().message
