"""What a server writes about itself holds: schemathesis asks every operation of a real server's /openapi.json.

It asks with what the page allows and with what it does not; the answers must have a documented status, content type and
schema, and never be the server's fault.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.runtime.servers import Server

from canarium_runtime.testing import linear_model

CHECKS = ",".join(
    (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
        "unsupported_method",
    )
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    uri = linear_model(folder / "model.onnx").as_uri()
    started = Server(folder, uri, model_name="linear", model_version="7", model_control="true")
    started.wait_ready()
    yield started
    started.terminate()
    assert started.exit_code() == 0


@pytest.mark.timeout(120)
def test_the_server_is_what_its_page_says(server: Server, tmp_path: Path) -> None:
    """World: the page; event: some hundred requests made from it; world: nothing that it does not document."""
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{server.url}/openapi.json",
        "--checks", CHECKS,
        "--max-examples", "6",
        "--seed", "7",
        "--phases", "examples,coverage,fuzzing",
        "--generation-database", "none",
        "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    document = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()
    assert re.search(rf"Tested: {len(_operations(document))}\b", done.stdout), done.stdout


def _operations(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(path, method) for path, methods in document["paths"].items() for method in methods]


def test_the_page_names_every_route(server: Server) -> None:
    """Predictions, streams, models, repository, KServe's V1 and health."""
    document = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()
    model = "/v2/models/{name}"
    assert {
        "/predict",
        "/predict/stream",
        f"{model}/infer",
        f"{model}/infer_stream",
        f"{model}/stats",
        f"{model}/config",
        f"{model}/versions/{{model_version}}/stats",
        "/v2/models/stats",
        "/v2/repository/index",
        "/v2/repository/models/{name}/load",
        "/v2/repository/models/{name}/unload",
        "/v1/models/{name}",
        "/v1/models/{name}:predict",
        "/health",
    } <= set(document["paths"])
