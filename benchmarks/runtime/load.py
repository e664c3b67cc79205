"""Load by wrk, and the bodies that it sends. Also one request by hand, to see that the answer is right."""

import json
import shutil
import struct
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http.client import HTTPException
from pathlib import Path
from typing import Any

JSON_HEADERS = {"Content-Type": "application/json"}
DIFFERENT = 256
"""Different requests that wrk sends in turn."""
_TOLERANCE = 1e-3

_SCRIPT = """
wrk.method = "POST"
%(headers)s
local requests, turn = {}, 0
init = function(args)
  local file = io.open(%(bodies)s, "rb")
  for index, length in ipairs({%(lengths)s}) do
    requests[index] = wrk.format(nil, nil, nil, file:read(length))
  end
  file:close()
end
request = function()
  turn = turn %% #requests + 1
  return requests[turn]
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests": %%d, "seconds": %%f, "refused": %%d, "broken": %%d, "p50": %%f, "p95": %%f, "p99": %%f}\\n',
    summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
"""


class Body(StrEnum):
    """How a server wants its rows."""

    V2 = "v2"
    """Open Inference Protocol V2, JSON."""
    V2_BINARY = "v2-binary"
    """The same with the tensor behind the JSON, and wanted back so."""
    ROW = "row"
    """`{"row": [...]}`."""
    ROWS = "rows"
    """`{"rows": [[...]]}`."""


@dataclass(frozen=True)
class Payload:
    """A request."""

    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON_HEADERS))


@dataclass(frozen=True)
class Sample:
    """A model's one sample, and what the model says of it."""

    row: list[float]
    expected: list[float]

    @classmethod
    def read(cls, path: Path) -> "Sample":
        """Read what `models` wrote."""
        return cls(**json.loads(path.read_text()))


@dataclass(frozen=True)
class Load:
    """What one run of wrk found; latencies in milliseconds."""

    requests: int
    seconds: float
    failures: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


def require_wrk() -> None:
    """End with a remedy when wrk is not there."""
    if shutil.which("wrk") is None:
        raise SystemExit(
            "wrk is not installed: apt-get install wrk (Debian, Ubuntu), brew install wrk, or build it from wg/wrk"
        )


def payloads(body: Body, row: list[float], headers: Mapping[str, str]) -> list[Payload]:
    """Make different requests of one size: the row first, then others like it.

    wrk sends them in turn, so a cache with fewer entries never has the next one.
    """
    rows = (
        [round(value * (1 + turn / DIFFERENT), 3) for value in row] for turn in range(DIFFERENT)
    )
    made = (payload(body, one) for one in rows)
    return [Payload(one.body, {**one.headers, **headers}) for one in made]


def payload(body: Body, row: list[float]) -> Payload:
    """Make the request for one row."""
    if body is Body.ROW:
        return Payload(json.dumps({"row": row}).encode())
    if body is Body.ROWS:
        return Payload(json.dumps({"rows": [row]}).encode())
    tensor: dict[str, Any] = {"name": "x", "shape": [1, len(row)], "datatype": "FP32"}
    if body is Body.V2:
        return Payload(json.dumps({"inputs": [{**tensor, "data": row}]}).encode())
    data = struct.pack(f"<{len(row)}f", *row)
    tensor["parameters"] = {"binary_data_size": len(data)}
    wanted = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    head = json.dumps(wanted).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return Payload(head + data, headers)


def ask(url: str, request: Payload, timeout_seconds: float = 10) -> list[float]:
    """Send one request; the numbers of the answer.

    Raises:
        OSError: no connection, or no success.
        ValueError: an answer that cannot be read.
    """
    message = urllib.request.Request(url, request.body, request.headers)
    try:
        with urllib.request.urlopen(message, timeout=timeout_seconds) as response:
            length = response.headers.get("Inference-Header-Content-Length")
            return _numbers(response.read(), length)
    except HTTPException as error:
        # Somebody else's server, who took the port in between: it does not speak HTTP/1.1.
        raise ValueError(f"no HTTP answer: {error!r}") from error


def _numbers(body: bytes, head_length: str | None) -> list[float]:
    """Numbers of an answer of any of the servers."""
    if head_length is not None:
        data = body[int(head_length) :]
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    answer = json.loads(body)
    if isinstance(answer, dict):
        answer = answer["outputs"][0]["data"] if "outputs" in answer else answer["y"]
    while answer and isinstance(answer[0], list):
        (answer,) = answer
    return [float(value) for value in answer]


def is_right(numbers: list[float], sample: Sample) -> bool:
    """Tell whether an answer is the model's, but for rounding."""
    return len(numbers) == len(sample.expected) and all(
        abs(got - wanted) <= _TOLERANCE * max(1, abs(wanted))
        for got, wanted in zip(numbers, sample.expected, strict=True)
    )


def wrk(
    url: str, requests: Sequence[Payload], connections: int, seconds: int, folder: Path
) -> Load:
    """Load a server by that many kept connections, with requests that have the same headers.

    One thread of wrk: on two cores a second one would only take time from the server.

    Raises:
        OSError: wrk cannot reach it.
    """
    bodies, script = folder / "bodies", folder / "wrk.lua"
    bodies.write_bytes(b"".join(request.body for request in requests))
    headers = "\n".join(
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}"
        for name, value in requests[0].headers.items()
    )
    lengths = ",".join(str(len(request.body)) for request in requests)
    values = {"bodies": json.dumps(str(bodies)), "headers": headers, "lengths": lengths}
    script.write_text(_SCRIPT % values)
    # A long timeout: a slow answer is slow, not an error.
    command: list[str | Path] = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    command += ["--timeout", "30s", "-s", script]
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    _, found, result = done.stdout.partition("RESULT ")
    if done.returncode or not found:
        raise OSError(f"wrk: {(done.stderr or done.stdout).strip()[-300:]}")
    said = json.loads(result.splitlines()[0])
    return Load(
        requests=said["requests"],
        seconds=said["seconds"],
        failures=said["refused"] + said["broken"],
        p50_ms=said["p50"],
        p95_ms=said["p95"],
        p99_ms=said["p99"],
    )
