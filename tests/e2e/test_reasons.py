"""Every way in which a rollout fails, stalls or starts over, on a real cluster: the reason reaches status and Events.

The reasons that have a story of their own (failed checks, schemas, gates, aborts, unreadable models) are told in the
other files.
"""

from typing import Any

import pytest

from tests.e2e import models
from tests.e2e.conftest import World, quick_rollout
from tests.e2e.kube import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

BY_TIME: dict[str, Any] = {"metrics": []}


def at_weight(weight: int, pause: str = "1h", **parts: Any) -> dict[str, Any]:
    """Settings of a canary that stays at one weight for as long as the test needs it."""
    canary = {"steps": [{"weight": weight, "pause": pause}]}
    return quick_rollout(**{"canary": canary, "analysis": BY_TIME, **parts})


def serve(world: World) -> str:
    """Bring version 1 up, and give its revision."""
    world.deploy("1", models.good(1))
    revision: str = world.wait_phase("Promoted")["stable"]["revision"]
    return revision


def carries(weight: int) -> Any:
    """Tell whether the canary's step has begun at a weight."""
    return lambda s: (
        (s.get("rollout") or {}).get("weight") == weight and s["rollout"].get("stepStartedAt")
    )


def stalled(status: dict[str, Any]) -> str | None:
    """Give the reason of the condition Stalled, if there is one."""
    found = [c["reason"] for c in status["conditions"] if c["type"] == "Stalled"]
    return found[0] if found else None


def test_what_runs_out_of_time_is_taken_back_and_says_which_time(world: World) -> None:
    """Evidence that never comes, pods that never start, a rollout without end: three versions, three reasons."""
    serve(world)
    checks = {
        "interval": "1s",
        "minSamples": 20,
        "onInsufficientData": "fail",
        "metrics": [{"name": "error-rate", "max": "5%"}],
    }
    ways = {
        "2": ("AnalysisTimedOut", at_weight(20, "1s", analysis=checks), {}),
        "3": (
            "ProgressDeadlineExceeded",
            at_weight(20, progressDeadline="4s"),
            {"nodeSelector": {"example.com/no-such-node": "true"}},
        ),
        "4": (
            "RolloutTimedOut",
            quick_rollout(
                analysis=BY_TIME,
                canary={"steps": [{"weight": 20, "pause": "1h"}], "maxDuration": "8s"},
            ),
            {},
        ),
    }
    for version, (reason, rollout, more) in ways.items():
        serving = {"resources": {"requests": {"cpu": "20m", "memory": "128Mi"}}, **more}
        world.deploy(version, models.good(int(version)), rollout=rollout, serving=serving)
        status = world.wait(
            f"version {version} taken back",
            lambda s, version=version: (
                s["phase"] == "Aborted" and s["failedRevisions"][-1]["modelVersion"] == version
            ),
        )
        assert status["failedRevisions"][-1]["reason"] == reason
        assert stalled(status) == reason
        world.wait_told_last(reason, "RolledBack")


def test_a_canary_that_loses_all_pods_gives_its_traffic_away_until_they_are_back(
    world: World,
) -> None:
    """Nobody's request fails for it but those under way; the step starts over."""
    stable = serve(world)
    world.deploy("2", models.good(2), rollout=at_weight(40))
    canary = world.wait("40 % of the traffic", carries(40))["canary"]["revision"]
    world.kubectl.run(
        *("delete", "pods", "-n", world.namespace, "--wait=false", "--force", "--grace-period=0"),
        *("-l", f"canarium.dev/revision={canary}"),
    )
    world.wait_told("CapacityLost")
    status = world.wait("40 % again", carries(40))
    assert status["stable"]["revision"] == stable
    wait_for(
        "the Event of the step's second start",
        lambda: world.reasons().count("StepStarted") == 2,
        30,
    )


def test_a_stable_revision_without_pods_is_said_to_be_unavailable(world: World) -> None:
    """Ready and Available are False until a pod is back."""
    revision = serve(world)
    pods = ("-n", world.namespace, "-l", f"canarium.dev/revision={revision}")
    nodes = world.kubectl.run("get", "nodes", "-o", "name").split()
    world.kubectl.run("cordon", *nodes)
    try:
        world.kubectl.run("delete", "pods", *pods, "--wait=false", "--force", "--grace-period=0")
        status = world.wait(
            "no pod",
            lambda s: any(c["reason"] == "StableUnavailable" for c in s["conditions"]),
        )
    finally:
        world.kubectl.run("uncordon", *nodes)
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert (conditions["Ready"], conditions["Available"]) == ("False", "False")
    world.wait(
        "a pod again",
        lambda s: any(c["type"] == "Ready" and c["status"] == "True" for c in s["conditions"]),
    )


def test_what_a_quota_refuses_is_said_and_tried_again_until_it_is_allowed(world: World) -> None:
    """Stable serves on meanwhile; a mended quota needs no edit of the spec."""
    serve(world)
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few", "namespace": world.namespace},
        "spec": {"hard": {"count/services": "1"}},
    }
    world.kubectl.apply(quota)
    wait_for(
        "the quota counts",
        lambda: ((world.kubectl.get("resourcequota", "few", world.namespace) or {}).get("status")
                 or {}).get("used", {}).get("count/services") == "1",
        30,
    )  # fmt: skip
    with world.traffic() as traffic:
        world.deploy("2", models.good(2), rollout=at_weight(20, "1s"))
        status = world.wait("Stalled", lambda s: stalled(s) == "RejectedByCluster")
        assert "quota" in status["message"]
        assert status["canary"]["weight"] == 0
        world.kubectl.run("delete", "resourcequota", "few", "-n", world.namespace)
        world.kubectl.run("annotate", "mdep", world.name, "-n", world.namespace, "example.com/x=1")
        world.wait("version 2 stable", lambda s: s["stable"]["modelVersion"] == "2", 150)
        assert traffic.failures() == {}, traffic.last_errors
    world.wait_told("Recovered")


def test_edited_steps_and_another_version_take_effect_in_the_middle(world: World) -> None:
    """Steps are planned anew from the weight that is carried; a third version supersedes the canary."""
    serve(world)
    world.deploy("2", models.good(2), rollout=at_weight(40))
    world.wait("40 % of the traffic", carries(40))
    edited = quick_rollout(
        analysis=BY_TIME,
        canary={"steps": [{"weight": 10, "pause": "1h"}, {"weight": 60, "pause": "1h"}]},
    )
    world.deploy("2", models.good(2), rollout=edited)
    status = world.wait("10 % of the traffic", carries(10))
    assert status["rollout"]["step"] == 1
    world.wait_told("RolloutReplanned")
    world.deploy("3", models.good(3), rollout=at_weight(20, "1s"))
    world.wait("version 3 stable", lambda s: s["stable"]["modelVersion"] == "3")
    world.wait_told("RolloutSuperseded")


def test_a_first_model_that_never_served_is_replaced_at_once(world: World) -> None:
    """There is nothing to compare with, so the next one comes up instead; so for a last good one that is gone."""
    gone = {"uri": "file:///nowhere/model.onnx", "sha256": "0" * 64, "version": "0"}
    world.kubectl.apply(
        models.good(1).config_map("model-1", world.namespace),
        world.manifest("1", "1" * 64, rollout=quick_rollout(lastGood=gone)),
    )
    world.wait("the wrong digest", lambda s: stalled(s) == "ModelLoadFailed")
    world.wait_told("LastGoodUnavailable")
    world.deploy("2", models.good(2))
    status = world.wait_phase("Promoted")
    assert status["stable"]["modelVersion"] == "2"
    world.wait_told("Retargeted")


def test_a_version_that_failed_is_not_tried_again_when_it_is_named_again(world: World) -> None:
    """Another version in between does not make it forgotten."""
    serve(world)
    world.deploy("3", models.Artefact(b"this is not an onnx file"))
    world.wait_phase("Aborted")
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    world.deploy("3", models.Artefact(b"this is not an onnx file"))
    status = world.wait("Stalled", lambda s: s["phase"] == "Aborted" and stalled(s))
    world.wait_told_last("RevisionFailedBefore")
    assert "canarium.dev/retry" in status["message"]


def test_failures_that_are_forgiven_hold_the_step_and_are_counted(world: World) -> None:
    """A fixed limit with a failureLimit: CheckFailing, until it passes or has failed too often."""
    serve(world)
    checks = {
        "interval": "2s",
        "minSamples": 10,
        "failureLimit": 100,
        "metrics": [{"name": "error-rate", "max": "1%"}],
    }
    with world.traffic(bad_share=0.3):
        world.deploy("2", models.failing(), rollout=at_weight(50, "1s", analysis=checks))
        status = world.wait(
            "a forgiven failure",
            lambda s: (s.get("rollout") or {}).get("blockedOn") == "CheckFailing",
        )
    [check] = status["rollout"]["checks"]
    assert check["failures"] >= 1
    assert "is above max 1%" in check["message"]
