"""`canarium serve` as a process: at a terminal, and where logs are collected."""

import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.runtime.servers import REPOSITORY, free_port

from canarium_runtime.testing import linear_model

PACKAGES = os.pathsep.join(str(REPOSITORY / part) for part in ("api", "runtime", "operator", "cli"))


class Terminal:
    """A command whose output and keyboard are a terminal."""

    def __init__(self, *words: str) -> None:
        self.seen = ""
        self._screen, keyboard = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "canarium_cli", "serve", *words],
            stdin=keyboard,
            stdout=keyboard,
            stderr=keyboard,
            env={**os.environ, "PYTHONPATH": PACKAGES},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(keyboard)

    def wait_for(self, text: str) -> None:
        """Until it has written this."""
        deadline = time.monotonic() + 60
        while text not in self.seen:
            ready, _, _ = select.select([self._screen], [], [], 1)
            try:
                self.seen += os.read(self._screen, 65536).decode() if ready else ""
            except OSError:  # it has closed the terminal
                pytest.fail(self.seen)
            assert time.monotonic() < deadline, self.seen

    def press_ctrl_c(self) -> None:
        """As a person does: the terminal signals all processes in front."""
        os.write(self._screen, b"\x03")

    def rest(self) -> str:
        """Everything that it still writes until it ends."""
        try:
            while more := os.read(self._screen, 65536):
                self.seen += more.decode()
        except OSError:
            pass
        return self.seen

    def close(self) -> None:
        """End it, however it stands."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._screen)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture(params=["1", "2"])
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    model = linear_model(tmp_path / "model.onnx")
    made = Terminal(str(model), "--port", str(free_port()), "--processes", request.param)
    yield made
    made.close()


def test_a_person_sees_where_it_is_and_how_to_ask_it(terminal: Terminal) -> None:
    """The lines name the doors; the example works as it is; Ctrl-C ends it at once, with 0 and without a traceback."""
    terminal.wait_for("curl ")
    terminal.wait_for("}'")
    for door in ("/predict", "/v2/models/model/infer", "/docs", "/health", "/metrics"):
        assert door in terminal.seen
    assert "Only this machine reaches it; --host 0.0.0.0 lets others in." in terminal.seen
    command = next(line for line in terminal.seen.splitlines() if "curl " in line).strip()
    answer = subprocess.run(
        ["curl", "--silent", "--noproxy", "*", *shlex.split(command)[1:]],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert "outputs" in json.loads(answer.stdout)
    terminal.press_ctrl_c()
    assert terminal.process.wait(timeout=60) == 0
    assert "Traceback" not in terminal.rest()
    assert "{" not in terminal.seen.partition("Try it:")[0]  # no JSON for people


def test_ctrl_c_before_it_is_ready_ends_it_quietly(terminal: Terminal) -> None:
    """While libraries and the model are still being loaded."""
    terminal.wait_for("Ctrl-C stops")
    terminal.press_ctrl_c()
    assert terminal.process.wait(timeout=60) in {0, 130}
    assert "Traceback" not in terminal.rest()


def test_logs_are_json_where_nobody_looks(tmp_path: Path) -> None:
    """One entry names the doors."""
    port = free_port()
    model = linear_model(tmp_path / "model.onnx")
    with subprocess.Popen(
        [sys.executable, "-m", "canarium_cli", "serve", str(model), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": PACKAGES},
    ) as process:
        assert process.stdout is not None
        entries = (json.loads(line) for line in process.stdout)
        doors = next(entry["doors"] for entry in entries if "doors" in entry)
        assert doors["docs"] == f"http://127.0.0.1:{port}/docs"
        process.send_signal(signal.SIGTERM)
        for _ in entries:
            pass
        assert process.wait(timeout=60) == 0


def test_naming_the_commands_loads_no_library() -> None:
    """`canarium --help` stays quick."""
    code = (
        "import sys, canarium_cli.__main__ as c; c.main(['--help']); import canarium_cli.serve;"
        "print([m for m in ('fastapi', 'uvicorn', 'numpy', 'typer', 'kubernetes') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": PACKAGES}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "[]"
