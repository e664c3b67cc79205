"""The server as a process on the loopback."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from canarium_api.runtime_config import LoadFailure

REPOSITORY = Path(__file__).parents[3]


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Server:
    """`python -m canarium_runtime` on a free port of the loopback."""

    def __init__(self, directory: Path, uri: str, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.termination_log = directory / "termination-log"
        self._output = directory / "server.log"
        values = {
            "MODEL_URI": uri,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "DOWNLOAD_DIR": str(directory / "get"),
        }
        values |= {name.upper(): value for name, value in settings.items()}
        environment = {f"CANARIUM_{name}": value for name, value in values.items()}
        python_path = os.pathsep.join([str(REPOSITORY / "api"), str(REPOSITORY / "runtime")])
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "canarium_runtime"],
                env={
                    **os.environ,
                    **environment,
                    "PYTHONPATH": python_path,
                    "CANARIUM_TERMINATION_LOG": str(self.termination_log),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def logs(self) -> list[dict[str, Any]]:
        """Everything that it wrote: JSON objects, nothing else."""
        return [json.loads(line) for line in self._output.read_text().splitlines()]

    def wait_ready(self) -> None:
        """Until it is ready."""
        self.wait_for(lambda: status(self.url + "/v2/health/ready") == 200)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until the condition holds; fails with the log when the process ends or 60 s pass."""
        deadline = time.monotonic() + 60
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(self._output.read_text())
            time.sleep(0.01)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        """Wait for its end."""
        return self.process.wait(timeout=60)

    def failure(self) -> LoadFailure:
        """What it left for the operator."""
        return LoadFailure.model_validate_json(self.termination_log.read_bytes())


def status(url: str) -> int | None:
    """Status of a plain HTTP URL; None: nobody answers. Without httpx, which reads all CAs for each client."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None
