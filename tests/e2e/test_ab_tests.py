"""A/B tests on a real cluster, a real gateway and a real router."""

from functools import partial
from typing import Any

import pytest

from tests.e2e import models
from tests.e2e.conftest import World, quick_rollout
from tests.e2e.kube import wait_for
from tests.e2e.test_strategies import answered_by

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def settings(**test: Any) -> dict[str, Any]:
    """Make rollout settings of a test whose goal is the error rate; latency guards it."""
    rollout = quick_rollout(
        abTest={"goals": ["error-rate"], "minDuration": "10m", "maxDuration": "1h", **test}
    )
    del rollout["canary"]
    return rollout


def command(world: World, verb: str) -> None:
    """Do what `canarium VERB` does."""
    annotate = ["annotate", "mdep", world.name, "-n", world.namespace, "--overwrite"]
    world.kubectl.run(*annotate, f"canarium.dev/{verb}=tests 1")


def runs(status: dict[str, Any]) -> bool:
    """Tell whether users have B, and the goals are counted."""
    rollout = status.get("rollout") or {}
    return rollout.get("blockedOn") == "ExperimentRunning" and "experiment" in rollout


def router_gone(world: World, kind: str) -> bool:
    """Tell whether an object of the router is no more."""
    return world.kubectl.get(kind, "fraud-router", world.namespace) is None


def test_a_header_or_a_cookie_chooses_the_version(world: World) -> None:
    """Who has the header gets B, then who has the cookie; all others stay with A; nothing fails; B is promoted by
    hand.
    """
    by_header = settings(header={"name": "x-group", "value": "b"})
    world.deploy("1", models.good(1), rollout=by_header)
    world.wait_phase("Promoted")
    with world.traffic(rate=40) as traffic:
        world.deploy("2", models.good(2), rollout=by_header)
        status = world.wait("the test runs", runs)
        assert status["rollout"]["experiment"]["assignment"].endswith("x-group: b")
        wait_for("the header", lambda: answered_by(world, **{"x-group": "b"}) == "2", 20)
        assert [answered_by(world) for _ in range(20)] == ["1"] * 20
        assert answered_by(world, **{"x-group": "bb"}) == "1"
        by_cookie = settings(cookie={"name": "group", "value": "b.1"})
        world.deploy("2", models.good(2), rollout=by_cookie)
        wait_for("the cookie", lambda: answered_by(world, Cookie="group=b.1") == "2", 30)
        for cookies in ("x=1; group=b.1", "group=b.1; y=2", "x=1; group=b.1; y=2"):
            assert answered_by(world, Cookie=cookies) == "2", cookies
        for cookies in ("group=b.11", "group=bx1", "subgroup=b.1", "x=group=b.1", "Group=b.1"):
            assert answered_by(world, Cookie=cookies) == "1", cookies
        assert answered_by(world, **{"x-group": "b"}) == "1"
        command(world, "promote")
        world.wait("version 2 stable", lambda s: s["stable"]["modelVersion"] == "2")
        wait_for("version 2 answers all", lambda: answered_by(world) == "2", 20)
        world.wait_phase("Promoted")
        assert traffic.failures() == {}, traffic.last_errors


def test_a_worse_version_is_taken_back_where_the_test_says_so(world: World) -> None:
    """B fails for its own users; the result is the reason, and it is remembered with the test's numbers."""
    test = settings(header={"name": "x-user-id", "value": "user-0"}, share=30)
    world.deploy("1", models.good(1), rollout=test)
    world.wait_phase("Promoted")
    with world.traffic(users=2, clients=2, rate=60, bad_share=0.5) as traffic:
        world.deploy("2", models.failing(), rollout=test)
        status = world.wait("taken back", lambda s: s["failedRevisions"], 120)
        failed = status["failedRevisions"][-1]
        assert failed["reason"] == "ExperimentFailed"
        assert "is worse" in failed["message"]
        world.wait_phase("Aborted")
        assert traffic.failures(besides=failed["revision"]) == {}, traffic.last_errors


def test_a_sticky_test_keeps_each_user_and_finds_the_worse_version(world: World) -> None:
    """Each user has one version; a larger share only adds users to B; the result holds until somebody decides; only
    B's own errors fail, also while the router comes and goes.
    """
    sticky = {"sticky": {"header": "x-user-id"}, "onLoser": "Hold"}
    world.deploy("1", models.good(1), rollout=settings(**sticky, share=30))
    stable = world.wait_phase("Promoted")["stable"]["revision"]
    with world.traffic(users=60, rate=60) as traffic:
        world.deploy("2", models.failing(), rollout=settings(**sticky, share=30))
        status = world.wait("the test runs", runs, 120)
        canary = status["canary"]["revision"]
        assert status["canary"]["weight"] == 30
        wait_for("B's users", lambda: traffic.answers[canary, 200] > 100, 60)
        moved = {user: seen for user, seen in traffic.served.items() if len(seen) > 2}
        assert moved == {}
        of_b = {user for user, seen in traffic.served.items() if seen[-1] == canary}
        assert 6 <= len(of_b) <= 32  # 18 of 60 are meant; that is within 3.5 sigma
        world.deploy("2", models.failing(), rollout=settings(**sticky, share=70))
        world.wait("the larger share", lambda s: runs(s) and s["canary"]["weight"] == 70, 60)
        seen = traffic.answers[canary, 200]
        wait_for("B's users", lambda: traffic.answers[canary, 200] > seen + 200, 60)
        assert all(users[-1] == canary for user, users in traffic.served.items() if user in of_b)
        ways = ([stable], [canary], [stable, canary])
        odd = {user: seen for user, seen in traffic.served.items() if seen not in ways}
        assert odd == {}
        assert len({user for user, seen in traffic.served.items() if seen[-1] == canary}) > len(
            of_b
        )
        assert traffic.failures() == {}, traffic.last_errors
        traffic.bad_share = 0.5
        status = world.wait("the result", lambda s: s["phase"] == "Paused", 90)
        assert status["rollout"]["blockedOn"] == "AwaitingDecision"
        experiment = status["rollout"]["experiment"]
        (goal,) = experiment["goals"]
        assert (experiment["verdict"], goal["verdict"]) == ("Worse", "Worse")
        assert goal["pValue"] < 0.05
        assert goal["effect"] > 0.05
        world.wait_told("ExperimentConcluded")
        command(world, "abort")
        world.wait("taken back", lambda s: s["phase"] == "Aborted", 60)
        gone = ("deployment", "service", "hpa", "pdb")
        for kind in gone:
            wait_for(
                f"no {kind} of the router",
                partial(router_gone, world, kind),
                30,
            )
        assert traffic.failures(besides=canary) == {}, traffic.last_errors
    assert "worse by" in status["rollout"]["experiment"]["message"]
