"""People in the loop on a real cluster: every verb of the command line, a gate, and a notification."""

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

from tests.e2e import models
from tests.e2e.conftest import ROOT, World, quick_rollout
from tests.e2e.kube import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

STEPS = [
    {"weight": 20, "pause": "1s", "approval": True},
    {"weight": 40, "pause": "1h"},
    {"weight": 60, "pause": "1h"},
]


def canarium(world: World, verb: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `canarium VERB` as a user of the cluster does."""
    return subprocess.run(
        [sys.executable, "-m", "canarium_cli", verb, f"{world.namespace}/{world.name}", *options],
        env={**os.environ, "KUBECONFIG": world.kubectl.kubeconfig},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def done(world: World, verb: str, *options: str) -> str:
    """Run a verb that must succeed."""
    found = canarium(world, verb, *options)
    assert found.returncode == 0, found.stderr
    return found.stdout


def by_time(**parts: Any) -> dict[str, Any]:
    """Settings of a rollout that people and time alone decide."""
    return quick_rollout(canary={"steps": STEPS}, analysis={"metrics": []}, **parts)


def test_every_verb_does_what_it_says_and_names_who_did_it(world: World) -> None:
    """Approve, pause, resume, skip, promote; then abort and retry; and a refusal without a rollout."""
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    refused = canarium(world, "approve")
    assert refused.returncode == 1
    assert "no rollout is under way" in refused.stderr

    world.deploy("2", models.good(2), rollout=by_time())
    status = world.wait("approval", lambda s: s["phase"] == "Paused")
    assert "canarium approve" in status["message"]
    assert "approved by" in done(world, "approve", "--message", "ticket 42")
    world.wait("step 2", lambda s: s["rollout"]["step"] == 2 and s["rollout"]["weight"] == 40)
    done(world, "pause")
    assert world.status()["phase"] == "Paused"
    wrong = canarium(world, "skip", "--step", "1")
    assert wrong.returncode == 1
    assert "names step 1, but step 2 is under way" in wrong.stderr
    done(world, "resume")
    assert world.status()["phase"] == "Canary"
    done(world, "skip", "--step", "2")
    world.wait("step 3", lambda s: s["rollout"]["step"] == 3 and s["rollout"]["weight"] == 60)
    done(world, "promote")
    status = world.wait("version 2 stable", lambda s: s["stable"]["modelVersion"] == "2", 60)
    acted = [action["verb"] for action in status["actions"]]
    assert acted == ["approve", "pause", "resume", "skip", "promote"]
    assert "somebody" not in {a["by"] for a in status["actions"]}
    assert "(ticket 42)" in status["actions"][0]["message"]
    assert "approved by" in done(world, "status")
    world.wait_told("ApprovalNeeded", "Approved", "RolloutPaused", "RolloutResumed", "StepSkipped")
    world.wait_told("CommandRefused", "PromotedByUser")


def test_an_aborted_version_stays_away_until_it_is_retried(world: World) -> None:
    """The traffic goes back at once, and the reason is remembered."""
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    with world.traffic() as traffic:
        world.deploy("2", models.good(2), rollout=by_time())
        world.wait("canary", lambda s: (s.get("rollout") or {}).get("weight") == 20)
        done(world, "abort")
        status = world.wait_phase("Aborted")
        assert traffic.failures() == {}, traffic.last_errors
    assert status["failedRevisions"][0]["reason"] == "AbortedByUser"
    assert "aborted by" in status["message"]
    done(world, "retry")
    world.wait("canary again", lambda s: s.get("canary"))


def test_a_freeze_window_and_a_paused_spec_hold_a_rollout(world: World) -> None:
    """Until the one ends and the other is set to false."""
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    always = [{"from": "00:00", "to": "00:00", "reason": "stocktaking"}]
    world.deploy("2", models.good(2), rollout=by_time(freezes=always))
    status = world.wait_phase("Paused")
    assert "a freeze window (stocktaking) lasts until" in status["message"]
    assert status.get("canary") is None
    world.deploy("2", models.good(2), rollout=by_time(paused=True))
    status = world.wait("paused", lambda s: "spec.rollout.paused is true" in s["message"])
    approved = [{"version": "2", "by": "alice"}]
    world.deploy("2", models.good(2), rollout=by_time(approvals=approved))
    world.wait("step 2, approved in git", lambda s: (s.get("rollout") or {}).get("step") == 2)


def test_the_policy_of_the_example_holds_people_to_their_own_names(world: World) -> None:
    """And approvers to commands: the API server refuses the rest."""
    world.deploy("1", models.good(1))
    folder = ROOT / "examples" / "04-approval"
    approvers = (folder / "approvers.yaml").read_text().replace("canarium-demo", world.namespace)
    policy = (folder / "policy.yaml").read_text()
    world.kubectl.apply(*yaml.safe_load_all(approvers), *yaml.safe_load_all(policy))
    as_alice = ("--as", "alice", "--as-group", "canarium-approvers")

    def annotate(value: str) -> str:
        where = ("-n", world.namespace, "--overwrite")
        words = ("annotate", "mdep", world.name, f"canarium.dev/abort={value}")
        return world.kubectl.run(*words, *where, *as_alice, check=False)

    try:
        numbers = itertools.count()
        wait_for("the policy", lambda: "annotated" not in annotate(f"bob {next(numbers)}"), 20)
        assert "begins with the name of who gives it" in annotate("bob again")
        assert "annotated" in annotate("alice 1")
        version = json.dumps({"spec": {"model": {"version": "9"}}})
        patch = ("patch", "mdep", world.name, "-n", world.namespace, "--type=merge", "-p", version)
        assert "patched" not in world.kubectl.run(*patch, *as_alice, check=False)
        assert "patched" in world.kubectl.run(*patch)
    finally:
        world.kubectl.run("delete", "-f", str(folder / "policy.yaml"), "--wait=false")


class Outside:
    """A change board and a chat on loopback."""

    def __init__(self) -> None:
        self.answers: dict[int, dict[str, Any]] = {}
        """What the change board says, by step; else that it waits."""
        self.posts: list[tuple[str, dict[str, Any]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.posts.append((self.path, body))
                self.send_response(200)
                self.end_headers()
                waits = {"approved": False, "message": "waiting for Bob"}
                answer = outer.answers.get(body.get("step", 0), waits)
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def told(self) -> list[str]:
        """What the chat heard."""
        return [body["text"] for path, body in self.posts if path == "/chat"]


@pytest.fixture
def outside() -> Iterator[Outside]:
    found = Outside()
    thread = threading.Thread(target=found.http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield found
    found.http.shutdown()
    thread.join()
    found.http.server_close()


def test_an_outside_system_holds_a_step_and_takes_a_canary_back(
    world: World, outside: Outside
) -> None:
    """And the chat hears of it, once."""
    world.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "chat", "namespace": world.namespace},
            "stringData": {"url": f"{outside.url}/chat"},
        }
    )
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    rollout = quick_rollout(
        canary={"steps": [{"weight": 50, "pause": "1s"}]},
        analysis={"metrics": [], "interval": "1s"},
        gates=[{"name": "board", "url": f"{outside.url}/ask"}],
        notifications=[{"name": "ops", "secret": "chat"}],
    )
    world.deploy("2", models.good(2), rollout=rollout)
    status = world.wait("the gate", lambda s: "waiting for Bob" in s["message"])
    assert status["rollout"]["blockedOn"] == "AwaitingGate"
    outside.answers = {1: {"approved": True}, 2: {"abort": True, "message": "incident 4711"}}
    status = world.wait_phase("Aborted")
    [failure] = status["failedRevisions"]
    assert (failure["reason"], failure["step"]) == ("GateRefused", 2)
    wait_for("the chat", outside.told, 20)
    assert len(outside.told()) == 1
    assert "GateRefused" in outside.told()[0]
    assert "incident 4711" in outside.told()[0]
