"""Real clusters from up to down: two at once, restarts, killed components, nothing left behind.

These clusters have names of their own, so that one that a developer works with goes on.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from canarium_devcluster import cluster, inspection, launcher, layout, workshop

from . import machine

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

ONE, TWO = "test-one", "test-two"
SECOND_UP_SECONDS = 60
COMPONENTS = (
    "kube-scheduler",
    "kube-controller-manager",
    "kube-proxy",
    "kubelet",
    "containerd",
    "kube-apiserver",
    "etcd",
)


def run(*arguments: str) -> str:
    """The command as a user types it."""
    done = subprocess.run(
        [sys.executable, "-m", "canarium_devcluster", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def status(name: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "canarium_devcluster", "status", "--json", "--name", name],
        capture_output=True,
        text=True,
        check=False,
    )
    return dict(json.loads(done.stdout))


def until(what: str, condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not reached in {seconds:.0f} s: {what}"
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3):
            return True
    except urllib.error.HTTPError:
        return True  # 404: the gateway has no route yet
    except OSError:
        return False


def open_cluster(name: str) -> cluster.Cluster:
    return cluster.get(layout.find().state, name)


def remove(name: str) -> None:
    launcher.down(workshop.open_workshop(), name, purge=True)


def nothing_is_left(before: dict[str, set[str]]) -> None:
    """The kernel frees namespaces a moment after their last process."""
    deadline = time.monotonic() + 15
    while left := machine.left_behind(before, machine.snapshot((ONE, TWO))):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


@pytest.fixture(scope="module")
def before() -> Iterator[dict[str, set[str]]]:
    """The machine before any of the clusters; at the end they are removed in any case."""
    for name in (ONE, TWO):
        remove(name)
    yield machine.snapshot((ONE, TWO))
    for name in (ONE, TWO):
        remove(name)


def test_two_clusters_run_at_once(before: dict[str, set[str]]) -> None:
    """Names and addresses are parameters: each has its own gateway and its own objects."""
    for name in (ONE, TWO):
        run("up", "--name", name)
    found = [status(name) for name in (ONE, TWO)]
    assert all(s["healthy"] for s in found)
    assert found[0]["gateway"] != found[1]["gateway"]
    assert all(answers(s["gateway"]) and answers(f"{s['prometheus']}/-/ready") for s in found)
    subprocess.run([found[0]["kubectl"], "create", "namespace", "only-here"], check=True)
    others = subprocess.run(
        [found[1]["kubectl"], "get", "namespaces", "-o", "name"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "only-here" not in others.stdout


def test_the_machine_shows_a_running_cluster(before: dict[str, set[str]]) -> None:
    """Otherwise the comparison after `down` would prove nothing."""
    there = machine.left_behind(before, machine.snapshot((ONE, TWO)))
    assert there.keys() >= {"processes", "network namespaces", "interfaces", "routes", "cgroups"}
    # The firewall, the mounts and the sysctls of the machine are not touched even then.
    assert there.keys().isdisjoint({"firewall", "mounts", "sysctls"})


def test_up_on_a_running_cluster_changes_nothing(before: dict[str, set[str]]) -> None:
    """Same node, same pods."""
    pid = open_cluster(ONE).node()
    run("up", "--name", ONE)
    assert open_cluster(ONE).node() == pid


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_killed_component_comes_back(before: dict[str, set[str]], component: str) -> None:
    """`kill -9` of any component heals by itself, and no pod is lost."""
    mine = open_cluster(ONE)
    node = mine.node()
    assert node is not None
    old = mine.components()[component]
    (victim,) = (
        outside for outside, inside in inspection.processes(node[0]) if inside == old["pid"]
    )
    os.kill(victim, signal.SIGKILL)

    def restarted() -> bool:
        now = mine.components().get(component, {})
        return now.get("state") == "running" and now["restarts"] > old["restarts"]

    until(f"{component} runs again", restarted)
    until("everything is ready", lambda: status(ONE)["healthy"])
    assert mine.node() == node


def test_logs_are_there_for_every_component(before: dict[str, set[str]]) -> None:
    """With the line that the supervisor writes at each start."""
    for component in COMPONENTS:
        assert "start: [" in run("logs", component, "--name", ONE, "--lines", "1000000")


def test_a_second_up_is_ready_within_a_minute(before: dict[str, set[str]]) -> None:
    """What was in the cluster is still there, and pods are ready anew."""
    run("down", "--name", ONE)
    began = time.monotonic()
    run("up", "--name", ONE)
    assert time.monotonic() - began < SECOND_UP_SECONDS
    kubectl = open_cluster(ONE).kubectl
    subprocess.run([kubectl, "get", "namespace", "only-here"], check=True, capture_output=True)


def test_fresh_forgets_what_was_in_it(before: dict[str, set[str]]) -> None:
    """--fresh starts from an empty cluster with the same addresses and credentials."""
    kubeconfig = Path(run("kubeconfig", "--name", ONE).strip())
    content = kubeconfig.read_text()
    run("up", "--name", ONE, "--fresh")
    assert kubeconfig.read_text() == content
    found = subprocess.run(
        [open_cluster(ONE).kubectl, "get", "namespace", "only-here"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "NotFound" in found.stderr


def test_down_leaves_nothing_behind(before: dict[str, set[str]]) -> None:
    """No process, mount, namespace, interface, route, firewall rule or cgroup."""
    run("down", "--name", ONE)
    run("down", "--name", TWO, "--purge")
    assert not (layout.find().state / TWO).exists()
    nothing_is_left(before)


def test_a_killed_node_leaves_nothing_that_up_cannot_clear(before: dict[str, set[str]]) -> None:
    """`kill -9` of PID 1 ends all of it; the next `up` and `down` clear its traces."""
    run("up", "--name", ONE)
    node = open_cluster(ONE).node()
    assert node is not None
    os.kill(node[0], signal.SIGKILL)
    until("the node is gone", lambda: open_cluster(ONE).node() is None)
    run("up", "--name", ONE)
    assert status(ONE)["healthy"]
    run("down", "--name", ONE, "--purge")
    nothing_is_left(before)
