"""A git repository as the source of truth: Flux's own kustomize-controller, a real git server, the example's files.

What stands in for something is `canarium_devcluster.gitops.source`, for Flux's source-controller. `make e2e LANE=flux`
runs these alone.
"""

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from canarium_api import kstatus
from canarium_api.kstatus import Health
from canarium_devcluster.gitops import flux as flux_parts
from canarium_devcluster.gitops.controller import Controller, controller, install_crds
from canarium_devcluster.gitops.git_server import git_server
from canarium_devcluster.gitops.source import source
from canarium_devcluster.kube import Api
from canarium_devcluster.workshop import open_workshop
from tests.e2e import models
from tests.e2e.conftest import ROOT, ClusterInfo, OperatorProcess, quick_rollout
from tests.e2e.gitops.checkout import Checkout
from tests.e2e.gitops.tenant import KUSTOMIZATION, MANAGER, Auditor, Tenant
from tests.e2e.gitops.witness import Seen
from tests.e2e.kube import wait_for
from tests.e2e.traffic import Traffic

pytestmark = [pytest.mark.cluster, pytest.mark.flux, pytest.mark.timeout(300)]

FOLDER = ROOT / "build" / "e2e"
HEALTH = {
    "Pending": Health.IN_PROGRESS,
    "Loading": Health.IN_PROGRESS,
    "Canary": Health.IN_PROGRESS,
    "Paused": Health.IN_PROGRESS,
    "Promoting": Health.IN_PROGRESS,
    "RollingBack": Health.IN_PROGRESS,
    "Promoted": Health.CURRENT,
    "Aborted": Health.FAILED,
    "Invalid": Health.FAILED,
}
"""What docs/reference/status.md says of each phase."""
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def flux(cluster: ClusterInfo) -> Iterator[Controller]:
    """Flux's controller and what it watches, for all tests of this module."""
    workshop = open_workshop()
    kubeconfig = Path(cluster.kubectl.kubeconfig)
    install_crds(Api(kubeconfig), flux_parts.crds(workshop))
    FOLDER.mkdir(parents=True, exist_ok=True)
    binary, log = flux_parts.controller(workshop), FOLDER / "kustomize-controller.log"
    with controller(kubeconfig, binary, log) as running:
        yield running


@pytest.fixture
def tenant(
    cluster: ClusterInfo, operator: OperatorProcess, flux: Controller, tmp_path: Path
) -> Iterator[Tenant]:
    """A repository that is served, and Flux that is told of its commits; the cluster knows nothing of it yet."""
    number = next(_numbers)
    root = tmp_path / "server"
    root.mkdir()
    with git_server(root) as server:
        checkout = Checkout(root, server, "fraud", tmp_path / "checkout")
        api = Api(Path(cluster.kubectl.kubeconfig))
        with source(api, checkout.url, tmp_path / "mirror"):
            made = Tenant(
                cluster, operator, f"e2e-flux-{os.getpid()}-{number}", checkout=checkout, flux=flux
            )
            yield made
            # While Flux is there: a Kustomization waits for Flux to take its objects away.
            where = ("-n", made.namespace, "--ignore-not-found", "--timeout=60s")
            cluster.kubectl.run("delete", KUSTOMIZATION, made.name, *where, timeout=70)
            cluster.kubectl.run(
                "delete", "namespace", made.namespace, "--ignore-not-found", "--wait=false"
            )


def health(seen: Seen) -> Health:
    """Say what tools make of a ModelDeployment."""
    return kstatus.judge(seen.body).health


def is_settled(seen: Seen) -> bool:
    """Does the phase alone say how a ModelDeployment is: seen by the operator, with pods, and not going away?"""
    meta, stable = seen.body["metadata"], seen.status.get("stable") or {}
    lost = bool(stable.get("served")) and not stable.get("readyReplicas")
    return (
        seen.status.get("observedGeneration") == meta["generation"]
        and "deletionTimestamp" not in meta
        and not lost
    )


def serves(version: str) -> Callable[[Seen], bool]:
    """Is the ModelDeployment Ready with this version?"""
    return lambda seen: (
        health(seen) is Health.CURRENT and seen.status["stable"]["modelVersion"] == version
    )


def failed(version: str) -> Callable[[Seen], bool]:
    """Is the ModelDeployment Stalled with this version in its spec?"""
    return lambda seen: (
        health(seen) is Health.FAILED and seen.body["spec"]["model"]["version"] == version
    )


def has_applied(version: str) -> Callable[[Seen], bool]:
    """Does the spec name this version?"""
    return lambda seen: bool(seen.body["spec"]["model"]["version"] == version)


def synced(commit: str) -> Callable[[Seen], bool]:
    """Is the Kustomization Ready with this commit?"""
    return lambda seen: (
        seen.condition("Ready").get("status") == "True"
        and seen.status.get("lastAppliedRevision") == f"main@sha1:{commit}"
    )


def refused(commit: str) -> Callable[[Seen], bool]:
    """Has the Kustomization failed by the health of this commit's objects?"""
    return lambda seen: (
        seen.condition("Ready").get("reason") == "HealthCheckFailed"
        and seen.status.get("lastAttemptedRevision") == f"main@sha1:{commit}"
    )


def now() -> float:
    """Give the moment, as witnesses do."""
    return time.monotonic()


def answered_by(traffic: Traffic, revision: str) -> int:
    """Count the answers of a revision."""
    return sum(count for (by, _), count in list(traffic.answers.items()) if by == revision)


def write_down(figures: dict[str, float]) -> None:
    """Keep figures for docs/reference/measurements.md in build/e2e/flux.json."""
    rounded = {name: round(seconds, 2) for name, seconds in figures.items()}
    (FOLDER / "flux.json").write_text(json.dumps(rounded, indent=1))


def test_a_commit_is_promoted_and_a_bad_one_is_never_tried_again(tenant: Tenant) -> None:
    """Promoted and Ready; taken back and failed early; and so it stays until the commit is reverted."""
    figures: dict[str, float] = {}
    tenant.fill()
    with (
        tenant.watch() as model,
        tenant.watch(KUSTOMIZATION) as sync,
        Auditor(tenant, model) as auditor,
    ):
        commit, began = tenant.commit("1", models.good(1)), now()
        tenant.set_up()
        sync.first("version 1 synced", synced(commit), since=began)

        with tenant.traffic(bad_share=0.3) as traffic:
            commit, pushed = tenant.commit("2", models.good(2)), now()
            applied = model.first("version 2 applied", has_applied("2"), since=pushed)
            promoted = model.first("version 2 promoted", serves("2"), since=applied.at)
            ready = sync.first("version 2 synced", synced(commit), since=pushed)
            assert promoted.at <= ready.at
            figures["push until applied, version 2"] = applied.at - pushed
            figures["promoted until Ready"] = ready.at - promoted.at
            good = promoted.status["stable"]["revision"]

            bad_commit, pushed = tenant.commit("3", models.failing()), now()
            applied = model.first("version 3 applied", has_applied("3"), since=pushed)
            aborted = model.first("version 3 taken back", failed("3"), since=applied.at)
            told = sync.first("version 3 refused", refused(bad_commit), since=pushed)
            figures["push until applied, version 3"] = applied.at - pushed
            figures["rolled back until failed"] = told.at - aborted.at
            # The Kustomization's timeout is two minutes.
            assert told.at - aborted.at < 20
            [failure] = aborted.status["failedRevisions"]
            bad = failure["revision"]
            assert traffic.failures(besides=bad) == {}, traffic.last_errors
            assert aborted.body["metadata"]["generation"] == 3
            message = told.condition("Ready")["message"]
            name = f"ModelDeployment/{tenant.namespace}/{tenant.name}"
            assert f"failed early due to stalled resources: [{name} status: 'Failed'" in message
            assert "error-rate" in aborted.condition("Stalled")["message"]
            auditor.wait("Loading", "Canary", "Promoted", "Aborted")

            before = answered_by(traffic, bad)
            assert before > 0
            asked = str(time.time())
            tenant.annotate(KUSTOMIZATION, f"reconcile.fluxcd.io/requestedAt={asked}")
            sync.first(
                "another sync",
                lambda seen: (
                    seen.status.get("lastHandledReconcileAt") == asked and refused(bad_commit)(seen)
                ),
                since=told.at,
            )
            tenant.operator.kill()
            tenant.operator.start()
            seen_before = traffic.total
            wait_for("more answers", lambda: traffic.total > seen_before + 200, 30)
            assert answered_by(traffic, bad) == before
            assert traffic.failures(besides=bad) == {}, traffic.last_errors

        pruned = tenant.commit_without_model()
        sync.first("the model pruned", synced(pruned), since=aborted.at)
        assert tenant.kubectl.get("mdep", tenant.name, tenant.namespace) is None
        commit, pushed = tenant.revert("3"), now()
        again = model.first("version 3 refused again", failed("3"), since=pushed)
        assert again.status["stable"]["revision"] == good
        sync.first("the Kustomization failed again", refused(commit), since=pushed)

        where = ("namespace", tenant.namespace, "--timeout=90s")
        tenant.kubectl.run("delete", *where, timeout=100)
        recreated = now()
        tenant.set_up()
        again = model.first("version 3 refused in another namespace", failed("3"), since=recreated)
        assert again.status["stable"]["revision"] == good
        sync.first("the new Kustomization failed", refused(commit), since=recreated)

        commit, pushed = tenant.revert("2", of=bad_commit), now()
        healthy = model.first("version 2 serves", serves("2"), since=pushed)
        ready = sync.first("version 2 synced again", synced(commit), since=pushed)
        figures["revert pushed until healthy"] = healthy.at - pushed
        figures["revert pushed until Ready"] = ready.at - pushed

    assert [
        s.status["canary"]["revision"]
        for s in model.seen
        if s.at > aborted.at and s.status.get("canary")
    ] == []
    wrong = [
        (seen.status["phase"], health(seen))
        for seen in model.seen
        if is_settled(seen) and health(seen) is not HEALTH[seen.status["phase"]]
    ]
    assert wrong == []
    done = [entry.get(name) for entry in tenant.flux.applied(tenant.namespace)]
    changes = [action for action in done if action not in (None, "unchanged")]
    assert changes == ["created", "configured", "configured", "created", "created", "configured"]
    write_down(figures)


def test_a_revert_in_the_middle_of_a_canary_does_not_wait_for_it(tenant: Tenant) -> None:
    """With the feature gate that the guide names; and Flux may do what it must, and no more."""
    steps = [{"weight": 50, "pause": "1h"}]
    tenant.fill(rollout=quick_rollout(canary={"steps": steps}))
    with tenant.watch() as model, tenant.watch(KUSTOMIZATION) as sync:
        first, began = tenant.commit("1", models.good(1)), now()
        tenant.set_up()
        sync.first("version 1 synced", synced(first), since=began)
        commit, pushed = tenant.commit("2", models.good(2)), now()
        model.first("a canary", lambda s: s.status.get("canary"), since=pushed)
        sync.first(
            "health is waited for",
            lambda s: (
                s.condition("Healthy").get("status") == "Unknown"
                and commit in s.condition("Healthy")["message"]
            ),
            since=pushed,
        )
        commit, pushed = tenant.revert("1"), now()
        model.first("version 1 serves", serves("1"), since=pushed, seconds=30)
        sync.first("the revert synced", synced(commit), since=pushed, seconds=30)
    user = (f"--as=system:serviceaccount:{tenant.namespace}:flux", "-n", tenant.namespace)

    def may(*words: str) -> bool:
        told = tenant.kubectl.run("auth", "can-i", *words, *user, check=False)
        return told.strip().endswith("yes")

    assert all(may(verb, "modeldeployments.canarium.dev") for verb in ("create", "patch", "delete"))
    assert not may("patch", "modeldeployments.canarium.dev", "--subresource=status")
    for kind in ("secrets", "deployments.apps", "pods", "roles.rbac.authorization.k8s.io"):
        assert not any(may(verb, kind) for verb in ("get", "create", "patch"))


def test_a_rollout_that_waits_for_people_does_not_fail_the_kustomization(tenant: Tenant) -> None:
    """The example's health expressions: paused is healthy, taken back is failed."""
    tenant.environment = "production"
    steps = [{"weight": 50, "pause": "1s", "approval": True}]
    tenant.fill(rollout=quick_rollout(canary={"steps": steps}, analysis={"metrics": []}))
    with (
        tenant.watch() as model,
        tenant.watch(KUSTOMIZATION) as sync,
        Auditor(tenant, model) as auditor,
    ):
        first, began = tenant.commit("1", models.good(1)), now()
        tenant.set_up()
        sync.first("version 1 synced", synced(first), since=began)
        commit, pushed = tenant.commit("2", models.good(2)), now()
        paused = model.first("paused", lambda s: s.status.get("phase") == "Paused", since=pushed)
        assert paused.status["rollout"]["blockedOn"] == "AwaitingApproval"
        ready = sync.first("version 2 synced", synced(commit), since=pushed)
        assert paused.at <= ready.at
        auditor.wait("Paused")
    # What the auditor looks with would have found something.
    kustomization = (tenant.folder / "kustomization.yaml").read_text()
    (tenant.folder / "kustomization.yaml").write_text(
        kustomization.replace("pause: 1s", "pause: 2s")
    )
    assert "pause: 2s" in tenant.drift()
    tenant.annotate("mdep", "canarium.dev/abort=1")
    assert tenant.fights(MANAGER) == ["ModelDeployment fraud: kubectl-annotate Update"]
    with tenant.watch(KUSTOMIZATION) as sync:
        tenant.wait_phase("Aborted")
        tenant.annotate(KUSTOMIZATION, "reconcile.fluxcd.io/requestedAt=now")
        sync.first("refused", refused(commit), since=pushed)
