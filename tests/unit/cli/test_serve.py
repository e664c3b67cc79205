"""`canarium serve`: where its settings come from, what it says when they are wrong, and what it shows a person."""

import errno
import importlib.util
import json
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest

from canarium_api.runtime_config import RuntimeConfig
from canarium_cli import serve
from canarium_cli.__main__ import main
from canarium_cli.serve_settings import UsageError, settings

MANIFEST = """
apiVersion: canarium.dev/v1alpha1
kind: ModelDeployment
metadata: {name: fraud, namespace: ml}
spec:
  model: {uri: "https://models.example.com/fraud.onnx", version: "7"}
  serving: {maxBatchSize: 8, maxDelay: 5ms, maxBodySize: 1Mi, processes: 2}
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my model.onnx"
    path.write_bytes(b"model")
    return path


def read(*words: str, **environ: str) -> RuntimeConfig:
    return settings(serve.parser().parse_args(words), environ)


def test_a_path_is_enough(model: Path) -> None:
    """Only this machine is served, under the name `model`."""
    config = read("my model.onnx")
    assert config.model_uri == model.as_uri()
    assert (config.model_name, config.host, config.port) == ("model", "127.0.0.1", 8080)


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("m.onnx", [], "onnx"),
        ("m", [], "onnx"),
        ("m.pt2", [], "torch"),
        ("m.py", [], "python"),
        ("m.py", ["--format", "chain"], "chain"),
    ],
)
def test_the_format_is_read_off_the_name(
    model: Path, name: str, words: list[str], expected: str
) -> None:
    """Unless a flag says otherwise."""
    model.rename(name)
    assert read(name, *words).model_format == expected


def test_flags_win_over_the_environment_and_that_over_the_file(model: Path) -> None:
    """Each source gives what those after it do not."""
    Path("settings.yaml").write_text(
        "model_uri: my model.onnx\nport: 1\nworkers: 2\nmax-batch-size: 3\n"
    )
    config = read(
        "--config", "settings.yaml", "--port", "9", CANARIUM_PORT="8", CANARIUM_WORKERS="4"
    )
    assert (config.port, config.workers, config.max_batch_size) == (9, 4, 3)
    assert config.model_uri == model.as_uri()


def test_any_setting_can_be_set(model: Path) -> None:
    """By its name in any of its spellings."""
    config = read(
        str(model),
        "--set",
        "queue-size=7",
        "--set",
        "CANARIUM_REQUEST_TIMEOUT=5s",
        "--processes",
        "auto",
    )
    assert (config.queue_size, config.request_timeout.total_seconds(), config.processes) == (
        7,
        5,
        0,
    )


def test_a_manifest_is_served_as_a_pod_would(model: Path) -> None:
    """But for what belongs to a cluster: the port for a comparer, and the wait for gateways when it leaves."""
    Path("fraud.yaml").write_text(MANIFEST)
    config = read("--config", "fraud.yaml")
    assert (config.model_name, config.model_version, config.deployment) == (
        "fraud",
        "7",
        "ml/fraud",
    )
    assert config.model_uri == "https://models.example.com/fraud.onnx"
    assert (config.max_batch_size, config.max_body_bytes, config.processes) == (8, 1 << 20, 2)
    assert (config.answers_port, config.drain_delay.total_seconds(), config.host) == (
        None,
        0,
        "127.0.0.1",
    )
    assert read("--config", "fraud.yaml", "my model.onnx").model_uri == model.as_uri()


@pytest.mark.parametrize(
    ("words", "environ", "said"),
    [
        ([], {}, "name the model: canarium serve MODEL.onnx"),
        (["nope.onnx"], {}, "nope.onnx: no such file"),
        (["pvc://claim/m.onnx"], {}, "a volume in a cluster: give the path"),
        (["m.onnx", "--port", "http"], {}, "--port: "),
        (["m.onnx", "--max-delay", "5"], {}, "--max-delay: "),
        (["m.onnx", "--max-batch-size", "0"], {}, "--max-batch-size: "),
        (["m.onnx", "--format", "gguf"], {}, "--format: "),
        (["m.onnx"], {"CANARIUM_WORKERS": "many"}, "CANARIUM_WORKERS: "),
        (["m.onnx", "--set", "queue_size=0"], {}, "--set queue_size: "),
        (["m.onnx", "--set", "queue"], {}, "write it as KEY=VALUE"),
        (["m.onnx", "--set", "que_size=1"], {}, "no such setting; did you mean queue_size?"),
        (["--config", "nope.yaml"], {}, "--config nope.yaml: No such file"),
        (["--config", "list.yaml"], {}, "expected a ModelDeployment, or settings"),
        (["--config", "broken.yaml"], {}, "broken.yaml: not YAML"),
        (["--config", "wrong.yaml"], {}, "port in wrong.yaml: "),
        (["--config", "deployment.yaml"], {}, "spec.serving.maxBatchSize: "),
        (
            ["m.onnx", "--processes", "2", "--set", "answers_port=9"],
            {},
            "works with one process only",
        ),
    ],
)
def test_what_is_wrong_is_named_as_it_was_written(
    model: Path, words: list[str], environ: dict[str, str], said: str
) -> None:
    """By flag, variable or place in a file, and with a remedy."""
    model.rename("m.onnx")
    Path("list.yaml").write_text("[1, 2]")
    Path("broken.yaml").write_text("a: [")
    Path("wrong.yaml").write_text("model_uri: m.onnx\nport: 99999999\n")
    Path("deployment.yaml").write_text(MANIFEST.replace("maxBatchSize: 8", "maxBatchSize: 0"))
    with pytest.raises(UsageError) as raised:
        read(*words, **environ)
    assert said in str(raised.value)


def test_wrong_usage_ends_with_2_and_one_line(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback."""
    assert main(["serve", "nope.onnx"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_library_is_named_with_its_remedy(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "onnxruntime" else found(n)
    )
    assert main(["serve", str(model)]) == 2
    said = capsys.readouterr().err
    assert "'onnxruntime' is missing: pip install 'canarium[runtime,onnx]'" in said


def test_a_taken_port_is_named_with_its_remedy(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the model is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert main(["serve", str(model), "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1 is in use by another program" in said
    assert "--port" in said


def test_a_port_for_root_is_explained(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tests may run as root, so the system's answer is played."""

    def refuse(_self: socket.socket, _address: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert main(["serve", str(model), "--port", "80"]) == 2
    assert "choose one above 1023 with --port" in capsys.readouterr().err


def tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


@pytest.mark.parametrize(
    ("inputs", "values"),
    [
        ([tensor("x", "FP32", -1, 3)], {"x": [[0, 0, 0]]}),
        ([tensor("x", "FP32")], {"x": 0}),
        (
            [tensor("it's", "BYTES", -1), tensor("flag", "BOOL", -1, 1)],
            {"it's": ["text"], "flag": [[False]]},
        ),
    ],
)
def test_the_example_can_be_pasted(inputs: list[dict[str, Any]], values: dict[str, Any]) -> None:
    """A shell gives curl a body of the model's shape."""
    words = shlex.split(serve.example("http://h:1", inputs)[1])
    assert words[:2] == ["curl", "http://h:1/predict"]
    assert json.loads(words[-1]) == {"inputs": values}


def test_an_example_that_would_be_long_is_described() -> None:
    """An image has too many numbers to be pasted."""
    lines = serve.example("http://h:1", [tensor("image", "FP32", -1, 3, 224, 224)])
    assert lines == [
        "It takes image FP32 [-1, 3, 224, 224]: see http://h:1/docs for how to send that."
    ]
