"""A git repository as the source of truth: Argo CD's own controller and repo-server, and the example's files.

`make e2e LANE=argocd` builds Argo CD and runs these, and nothing else does: a plain `make e2e` deselects them.
"""

import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from canarium_devcluster import cluster as clusters
from canarium_devcluster.gitops import argocd as argocd_parts
from canarium_devcluster.gitops.argocd_processes import ArgoCd, argocd
from canarium_devcluster.gitops.controller import install_crds
from canarium_devcluster.gitops.git_server import git_server
from canarium_devcluster.kube import Api, apply_all
from canarium_devcluster.workshop import open_workshop
from tests.e2e import models
from tests.e2e.conftest import ROOT, ClusterInfo, OperatorProcess, quick_rollout
from tests.e2e.gitops.application import (
    MANAGER,
    Application,
    applied,
    health_of,
    sync_of,
)
from tests.e2e.gitops.checkout import Checkout
from tests.e2e.gitops.witness import Seen, Witness
from tests.e2e.kube import wait_for
from tests.e2e.traffic import Traffic

pytestmark = [pytest.mark.cluster, pytest.mark.argocd, pytest.mark.timeout(400)]

FOLDER = ROOT / "build" / "e2e"
LOGS = FOLDER / "argocd"
"""Argo CD's parts write their logs here."""


@pytest.fixture(scope="module")
def argo(cluster: ClusterInfo) -> Iterator[ArgoCd]:
    """Argo CD, taught the kind as docs/howto/gitops-with-argocd.md says, for all tests of this module."""
    workshop = open_workshop()
    mine = clusters.get(workshop.layout.state, cluster.name)
    api = Api(mine.kubeconfig)
    install_crds(api, argocd_parts.crds(workshop))
    apply_all(api, argocd_parts.settings(workshop))
    for name in ("argocd-cm.yaml", "argocd-rbac-cm.yaml"):
        file = str(ROOT / "manifests" / "argocd" / name)
        cluster.kubectl.run("apply", "--server-side", "--field-manager=canarium", "-f", file)
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    with argocd(mine, argocd_parts.programs(workshop), LOGS) as running:
        yield running


@pytest.fixture
def make(
    cluster: ClusterInfo, operator: OperatorProcess, argo: ArgoCd, tmp_path: Path
) -> Iterator[Callable[[str], Application]]:
    """Make an environment's repository, which is served; the cluster knows nothing of it yet."""
    made: list[Application] = []
    workshop = open_workshop()
    host = clusters.get(workshop.layout.state, cluster.name).addresses.host_ip
    root = tmp_path / "server"
    root.mkdir()
    with git_server(root, address=host) as server:

        def one(environment: str) -> Application:
            checkout = Checkout(root, server, "fraud", tmp_path / "checkout")
            namespace = f"fraud-{environment}"
            made.append(
                Application(
                    cluster,
                    operator,
                    namespace,
                    checkout=checkout,
                    environment=environment,
                    argocd=argo,
                )
            )
            return made[-1]

        yield one
        for application in made:
            application.take_down()


def is_so(health: str, commit: str) -> Callable[[Seen], bool]:
    """Is the application Synced with this commit, with this health?"""
    return lambda seen: sync_of(seen) == (commit, "Synced") and health_of(seen) == health


def in_phase(phase: str, version: str) -> Callable[[Seen], bool]:
    """Is the ModelDeployment in this phase with this version in its spec?"""
    return lambda seen: (
        seen.status.get("phase") == phase
        and seen.status.get("observedGeneration") == seen.body["metadata"]["generation"]
        and seen.body["spec"]["model"]["version"] == version
    )


def drifted(witness: Witness) -> list[str]:
    """Name the commits that the cluster has left by itself: Synced once, and OutOfSync later.

    Not while the application is being deleted: it takes away what it has deployed.
    """
    synced, found = set(), []
    for seen in witness.seen:
        commit, status = sync_of(seen)
        state = (seen.body["metadata"]["uid"], commit)
        if status == "Synced":
            synced.add(state)
        elif state in synced and "deletionTimestamp" not in seen.body["metadata"]:
            found.append(f"{commit}: {status}")
    return found


def healths(witness: Witness, commit: str) -> list[str]:
    """List the healths of the application with a commit applied, without repetitions in a row."""
    with_it = (health_of(s) for s in witness.seen if sync_of(s) == (commit, "Synced"))
    return [health for health, _ in itertools.groupby(with_it)]


def answered_by(traffic: Traffic, revision: str) -> int:
    """Count the answers of a revision."""
    return sum(count for (by, _), count in list(traffic.answers.items()) if by == revision)


def write_down(figures: dict[str, float]) -> None:
    """Keep figures for docs/reference/measurements.md in build/e2e/argocd.json."""
    rounded = {name: round(seconds, 2) for name, seconds in figures.items()}
    (FOLDER / "argocd.json").write_text(json.dumps(rounded, indent=1))


now = time.monotonic


def test_a_commit_is_promoted_and_a_bad_one_is_never_tried_again(
    make: Callable[[str], Application],
) -> None:
    """Progressing, then Healthy or Degraded with the evidence; and so it stays until the commit is reverted."""
    figures: dict[str, float] = {}
    staging = make("staging")
    staging.fill()
    with staging.watch_application() as sync:
        first, began = staging.commit("1", models.good(1)), now()
        staging.set_up()
        sync.first("version 1 healthy", is_so("Healthy", first), since=began)
    namespace = staging.kubectl.get("namespace", staging.namespace, "")
    assert namespace is not None
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"

    with staging.watch() as model, staging.watch_application() as sync:
        with staging.traffic(bad_share=0.3) as traffic:
            good_commit, pushed = staging.commit("2", models.good(2)), now()
            # What the page has for pipelines.
            staging.command("app", "get", staging.application, "--refresh")
            wait = ("app", "wait", staging.application, "--sync", "--health", "--degraded")
            staging.command(*wait, "--timeout", "90")
            assert staging.status()["phase"] == "Promoted"
            assert staging.status()["stable"]["modelVersion"] == "2"
            sync.first("version 2 progressing", is_so("Progressing", good_commit), since=pushed)
            promoted = model.first("version 2 promoted", in_phase("Promoted", "2"), since=pushed)
            healthy = sync.first("version 2 healthy", is_so("Healthy", good_commit), since=pushed)
            assert promoted.at <= healthy.at
            assert healths(sync, good_commit) == ["Progressing", "Healthy"]
            figures["promoted until Healthy"] = healthy.at - promoted.at
            good = promoted.status["stable"]["revision"]

            bad_commit, pushed = staging.commit("3", models.failing()), now()
            begun = sync.first(
                "version 3 progressing", is_so("Progressing", bad_commit), since=pushed
            )
            figures["push until Progressing, version 3"] = begun.at - pushed
            staging.command(*wait, "--timeout", "90")
            aborted = model.first("version 3 taken back", in_phase("Aborted", "3"), since=pushed)
            told = sync.first("version 3 degraded", is_so("Degraded", bad_commit), since=pushed)
            assert healths(sync, bad_commit) == ["Progressing", "Degraded"]
            figures["rolled back until Degraded"] = told.at - aborted.at
            [failure] = aborted.status["failedRevisions"]
            bad = failure["revision"]
            stalled = aborted.condition("Stalled")["message"]
            assert "error-rate" in stalled
            assert staging.model_health() == {"status": "Degraded", "message": stalled}
            assert traffic.failures(besides=bad) == {}, traffic.last_errors

            before = answered_by(traffic, bad)
            assert before > 0
            staging.command("app", "get", staging.application, "--hard-refresh")
            staging.command("app", "sync", staging.application, "--timeout", "60")
            staging.argocd.controller.kill()
            staging.operator.kill()
            restarted = now()
            staging.operator.start()
            staging.argocd.controller.start()
            looked = told.status["reconciledAt"]
            again = sync.first(
                "a look after the restart",
                lambda s: s.status["reconciledAt"] > looked and is_so("Degraded", bad_commit)(s),
                since=restarted,
            )
            seen_before = traffic.total
            wait_for("more answers", lambda: traffic.total > seen_before + 200, 30)
            assert answered_by(traffic, bad) == before
            assert traffic.failures(besides=bad) == {}, traffic.last_errors
            assert staging.fights(MANAGER) == []
            kinds = {node["kind"] for node in staging.tree()}
            assert {"ModelDeployment", "Deployment", "Pod", "Service", "HTTPRoute"} <= kinds

        assert applied(again) == [first, good_commit, bad_commit, bad_commit]
        staging.delete_application()
        assert staging.kubectl.get("mdep", staging.name, staging.namespace) is None
        recreated = now()
        staging.set_up()
        refused = model.first("version 3 refused again", in_phase("Aborted", "3"), since=recreated)
        assert refused.status["stable"]["revision"] == good
        sync.first("degraded again", is_so("Degraded", bad_commit), since=recreated)

        revert, pushed = staging.revert("2"), now()
        healthy = sync.first("the revert healthy", is_so("Healthy", revert), since=pushed)
        figures["push of a revert until Healthy"] = healthy.at - pushed
        sync.first("written down", lambda s: applied(s) == [bad_commit, revert], since=pushed)
    late = [s for s in model.seen if s.at > aborted.at and s.status.get("canary")]
    assert late == []
    assert drifted(sync) == []
    write_down(figures)


def test_a_rollout_that_waits_for_people_is_suspended_until_somebody_acts(
    make: Callable[[str], Application],
) -> None:
    """The actions of the menu; and a step from where on a rollout counts as ready."""
    production = make("production")
    steps = [{"weight": 50, "pause": "1s", "approval": True}]
    rollout = quick_rollout(canary={"steps": steps}, analysis={"metrics": []})
    production.fill(rollout=rollout)
    with production.watch() as model, production.watch_application() as sync:
        first, pushed = production.commit("1", models.good(1)), now()
        production.set_up()
        sync.first("version 1 healthy", is_so("Healthy", first), since=pushed)
        assert production.actions() == set()

        second, pushed = production.commit("2", models.good(2)), now()
        sync.first("version 2 suspended", is_so("Suspended", second), since=pushed)
        production.command("app", "wait", production.application, "--suspended", "--timeout", "30")
        assert production.actions() == {"approve", "pause", "abort"}
        production.act("approve")
        sync.first("version 2 healthy", is_so("Healthy", second), since=pushed)
        [approval] = [a for a in production.status()["actions"] if a["verb"] == "approve"]
        assert approval["by"] == "argocd"
        assert production.fights(MANAGER) == ["ModelDeployment fraud: argocd-server Update"]

        production.configure(rollout={**rollout, "readyWhen": "StepReached", "readyStep": 1})
        commit, pushed = production.commit("3", models.good(3)), now()
        paused = model.first("version 3 paused", in_phase("Paused", "3"), since=pushed)
        sync.first("version 3 ready", is_so("Healthy", commit), since=paused.at)
        assert "Suspended" not in healths(sync, commit)
        production.act("abort")
        sync.first("version 3 aborted", is_so("Degraded", commit), since=paused.at)
        assert production.actions() == {"retry"}
        production.act("retry")
        retried = now()
        again = sync.first("version 3 ready again", is_so("Healthy", commit), since=retried)
        assert applied(again) == [first, second, commit]
        assert drifted(sync) == []


def test_a_newer_commit_waits_for_a_rollout_only_where_the_sync_does(
    make: Callable[[str], Application],
) -> None:
    """One wave: a revert is applied in the middle of a canary. With a second one: when the rollout is ready or over."""
    staging = make("staging")
    steps = [{"weight": 50, "pause": "1h"}]
    rollout = quick_rollout(canary={"steps": steps}, analysis={"metrics": []})
    staging.fill(rollout=rollout)
    with staging.watch() as model, staging.watch_application() as sync:
        commit, pushed = staging.commit("1", models.good(1)), now()
        staging.set_up()
        sync.first("version 1 healthy", is_so("Healthy", commit), since=pushed)
        commit, pushed = staging.commit("2", models.good(2)), now()
        model.first("a canary", in_phase("Canary", "2"), since=pushed)
        sync.first("version 2 progressing", is_so("Progressing", commit), since=pushed)
        commit, pushed = staging.revert("1"), now()
        sync.first("the revert healthy", is_so("Healthy", commit), since=pushed, seconds=30)

        staging.add(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": "after",
                    "namespace": staging.namespace,
                    "annotations": {"argocd.argoproj.io/sync-wave": "1"},
                },
            }
        )
        commit, pushed = staging.checkout.push("another wave"), now()
        sync.first("another wave healthy", is_so("Healthy", commit), since=pushed)
        # As the page says: else the sync that has failed is tried again five times, before a newer commit is.
        staging.patch_application({"syncPolicy": {"retry": {"limit": 5, "refresh": True}}})
        held, pushed = staging.commit("3", models.good(3)), now()
        model.first("a canary", in_phase("Canary", "3"), since=pushed)
        commit, pushed = staging.revert("1"), now()
        seen = sync.first("the revert seen", is_held(commit, by=held), since=pushed)
        looked = seen.status["reconciledAt"]
        seen = sync.first(
            "seen again",
            lambda s: is_held(commit, by=held)(s) and s.status["reconciledAt"] > looked,
            since=seen.at,
        )
        waits = "waiting for healthy state of canarium.dev/ModelDeployment/fraud"
        assert seen.status["operationState"]["message"] == waits
        assert staging.status()["canary"]["modelVersion"] == "3"
        staging.act("abort")
        sync.first("the revert healthy", is_so("Healthy", commit), since=seen.at)

        staging.configure(rollout={**rollout, "readyWhen": "Admitted"})
        admitted, pushed = staging.commit("4", models.good(4)), now()
        model.first("a canary", in_phase("Canary", "4"), since=pushed)
        sync.first("version 4 healthy", is_so("Healthy", admitted), since=pushed)
        commit, pushed = staging.revert("1"), now()
        sync.first("the revert healthy", is_so("Healthy", commit), since=pushed, seconds=30)
        sync.first(
            "both written down", lambda s: applied(s)[-2:] == [admitted, commit], since=pushed
        )
        assert drifted(sync) == []


def is_held(commit: str, *, by: str) -> Callable[[Seen], bool]:
    """Has Argo CD seen a commit, and still applies another one?"""

    def test(seen: Seen) -> bool:
        operation = seen.status.get("operationState") or {}
        return (
            sync_of(seen) == (commit, "OutOfSync")
            and operation["phase"] == "Running"
            and operation["operation"]["sync"]["revision"] == by
        )

    return test
