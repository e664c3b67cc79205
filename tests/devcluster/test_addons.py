"""What a running cluster offers: pods, names, a gateway, metrics, and no more rights than needed."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from canarium_devcluster import launcher, workshop

from .served import IMAGE, NAMESPACE, Running, deployment, start, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CLUSTER = "test-addons"
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


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    shop = workshop.open_workshop()
    mine = launcher.up(shop, CLUSTER)
    found = start(mine, PROGRAM, tmp_path_factory.mktemp("source"))
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
