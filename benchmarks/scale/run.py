"""One operator and very many ModelDeployments: `make bench-scale`, or `python -m benchmarks.scale.run --objects 200`.

Real: API server, etcd, scheduler, controllers, the operator as a process. Not there: pods (kwok says that they are
ready) and a data plane (`gateway.py` accepts routes). Prometheus is not asked, since without requests there is nothing
to ask.

Printed, as a table and with --json: time, CPU time and memory of the operator, its requests to the API server, and by
how much steps were late. The scenarios, in this order:

- converge   all objects from nothing until each is Ready
- rest       a minute in which nothing happens
- rollouts   a number of objects get a new version at once: 20 %, 10 s, 50 %, 10 s, then all, as in the figures of
             Argo Rollouts 1.10.1 on such a control plane (docs/reference/measurements.md)
- restart    the operator is killed and started, until it has looked at every object once
"""

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from kubernetes.aio.client import ApiClient

from benchmarks.scale import kwok
from benchmarks.scale.gateway import call, watch
from canarium_devcluster import launcher
from canarium_devcluster.workshop import Workshop, open_workshop
from canarium_operator.adapters.kubernetes_connection import connect

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build" / "bench-scale"
CLUSTER: Final = "bench-scale"
NAMESPACE: Final = "scale"
PAUSE: Final = 10.0
STEPS: Final = (20, 50)
MDEPS: Final = f"/apis/canarium.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments"
CONTROLLER_FLAGS: Final = (
    # The default of 20 requests a second for each controller would be what is measured, and so would be autoscalers
    # that look at pods which do nothing: ours look every five seconds, those of Kubernetes every fifteen.
    "--kube-api-qps=300",
    "--kube-api-burst=600",
    "--horizontal-pod-autoscaler-sync-period=120s",
)
TICKS: Final = os.sysconf("SC_CLK_TCK")
_REQUESTS: Final = re.compile(
    r'canarium_kubernetes_requests_total\{resource="([^"]*)",verb="([^"]*)"\} (\S+)'
)
_PASSES: Final = re.compile(r'canarium_reconciles_total\{outcome="([^"]*)"\} (\S+)')


@dataclass(frozen=True)
class Usage:
    """What the operator has used since it began."""

    at: float
    cpu: float
    """Seconds."""
    resident: float
    """MB."""
    requests: Counter[str]
    passes: float


@dataclass
class Result:
    """One scenario."""

    scenario: str
    objects: int
    seconds: float
    cpu_seconds: float
    resident_mb: float
    requests: int
    passes: int
    by_kind: dict[str, int]
    notes: dict[str, Any] = field(default_factory=dict)


class Operator:
    """The operator as a process of this machine."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self._kubeconfig = kubeconfig
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> None:
        """Start it."""
        self.port = free_port()
        environment = {
            **os.environ,
            "CANARIUM_PROMETHEUS_URL": "http://127.0.0.1:9",
            "CANARIUM_METRICS_PORT": str(self.port),
            "CANARIUM_HEALTH_PORT": str(free_port()),
        }
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "canarium_operator", "--kubeconfig"]
            self.process = subprocess.Popen(
                [*command, str(self._kubeconfig)], stdout=log, stderr=log, env=environment
            )

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=30)
            self.process = None

    def usage(self) -> Usage:
        """Read what it has used so far."""
        assert self.process is not None
        text = scrape(self.port)
        requests: Counter[str] = Counter()
        for resource, verb, count in _REQUESTS.findall(text):
            requests[f"{verb} {resource}"] = int(float(count))
        passes = sum(float(count) for _, count in _PASSES.findall(text))
        return usage_of(self.process.pid, requests, passes)

    def await_passes(self, count: int) -> Usage:
        """Wait until it has looked so many times."""
        while (usage := self.usage()).passes < count:
            time.sleep(0.5)
        return usage


def usage_of(pid: int, requests: Counter[str], passes: float) -> Usage:
    """Read what a process has used so far."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert resident is not None
    return Usage(
        at=time.monotonic(),
        cpu=(int(stat[11]) + int(stat[12])) / TICKS,
        resident=int(resident[1]) / 1000,
        requests=requests,
        passes=passes,
    )


def scrape(port: int) -> str:
    """Read the metrics of a process, waiting until it offers them."""
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                return str(answer.read().decode())
        except OSError:
            time.sleep(0.1)
    msg = f"nothing answers at port {port}; see {BUILD}"
    raise RuntimeError(msg)


def free_port() -> int:
    """Find a port of loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def manifest(number: int, version: str) -> dict[str, Any]:
    """Make one ModelDeployment of two pods."""
    steps = [{"weight": weight, "pause": f"{PAUSE:g}s"} for weight in STEPS]
    return {
        "apiVersion": "canarium.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": f"model-{number:04d}", "namespace": NAMESPACE},
        "spec": {
            "model": {"uri": f"https://models.invalid/{version}.onnx", "version": version},
            "traffic": {"gateway": {"name": "bench", "namespace": NAMESPACE}},
            "autoscaling": {"minReplicas": 2, "maxReplicas": 4},
            "serving": {
                "nodeSelector": {"type": "kwok"},
                "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            },
            "rollout": {
                "canary": {"steps": steps},
                "analysis": {"metrics": []},
                "schemaChange": "Allow",  # there is no pod that could tell its model's inputs
                "scaleDownDelay": "5s",
            },
        },
    }


async def apply(api: ApiClient, collection: str, objects: Iterable[dict[str, Any]]) -> None:
    """Apply objects of a collection, some at a time."""
    slots = asyncio.Semaphore(16)

    async def one(body: dict[str, Any]) -> None:
        path = f"{collection}/{body['metadata']['name']}?fieldManager=user&force=true"
        async with slots:
            answer = await call(api, "PATCH", path, body, "application/apply-patch+yaml")
        assert answer["_status"] < 300, answer

    await asyncio.gather(*map(one, objects))


class Objects:
    """All objects of a collection as a watch tells of them: to list them each second would be what is measured."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}

    def take(self, kind: str, body: dict[str, Any]) -> None:
        """Take an event."""
        if kind in ("ADDED", "MODIFIED"):
            self.known[body["metadata"]["name"]] = body

    async def until(
        self, what: str, test: Callable[[dict[str, Any]], bool], count: int, seconds: float
    ) -> None:
        """Wait until so many objects are as wanted, saying how far it is."""
        began, said = time.monotonic(), 0.0
        while True:
            done = sum(map(test, self.known.values()))
            now = time.monotonic() - began
            if now > said + 15 or done >= count:
                said = now
                print(f"  {now:6.1f} s: {done} of {count} {what}", flush=True)
            if done >= count:
                return
            if now > seconds:
                msg = f"only {done} of {count} were {what} within {seconds:.0f} s"
                raise TimeoutError(msg)
            await asyncio.sleep(1.0)


def is_ready(version: str) -> Callable[[dict[str, Any]], bool]:
    """Tell of an object whether a version serves all of it."""

    def test(body: dict[str, Any]) -> bool:
        status = body.get("status") or {}
        if status.get("observedGeneration") != body["metadata"]["generation"]:
            return False
        ready = any(
            c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or []
        )
        return ready and status.get("stable", {}).get("modelVersion") == version

    return test


def result_of(scenario: str, objects: int, before: Usage, after: Usage, **notes: Any) -> Result:
    """Give what a process used in a scenario."""
    kinds = after.requests - before.requests
    return Result(
        scenario=scenario,
        objects=objects,
        seconds=round(after.at - before.at, 1),
        cpu_seconds=round(after.cpu - before.cpu, 2),
        resident_mb=round(after.resident, 1),
        requests=sum(kinds.values()),
        passes=round(after.passes - before.passes),
        by_kind=dict(kinds.most_common()),
        notes=notes,
    )


def transitions(log: Path, since: float) -> dict[str, dict[str, list[float]]]:
    """Read from the operator's log when each object made which transition: object, reason, times."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in log.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        said = re.match(rf"{NAMESPACE}/(\S+): (\w+): ", entry.get("message", ""))
        at = datetime.fromisoformat(entry["time"]).timestamp()
        if said and at >= since:
            found[said[1]][said[2]].append(at)
    return found


def lateness(of: dict[str, dict[str, list[float]]]) -> list[float]:
    """Give for each step with a pause by how many seconds it ended later than that."""
    late = []
    for reasons in of.values():
        starts, ends = reasons["StepStarted"], reasons["StepPassed"]
        late += [
            end - start - PAUSE
            for start, end in zip(starts[: len(STEPS)], ends[: len(STEPS)], strict=False)
        ]
    return sorted(late)


async def measure(options: argparse.Namespace, api: ApiClient, operator: Operator) -> list[Result]:
    """Go through the scenarios."""
    results = []

    def add(result: Result) -> None:
        results.append(result)
        show(result)

    objects, seen = range(options.objects), Objects()
    watching = asyncio.create_task(watch(api, MDEPS, seen.take))
    operator.start()
    before = operator.usage()
    print(f"converge: {options.objects} objects from nothing", flush=True)
    await apply(api, MDEPS, [manifest(n, "1") for n in objects])
    await seen.until("ready", is_ready("1"), options.objects, 3600)
    add(result_of("converge", options.objects, before, operator.usage()))
    print(f"rest: settling for {options.settle:g} s, then {options.rest:g} s", flush=True)
    await asyncio.sleep(options.settle)
    before = operator.usage()
    await asyncio.sleep(options.rest)
    add(result_of("rest", options.objects, before, operator.usage()))
    version = 1
    for count in options.rollouts:
        version += 1
        print(f"rollouts: {count} at once of {options.objects}", flush=True)
        before, began = operator.usage(), time.time()
        await apply(api, MDEPS, [manifest(n, str(version)) for n in range(count)])
        applied = time.time()
        await seen.until("on the new version", is_ready(str(version)), count, 1800)
        made = transitions(operator.log, began)
        promoted = [max(reasons["Promoted"]) for reasons in made.values() if reasons["Promoted"]]
        late = lateness(made)
        assert len(promoted) == count, f"{len(promoted)} promoted, of {count}"
        add(
            result_of(
                "rollouts",
                count,
                before,
                operator.usage(),
                all_applied_after=round(applied - began, 1),
                all_promoted_after=round(max(promoted) - began, 1),
                latest_step_late_by=round(late[-1], 2),
                median_step_late_by=round(late[len(late) // 2], 2),
            )
        )
    print("restart", flush=True)
    operator.end(signal.SIGKILL)
    operator.start()
    before = operator.usage()
    after = operator.await_passes(options.objects)
    zero = Usage(at=before.at, cpu=0.0, resident=0.0, requests=Counter(), passes=0)
    add(result_of("restart", options.objects, zero, after))
    watching.cancel()
    return results


def show(result: Result) -> None:
    """Print one scenario."""
    each = max(result.objects, 1)
    print(
        f"= {result.scenario}: {result.objects} objects, {result.seconds} s, CPU {result.cpu_seconds} s "
        f"({1000 * result.cpu_seconds / each:.1f} ms each, "
        f"{100 * result.cpu_seconds / max(result.seconds, 0.1):.1f} % of a core), {result.resident_mb} MB, "
        f"{result.requests} requests ({result.requests / each:.1f} each), {result.passes} passes",
        flush=True,
    )
    for name, value in result.notes.items():
        print(f"    {name.replace('_', ' ')}: {value}")
    shown = [f"{kind} {count / each:.2f}" for kind, count in result.by_kind.items()]
    print("    requests each: " + ", ".join(shown[:14]), flush=True)


@contextmanager
def world(shop: Workshop, crds: Sequence[Path] = (ROOT / "crds",)) -> Iterator[Path]:
    """Bring a cluster up with a node that there is not, and a gateway that accepts all routes.

    Args:
        shop: builds and starts it.
        crds: files, or folders with a kustomization.
    """
    launcher.up(shop, CLUSTER, fresh=True, controller_flags=CONTROLLER_FLAGS)
    mine = launcher.running(shop, CLUSTER)
    environment = {**os.environ, "KUBECONFIG": str(mine.kubeconfig)}

    def kubectl(*arguments: str, stdin: str = "") -> None:
        subprocess.run(
            [str(mine.kubectl), *arguments], input=stdin.encode(), env=environment, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    try:
        for unneeded in ("canarium-gateway", "monitoring"):
            # There is no traffic and nothing to ask; they would take a tenth of the machine.
            kubectl("scale", "deployment", "--all", "--replicas=0", "-n", unneeded)
        for crd in crds:
            kubectl("apply", "--server-side", "-k" if crd.is_dir() else "-f", str(crd))
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        kubectl("apply", "-f", "-", stdin=json.dumps(space))
        kubectl("apply", "-f", "-", stdin=json.dumps(kwok.node()))
        with ExitStack() as stack:
            stack.enter_context(kwok.running(shop, mine.kubeconfig, BUILD / "kwok.log"))
            command = [sys.executable, "-m", "benchmarks.scale.gateway", "--kubeconfig"]
            with (BUILD / "gateway.log").open("w") as log:
                accepting = subprocess.Popen(
                    [*command, str(mine.kubeconfig)], stdout=log, stderr=log, cwd=ROOT
                )
            stack.callback(accepting.wait)
            stack.callback(accepting.terminate)
            kubectl("wait", "--for=condition=Ready", f"node/{kwok.NODE}", "--timeout=60s")
            yield mine.kubeconfig
    finally:
        launcher.down(shop, CLUSTER, purge=True)


async def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--rollouts", type=int, nargs="*", default=[100, 200], help="at once")
    parser.add_argument("--settle", type=float, default=60.0, help="seconds before the rest")
    parser.add_argument("--rest", type=float, default=60.0, help="seconds")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    shop = open_workshop()
    with world(shop) as kubeconfig:
        log = BUILD / "operator.log"
        log.write_bytes(b"")
        operator = Operator(kubeconfig, log)
        try:
            async with connect(str(kubeconfig)) as api:
                results = await measure(options, api, operator)
        finally:
            operator.end()
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
