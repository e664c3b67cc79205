"""Canarium's server and MLServer, interleaved, on model T: CPU time a request, latency, throughput.

See README.md beside this file. Standard library only; it makes the environments that the servers need.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from urllib.error import URLError

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BUILD = REPOSITORY / "build" / "bench"
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
OURS_REQUIREMENTS = [f"{REPOSITORY}[runtime,onnx]", "scikit-learn>=1.5", "skl2onnx>=1.18"]
MLSERVER_REQUIREMENTS = ["mlserver>=1.7", "onnxruntime>=1.20"]
GOAL = 0.2

WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '%s'
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %%d, "seconds": %%f, "errors": %%d, "p50_ms": %%f, "p99_ms": %%f}\\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True)
class Contender:
    """A running server."""

    name: str
    pid: int
    url: str


@dataclass(frozen=True)
class Sample:
    """One run of wrk against one server."""

    cpu_us: float
    requests_per_second: float
    p50_ms: float
    p99_ms: float


def environment(name: str, requirements: list[str]) -> Path:
    """Python of a virtual environment with these requirements; made once."""
    python = BUILD / name / "bin" / "python"
    stamp = BUILD / name / "requirements.json"
    wanted = json.dumps(requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"making the environment {name} (a minute or two) ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", BUILD / name], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        stamp.write_text(wanted)
    return python


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def server(
    name: str, command: list[str | Path], env: dict[str, str], base: str, model: str
) -> Iterator[Contender]:
    """Run a server until the block ends."""
    with (BUILD / f"{name.replace(' ', '-')}.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **env}, stdout=log, stderr=log, cwd=BUILD
        )
        try:
            _wait_ready(process, f"{base}/v2/health/ready", name)
            yield Contender(name, process.pid, f"{base}/v2/models/{model}/infer")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_ready(process: subprocess.Popen[bytes], url: str, name: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    sys.exit(f"{name} did not become ready: see {BUILD}")


def canarium(python: Path, model: Path) -> tuple[list[str | Path], dict[str, str], str]:
    """Command, environment and address of our server, with its defaults."""
    port = free_port()
    env = {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "api"), str(REPOSITORY / "runtime")]),
        "CANARIUM_MODEL_URI": model.as_uri(),
        "CANARIUM_MODEL_NAME": "t",
        "CANARIUM_HOST": "127.0.0.1",
        "CANARIUM_PORT": str(port),
        "CANARIUM_TERMINATION_LOG": str(BUILD / "termination-log"),
    }
    return [python, "-m", "canarium_runtime"], env, f"http://127.0.0.1:{port}"


def mlserver(
    python: Path, model: Path, batching: bool
) -> tuple[list[str | Path], dict[str, str], str]:
    """Command, environment and address of MLServer in one process."""
    folder = BUILD / ("mlserver-batching" if batching else "mlserver-plain")
    folder.mkdir(exist_ok=True)
    shutil.copy(HERE / "mlserver_model.py", folder)
    port = free_port()
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,
    }
    model_settings = {
        "name": "t",
        "implementation": "mlserver_model.OnnxModel",
        "parameters": {"uri": str(model), "version": "1"},
        **({"max_batch_size": 32, "max_batch_time": 0.003} if batching else {}),
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model_settings))
    return (
        [python.parent / "mlserver", "start", folder],
        {"PYTHONPATH": str(folder)},
        f"http://127.0.0.1:{port}",
    )


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its descendants, the ended ones too."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        number = int(path.parent.name)
        children.setdefault(int(fields[1]), []).append(number)
        ticks[number] = sum(map(int, fields[11:15]))
    total, todo = 0, [pid]
    while todo:
        number = todo.pop()
        total += ticks.get(number, 0)
        todo += children.get(number, [])
    return total / CLOCK_TICKS


def measure(contender: Contender, script: Path, connections: int, seconds: int) -> Sample:
    """Load one server and read its CPU time before and after."""
    before = cpu_seconds(contender.pid)
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, contender.url],
        check=True,
        capture_output=True,
        text=True,
    )
    used = cpu_seconds(contender.pid) - before
    result = json.loads(done.stdout.partition("RESULT ")[2].splitlines()[0])
    if result["errors"] or not result["requests"]:
        sys.exit(f"{contender.name} did not answer every request: {result}")
    return Sample(
        cpu_us=used / result["requests"] * 1e6,
        requests_per_second=result["requests"] / result["seconds"],
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
    )


def summarise(loaded: list[Sample], lone: list[Sample]) -> dict[str, float]:
    """Medians over the rounds."""
    return {
        "cpu_us": median(s.cpu_us for s in loaded),
        "cpu_us_min": min(s.cpu_us for s in loaded),
        "cpu_us_max": max(s.cpu_us for s in loaded),
        "requests_per_second": median(s.requests_per_second for s in loaded),
        "p50_ms": median(s.p50_ms for s in loaded),
        "p99_ms": median(s.p99_ms for s in loaded),
        "lone_p50_ms": median(s.p50_ms for s in lone),
        "lone_cpu_us": median(s.cpu_us for s in lone),
    }


def run(options: argparse.Namespace) -> dict[str, object]:
    """Run all rounds; the result as it is written."""
    BUILD.mkdir(parents=True, exist_ok=True)
    ours, theirs = (
        environment("ours", OURS_REQUIREMENTS),
        environment("mlserver", MLSERVER_REQUIREMENTS),
    )
    model, script = BUILD / "model-t.onnx", BUILD / "infer.lua"
    subprocess.run([ours, HERE / "make_model_t.py", model], check=True)
    row = [round(0.1 * i - 1.5, 2) for i in range(30)]
    body = {"inputs": [{"name": "X", "shape": [1, 30], "datatype": "FP32", "data": row}]}
    script.write_text(WRK_SCRIPT % json.dumps(body))
    loaded: dict[str, list[Sample]] = {}
    lone: dict[str, list[Sample]] = {}
    with ExitStack() as stack:
        contenders = [
            stack.enter_context(server(name, *parts, model="t"))
            for name, parts in (
                ("canarium", canarium(ours, model)),
                ("mlserver", mlserver(theirs, model, batching=False)),
                ("mlserver batching", mlserver(theirs, model, batching=True)),
            )
        ]
        for contender in contenders:
            measure(contender, script, options.connections, 2)
        for number in range(options.rounds):
            for contender in contenders:
                sample = measure(contender, script, options.connections, options.seconds)
                loaded.setdefault(contender.name, []).append(sample)
                lone.setdefault(contender.name, []).append(
                    measure(contender, script, 1, options.lone_seconds)
                )
                print(
                    f"round {number + 1}  {contender.name:18} {sample.cpu_us:7.1f} us of CPU a request",
                    flush=True,
                )
    summary = {name: summarise(loaded[name], lone[name]) for name in loaded}
    best = min(summary["mlserver"]["cpu_us"], summary["mlserver batching"]["cpu_us"])
    return {
        "model": "T: logistic regression, 30 features, ONNX",
        "connections": options.connections,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "summary": summary,
        "cpu_ratio_to_best_mlserver": summary["canarium"]["cpu_us"] / best,
        "samples": {name: [asdict(s) for s in samples] for name, samples in loaded.items()},
    }


def show(result: dict[str, object]) -> None:
    """Print the table."""
    summary = result["summary"]
    assert isinstance(summary, dict)
    print(
        f"\n{'':18} {'CPU us/request':>22} {'req/s':>8} {'p50 ms':>7} {'p99 ms':>7} {'lone p50 ms':>12}"
    )
    for name, row in summary.items():
        spread = f"{row['cpu_us']:.1f} ({row['cpu_us_min']:.1f} to {row['cpu_us_max']:.1f})"
        print(
            f"{name:18} {spread:>22} {row['requests_per_second']:>8.0f} {row['p50_ms']:>7.2f} "
            f"{row['p99_ms']:>7.2f} {row['lone_p50_ms']:>12.3f}"
        )
    print(
        f"\nCPU time to the better MLServer: {result['cpu_ratio_to_best_mlserver']:.3f} (goal: at most {GOAL})"
    )


def main() -> int:
    """Run and report; 1 when the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of load in each round")
    parser.add_argument(
        "--lone-seconds", type=int, default=2, help="with one connection in each round"
    )
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--output", type=Path, default=BUILD / "runtime.json")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit(
            "wrk is not installed: apt-get install wrk (Debian, Ubuntu), brew install wrk, or build it from wg/wrk"
        )
    result = run(options)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    print(f"written to {options.output}")
    ratio = result["cpu_ratio_to_best_mlserver"]
    assert isinstance(ratio, float)
    return 0 if ratio <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
