"""What a running cluster offers: pods, names, a gateway, metrics, and no more rights than needed."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from canarium_devcluster import cluster, launcher, workshop

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CLUSTER = "test-addons"
NAMESPACE = "served"
IMAGE = "canarium.dev/devcluster-test:dev"
PROGRAM = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served = 0

    def do_GET(self):
        Handler.served += 1
        name = os.environ["VERSION"]
        metrics = f"test_served_total {Handler.served}\\n"
        text = metrics if self.path == "/numbers" else name
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def until(what: str, condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not reached in {seconds:.0f} s: {what}"
        time.sleep(0.1)


def deployment(version: str) -> dict[str, Any]:
    container = {
        "name": "app",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "VERSION", "value": version}],
        "ports": [{"containerPort": 8000}, {"containerPort": 8001}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": RESTRICTED,
    }
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8000",
        "prometheus.io/path": "/numbers",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": version, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": version}},
            "template": {
                "metadata": {"labels": {"app": version}, "annotations": annotations},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                },
            },
        },
    }


def service(version: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": version, "namespace": NAMESPACE},
        "spec": {"selector": {"app": version}, "ports": [{"port": 80, "targetPort": 8000}]},
    }


def route(weight_of_two: int) -> dict[str, Any]:
    weights = {"one": 100 - weight_of_two, "two": weight_of_two}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "app", "namespace": NAMESPACE},
        "spec": {
            "parentRefs": [{"name": "public", "namespace": "canarium-gateway"}],
            "hostnames": ["addons.example.com"],
            "rules": [
                {
                    "backendRefs": [
                        {"name": name, "port": 80, "weight": weight}
                        for name, weight in weights.items()
                    ]
                }
            ],
        },
    }


class Running:
    """A cluster with two versions of a small program in it."""

    def __init__(self, mine: cluster.Cluster) -> None:
        self.mine = mine

    def kubectl(self, *arguments: str, stdin: object = None, check: bool = True) -> str:
        done = subprocess.run(
            [self.mine.kubectl, *arguments],
            input=None if stdin is None else json.dumps(stdin),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout + done.stderr

    def apply(self, *documents: dict[str, Any]) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=items)

    def through_gateway(self) -> str | None:
        """Which version answers a request."""
        request = urllib.request.Request(
            f"http://{self.mine.addresses.gateway_ip}/", headers={"Host": "addons.example.com"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError:
            return None

    def ask_prometheus(self, query: str) -> list[dict[str, Any]]:
        url = f"http://{self.mine.addresses.prometheus_ip}:9090/api/v1/query?query={quote(query)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return list(json.load(answer)["data"]["result"])

    def python(self, code: str) -> str:
        """Run code inside a pod."""
        return self.kubectl("exec", "-n", NAMESPACE, "deploy/one", "--", "python3", "-c", code)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    shop = workshop.open_workshop()
    mine = launcher.up(shop, CLUSTER)
    package = tmp_path_factory.mktemp("source") / "served"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(PROGRAM)
    image = shop.python_images.build(
        name=IMAGE, entrypoint=["python3", "-m", "served"], packages=[package]
    )
    launcher.load(shop, mine.name, [image])
    found = Running(mine)
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }
    found.apply(namespace)
    for version in ("one", "two"):
        found.apply(deployment(version), service(version))
    found.kubectl(
        "wait", "-n", NAMESPACE, "--for=condition=Available", "deploy/one", "deploy/two",
        "--timeout=60s",
    )  # fmt: skip
    found.apply(route(0))
    until("the route is served", lambda: found.through_gateway() == "one")
    yield found
    launcher.down(shop, CLUSTER, purge=True)


def test_an_unchanged_image_is_not_loaded_again(running: Running) -> None:
    """Equal content is recognised by its digest."""
    shop = workshop.open_workshop()
    image = shop.component_image("coredns")
    assert launcher.load(shop, running.mine.name, [image]) == []


def test_the_gateway_has_an_address_in_its_status(running: Running) -> None:
    """It is Programmed, and the address is the one that `up` prints."""
    gateway = json.loads(
        running.kubectl("get", "gateway", "public", "-n", "canarium-gateway", "-o", "json")
    )
    conditions = {c["type"]: c["status"] for c in gateway["status"]["conditions"]}
    assert conditions["Programmed"] == "True"
    addresses = [a["value"] for a in gateway["status"]["addresses"]]
    assert addresses == [running.mine.addresses.gateway_ip]


@pytest.mark.parametrize("weight", [10, 50, 100])
def test_the_gateway_follows_weights(running: Running, weight: int) -> None:
    """The shares of 200 requests are those of the route, within four standard deviations."""
    running.apply(route(weight))
    slack = 4 * (200 * weight / 100 * (1 - weight / 100)) ** 0.5

    def as_wanted() -> bool:
        seen = Counter(running.through_gateway() for _ in range(200))
        assert seen[None] == 0, "a request failed"
        return abs(seen["two"] - 2 * weight) <= slack

    until(f"two gets {weight} %", as_wanted)


def test_names_are_resolved_in_pods(running: Running) -> None:
    """Short, with namespace, and in full; through the Service, also to the pod itself."""
    names = ["one", f"two.{NAMESPACE}", "kubernetes.default.svc.cluster.local"]
    running.python(f"import socket; [socket.gethostbyname(n) for n in {names}]")
    code = "import urllib.request as u; print({u.urlopen('http://one').read() for _ in range(5)})"
    assert "one" in running.python(code)


def test_pods_reach_this_machine(running: Running) -> None:
    """Tests and the demo serve models to pods from the machine."""
    host = running.mine.addresses.host_ip
    server = subprocess.Popen(
        [sys.executable, "-m", "http.server", "18733", "--bind", host, "-d", "/var/empty"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        code = f"import socket; socket.create_connection(('{host}', 18733), 3)"
        until(
            "the pod connects",
            lambda: "Error" not in running.kubectl(
                "exec", "-n", NAMESPACE, "deploy/one", "--", "python3", "-c", code, check=False
            ) and server.poll() is None,
            seconds=20,
        )  # fmt: skip
    finally:
        server.terminate()
        server.wait(10)


def test_pods_are_confined(running: Running) -> None:
    """Not root, no capabilities, seccomp on, and a root that cannot be written."""
    status = running.python("print(open('/proc/self/status').read())")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] == "65532"
    assert int(fields["CapEff"], 16) == 0
    assert fields["Seccomp"] == "2"
    assert fields["NoNewPrivs"] == "1"
    write = ["exec", "-n", NAMESPACE, "deploy/one", "--", "sh", "-c", "echo > /app/x"]
    assert "Read-only file system" in running.kubectl(*write, check=False)


def test_a_root_pod_is_refused_in_a_restricted_namespace(running: Running) -> None:
    """Pod Security admission is on."""
    answer = running.kubectl(
        "run", "root", "-n", NAMESPACE, f"--image={IMAGE}", "--dry-run=server", check=False
    )
    assert "violates PodSecurity" in answer


def test_prometheus_finds_annotated_pods_once(running: Running) -> None:
    """By port and path of the annotations, with namespace and pod as labels."""
    query = f'test_served_total{{namespace="{NAMESPACE}"}}'
    until("both are scraped", lambda: len(running.ask_prometheus(query)) == 2, seconds=30)
    pods = running.kubectl("get", "pods", "-n", NAMESPACE, "-o", "name").split()
    seen = {f"pod/{series['metric']['pod']}" for series in running.ask_prometheus(query)}
    assert seen == set(pods)


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("list", "pods", "yes"),
        ("watch", "pods", "yes"),
        ("delete", "pods", "no"),
        ("list", "secrets", "no"),
        ("list", "nodes", "no"),
        ("list", "services", "no"),
        ("get", "nodes --subresource=metrics", "no"),
        ("get", "pods --subresource=log", "no"),
    ],
)
def test_prometheus_may_only_look_at_pods(
    running: Running, verb: str, resource: str, allowed: str
) -> None:
    """Least privilege, asked of the API server itself."""
    who = "--as=system:serviceaccount:monitoring:prometheus"
    answer = running.kubectl("auth", "can-i", verb, *resource.split(), "-A", who, check=False)
    assert answer.split()[-1] == allowed


def test_metrics_of_pods_are_there(running: Running) -> None:
    """`kubectl top`, and so autoscaling by CPU and memory, works."""
    until(
        "kubectl top shows the pod",
        lambda: "one-" in running.kubectl("top", "pods", "-n", NAMESPACE, check=False),
        seconds=90,
    )


def test_an_image_that_is_not_loaded_fails_at_once(running: Running) -> None:
    """The node does not wait for name servers that it cannot reach."""
    pod = deployment("one")["spec"]["template"]["spec"]
    pod["containers"][0] |= {"image": "example.com/missing:1", "name": "missing"}
    running.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "missing", "namespace": NAMESPACE},
            "spec": pod,
        }
    )
    until(
        "the pull failed",
        lambda: "ImagePull" in running.kubectl("get", "pod", "missing", "-n", NAMESPACE),
        seconds=10,
    )


def test_the_state_directory_is_private(running: Running) -> None:
    """Keys and Secrets are below it."""
    assert running.mine.directory.stat().st_mode & 0o077 == 0
    assert Path(running.mine.kubeconfig).stat().st_mode & 0o077 == 0
