"""The command line on a real cluster: what it shows, how a watch ends, a way back, few rights, kubectl's plugin."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import blocks
from tests.e2e import models
from tests.e2e.conftest import ROOT, World, quick_rollout
from tests.e2e.kube import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

STEPS = [{"weight": 20, "pause": "1s", "approval": True}, {"weight": 60, "pause": "1h"}]
Done = subprocess.CompletedProcess[str]


def cli(world: World, *words: str, kubeconfig: str = "") -> Done:
    """Run `canarium WORDS` as a user of the cluster does."""
    return subprocess.run(
        [sys.executable, "-m", "canarium_cli", *words],
        env={**os.environ, "KUBECONFIG": kubeconfig or world.kubectl.kubeconfig, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def following(world: World, target: str) -> Iterator[subprocess.Popen[str]]:
    """Run `canarium watch --until never` beside, and end it with Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "canarium_cli", "watch", target, "--until", "never"],
        env={**os.environ, "KUBECONFIG": world.kubectl.kubeconfig},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def by_time(**parts: Any) -> dict[str, Any]:
    """Settings of a rollout that people and time alone decide, and after which the old version stays for a while."""
    settings = {"canary": {"steps": STEPS}, "analysis": {"metrics": []}, "scaleDownDelay": "2m"}
    return quick_rollout(**{**settings, **parts})


def cells(text: str) -> list[list[str]]:
    """Cells of a table, without the last column (AGE)."""
    return [re.split(r" {2,}", line.strip())[:-1] for line in text.splitlines()]


def test_a_rollout_is_followed_approved_and_undone(world: World) -> None:
    """As the how-to says: to the approval, to the promotion, and back at once."""
    target = f"{world.namespace}/{world.name}"
    world.deploy("1", models.good(1))
    done = cli(world, "watch", target, "--timeout", "90s")
    assert done.returncode == 0, done.stdout + done.stderr

    with following(world, target) as watching:
        assert watching.stdout is not None
        assert "Promoted" in watching.stdout.readline()
        world.deploy("2", models.good(2), rollout=by_time())
        told = next(line for line in watching.stdout if "StepStarted" in line)
        assert "step 1/3: 20% of the traffic goes to v2@" in told
    assert watching.returncode == 130
    done = cli(world, "watch", target, "--until", "paused", "--timeout", "90s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.startswith("reached: ")

    where = ("-n", world.namespace)
    shown = cells(cli(world, "get", *where).stdout)
    assert shown == cells(world.kubectl.run("get", "mdep", *where))
    assert shown[1][2] == "Paused"

    story = cli(world, "describe", target).stdout
    wait_for("Events", lambda: "ApprovalNeeded" in cli(world, "describe", target).stdout, 20)
    for pod in world.kubectl.list("pods", world.namespace):
        assert pod["metadata"]["name"] in story
    for words in ("Rollout", "AwaitingApproval", "Conditions", "History"):
        assert words in story

    logs = cli(world, "logs", target, "--since", "10m").stdout
    assert {line.split()[0] for line in logs.splitlines() if " | " in line} == {"stable", "canary"}

    assert cli(world, "approve", target).returncode == 0
    done = cli(world, "watch", target, "--until", "step=2", "-o", "json", "--timeout", "90s")
    assert done.returncode == 0, done.stderr
    assert all(json.loads(line)["reason"] for line in done.stdout.splitlines())
    assert cli(world, "promote", target).returncode == 0
    world.wait("version 2", lambda s: s["stable"]["modelVersion"] == "2", 60)
    assert "Promoted" in cli(world, "history", target).stdout

    done = cli(world, "undo", target)
    assert done.returncode == 0, done.stderr
    assert "at once, without steps" in done.stdout
    done = cli(world, "undo", target, "--apply", "--yes")
    assert done.returncode == 0, done.stderr
    status = world.wait("version 1 again", lambda s: s["stable"]["modelVersion"] == "1", 60)
    assert status["history"][0]["revision"] == status["stable"]["revision"]


def test_a_version_that_is_aborted_ends_the_watch_with_1(world: World) -> None:
    """Once its traffic and its pods are gone."""
    target = f"{world.namespace}/{world.name}"
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    world.deploy("2", models.good(2), rollout=by_time(scaleDownDelay="3s"))
    world.wait("approval", lambda s: s["phase"] == "Paused")
    done = cli(world, "undo", target, "--yes", "-m", "ticket 7")
    assert done.returncode == 0, done.stderr
    done = cli(world, "watch", target, "--timeout", "60s")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "aborted by" in done.stderr
    done = cli(world, "watch", f"{world.namespace}/freud")
    assert done.returncode == 4
    assert "did you mean fraud?" in done.stderr


def as_account(world: World, role: dict[str, Any], folder: Path) -> str:
    """Bind a Role to a new service account, and write a kubeconfig of its own; gives the path."""
    name = role["metadata"]["name"]
    role = {**role, "metadata": {"name": name, "namespace": world.namespace}}
    account = {"kind": "ServiceAccount", "name": name, "namespace": world.namespace}
    group = "rbac.authorization.k8s.io"
    world.kubectl.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": role["metadata"]},
        role,
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": role["metadata"],
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [account],
        },
    )
    token = world.kubectl.run("create", "token", name, "-n", world.namespace).strip()
    config = yaml.safe_load(Path(world.kubectl.kubeconfig).read_text())
    config["users"] = [{"name": name, "user": {"token": token}}]
    for context in config["contexts"]:
        context["context"] |= {"user": name, "namespace": world.namespace}
    path = folder / name
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return str(path)


def test_the_roles_of_the_reference_are_enough_and_no_more(world: World, tmp_path: Path) -> None:
    """A viewer sees everything and may do nothing; an approver acts, and is told what is not shown."""
    page = ROOT / "docs" / "reference" / "cli.md"
    roles = [yaml.safe_load(block.body) for block in blocks("yaml") if block.page == page]
    viewer, approver = (as_account(world, role, tmp_path) for role in roles)
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    world.deploy("2", models.good(2), rollout=by_time())

    done = cli(world, "watch", "fraud", "--until", "paused", "--timeout", "90s", kubeconfig=viewer)
    assert done.returncode == 0, done.stderr
    for words in (("get",), ("describe", "fraud"), ("history", "fraud"), ("logs", "fraud")):
        done = cli(world, *words, kubeconfig=viewer)
        assert (words, done.returncode, done.stderr) == (words, 0, "")
        assert "note:" not in done.stdout
    done = cli(world, "abort", "fraud", kubeconfig=viewer)
    assert done.returncode == 1
    assert "missing: the verb patch on modeldeployments.canarium.dev" in done.stderr
    done = cli(world, "get", "-A", kubeconfig=viewer)
    assert (
        "missing: the verb list on modeldeployments.canarium.dev in all namespaces" in done.stderr
    )

    done = cli(world, "approve", "fraud", kubeconfig=approver)
    assert done.returncode == 0, done.stderr
    assert f"system:serviceaccount:{world.namespace}:canarium-approver" in done.stdout
    done = cli(world, "describe", "fraud", kubeconfig=approver)
    assert done.returncode == 0, done.stderr
    assert "note: pods are not shown" in done.stdout
    done = cli(
        world, "watch", "fraud", "--until", "step=2", "--timeout", "90s", kubeconfig=approver
    )
    assert done.returncode == 0, done.stderr  # without the right to watch


def test_it_is_a_plugin_of_kubectl_with_completion(world: World, tmp_path: Path) -> None:
    """Kubectl finds both executables on the PATH; here they are what the package installs, written out."""
    scripts = {"kubectl-canarium": "main", "kubectl_complete-canarium": "complete"}
    for name, function in scripts.items():
        code = f"import sys; from canarium_cli.__main__ import {function}; sys.exit({function}())"
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\n{code}\n")
        path.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "KUBECONFIG": world.kubectl.kubeconfig,
    }
    world.kubectl.apply(world.manifest("1", "0" * 64))

    def kubectl(*words: str) -> Done:
        command = [world.kubectl.binary, *words]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    done = kubectl("canarium", "get", "-n", world.namespace, "-o", "name")
    assert done.stdout == "modeldeployment.canarium.dev/fraud\n", done.stderr
    done = kubectl("canarium", "describe", "-n", world.namespace, "fruad")
    assert done.stderr.startswith("kubectl canarium describe: ModelDeployment")
    done = kubectl("__complete", "canarium", "describe", "-n", world.namespace, "")
    assert done.stdout.splitlines() == ["fraud", ":4"], done.stderr
