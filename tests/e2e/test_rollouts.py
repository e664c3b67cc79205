"""Rollouts on a real cluster: first deployment, promotion, rollback, missing evidence, mistakes, deletion."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import models
from tests.e2e.conftest import World, quick_rollout
from tests.e2e.kube import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def replayed(world: World) -> str:
    """Record the latest rollout from Prometheus, plan it without the cluster, and give the outcome."""
    folder = Path(world.operator.log).parent
    environment = {**os.environ, "KUBECONFIG": world.kubectl.kubeconfig}
    manifest, recorded = folder / "mdep.json", folder / "recorded.json"
    body = world.kubectl.get("modeldeployments.canarium.dev", world.name, world.namespace)
    manifest.write_text(json.dumps(body), encoding="utf-8")
    command = [sys.executable, "-m", "canarium_cli"]
    name = f"{world.namespace}/{world.name}"
    options = ["--prometheus", world.cluster.prometheus, "--step", "4s", "-o", str(recorded)]
    subprocess.run([*command, "record", name, *options], env=environment, check=True, timeout=60)
    planned = subprocess.run(
        [*command, "plan", "-f", str(manifest), "--metrics", str(recorded), "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return str(json.loads(planned.stdout)[-1]["outcome"])


def test_the_first_model_serves_and_kubectl_wait_does_not_return_early(world: World) -> None:
    """`kubectl wait` right after `kubectl apply` is free of races, for the first generation and for the next."""
    world.deploy("1", models.good(1))
    wait = ["wait", "--for=condition=Ready", f"mdep/{world.name}", "-n", world.namespace]
    world.kubectl.run(*wait, "--timeout=90s", timeout=100)
    status = world.status()
    assert status["phase"] == "Promoted"
    assert status["stable"]["readyReplicas"] >= 1
    with world.traffic() as traffic:
        wait_for("answers", lambda: traffic.total >= 20, 20)
        world.deploy("2", models.good(2))
        world.kubectl.run(*wait, "--timeout=120s", timeout=130)
        status = world.status()
    assert status["stable"]["modelVersion"] == "2"
    assert status["current"]


def test_a_good_version_is_promoted_step_by_step_and_no_request_fails(world: World) -> None:
    """Each step is announced once and in order; the old pods go; every request was answered."""
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    with world.traffic() as traffic:
        world.deploy("2", models.good(2))
        world.wait("version 2 stable", lambda s: s["stable"]["modelVersion"] == "2", 120)
        status = world.wait_phase("Promoted")
        assert traffic.failures() == {}, traffic.last_errors
    assert [entry["outcome"] for entry in status["history"]] == ["Deployed", "Promoted"]
    started = [e["message"] for e in world.events() if e["reason"] == "StepStarted"]
    assert [m.split(":")[0] for m in started] == ["step 1/3", "step 2/3", "step 3/3"]
    selector = f"canarium.dev/model-deployment={world.name}"
    left = {
        d["metadata"]["labels"]["canarium.dev/revision"]
        for d in world.kubectl.list("deployments,services,hpa,pdb", world.namespace, selector)
    }
    assert left == {status["stable"]["revision"]}


def test_a_version_that_fails_on_real_inputs_is_taken_back_and_stays_away(world: World) -> None:
    """Only the canary's own requests fail; the evidence is kept; re-applying and restarting change nothing."""
    world.deploy("1", models.good(1))
    stable = world.wait_phase("Promoted")["stable"]["revision"]
    with world.traffic(bad_share=0.3) as traffic:
        world.deploy("3", models.failing())
        bad = world.wait("canary", lambda s: s.get("canary"))["canary"]["revision"]
        status = world.wait_phase("Aborted")
        world.operator.kill()
        world.operator.start()
        world.deploy("3", models.failing())
        world.kubectl.run(
            "annotate", "mdep", world.name, "-n", world.namespace, "example.com/touched=1"
        )
        wait_for("more answers", lambda seen=traffic.total: traffic.total > seen + 200, 30)
        assert traffic.failures(besides=bad) == {}, traffic.last_errors
    [failure] = status["failedRevisions"]
    assert failure["revision"] == bad
    assert failure["reason"] == "AnalysisFailed"
    assert "error-rate" in failure["message"]
    assert replayed(world) == "rolled_back"
    after = world.status()
    assert after["phase"] == "Aborted"
    assert after["stable"]["revision"] == stable
    assert after["epoch"] == status["epoch"]
    conditions = {c["type"]: c["status"] for c in after["conditions"]}
    assert (conditions["Ready"], conditions["Available"], conditions["Stalled"]) == (
        "False",
        "True",
        "True",
    )


def test_a_version_that_refuses_what_clients_send_is_taken_back(world: World) -> None:
    """To the server it is the client's mistake; the comparison with stable shows whose it is."""
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    checks = [{"name": "error-rate", "minEffect": "5%"}, {"name": "invalid-rate"}]
    analysis = {"interval": "2s", "minSamples": 20, "metrics": checks}
    with world.traffic():
        rollout = quick_rollout(analysis=analysis, schemaChange="Allow")
        world.deploy("2", models.wider(), rollout=rollout)
        status = world.wait_phase("Aborted")
    assert "invalid-rate: 100% against stable's 0%: worse by 100%" in status["message"]


def test_a_retry_annotation_tries_a_failed_version_once_more(world: World) -> None:
    """What was wrong may have been the world: the user can say so, and the verdict is reached anew."""
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    with world.traffic(bad_share=0.3):
        world.deploy("3", models.failing())
        world.wait_phase("Aborted")
    retry = ["annotate", "mdep", world.name, "-n", world.namespace, "--overwrite"]
    world.kubectl.run(*retry, "canarium.dev/retry=one")
    with world.traffic(bad_share=0.0):
        status = world.wait("version 3 stable", lambda s: s["stable"]["modelVersion"] == "3", 120)
    assert status["failedRevisions"] == []
    world.wait_told("RolloutRetried")


def test_without_requests_a_step_holds_and_describe_says_what_is_missing(world: World) -> None:
    """No evidence is no pass: `kubectl describe` names step, weight, each check with its limit, and the next look."""
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    world.deploy("2", models.good(2))
    status = world.wait(
        "held after its pause",
        lambda s: s.get("rollout", {}).get("blockedOn") in ("NoData", "AwaitingSamples"),
    )
    assert status["rollout"]["step"] == 1
    assert status["canary"]["weight"] == 20
    assert "gives up at" in status["message"]
    text = world.kubectl.run("describe", "mdep", world.name, "-n", world.namespace)
    for words in (
        "step 1/3 (20%)",
        "Next Check At:",
        "error-rate",
        "not worse than stable by 5% or more",
        "latency-p95",
        "Needed:",
    ):
        assert words in text
    table = world.kubectl.run("get", "mdep", world.name, "-n", world.namespace)
    header, row = table.splitlines()[:2]
    assert header.split() == [
        "NAME",
        "READY",
        "PHASE",
        "STEP",
        "WEIGHT",
        "CANARY",
        "STABLE",
        "REASON",
        "AGE",
    ]
    assert row.split()[1:5] == ["False", "Canary", "1/3", "20"]


def test_checks_of_templates_decide_with_the_arguments_that_they_are_given(world: World) -> None:
    """One of the namespace, one of the cluster; a missing one is named, and taken up once it is there."""
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    shared = f"shared-{world.namespace}"
    failed = 'sum(increase(ml_predictions_total{revision="{{revision}}",status="{{args.status}}"}[{{window}}]))'
    every = 'sum(increase(ml_predictions_total{revision="{{revision}}"}[{{window}}]))'
    failing = {"name": "failing", "proportion": {"events": failed, "trials": every}}
    template = {
        "apiVersion": "canarium.dev/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": {"name": "local", "namespace": world.namespace},
        "spec": {"args": [{"name": "status"}], "metrics": [{**failing, "minEffect": "5%"}]},
    }
    cluster_wide = {
        "apiVersion": "canarium.dev/v1alpha1",
        "kind": "ClusterAnalysisTemplate",
        "metadata": {"name": shared},
        "spec": {"metrics": [{"name": "latency-p90", "max": "5s", "minSamples": 20}]},
    }
    analysis = {
        "interval": "2s",
        "minSamples": 20,
        "metrics": [],
        "templates": [
            {"name": "local", "args": [{"name": "status", "value": "error"}]},
            {"name": shared, "clusterScope": True},
        ],
    }
    world.kubectl.apply(template)
    try:
        world.deploy("3", models.failing(), rollout=quick_rollout(analysis=analysis))
        status = world.wait_phase("Invalid")
        assert "spec.rollout.analysis.templates[1]" in status["message"]
        world.kubectl.apply(cluster_wide)
        world.kubectl.run("annotate", "mdep", world.name, "-n", world.namespace, "example.com/x=1")
        with world.traffic(bad_share=0.3):
            status = world.wait_phase("Aborted", 150)
    finally:
        world.kubectl.run("delete", "clusteranalysistemplate", shared, "--ignore-not-found")
    [failure] = status["failedRevisions"]
    assert failure["reason"] == "AnalysisFailed"
    assert [check["name"] for check in failure["checks"]] == ["failing", "latency-p90"]
    assert "failing: " in failure["message"]


def test_a_wrong_digest_never_serves_and_the_reason_reaches_the_status(world: World) -> None:
    """First deployment: Stalled says what was expected and what came; the mended spec recovers."""
    wrong = world.manifest("1", "0" * 64)
    world.kubectl.apply(models.good(1).config_map("model-1", world.namespace), wrong)
    status = world.wait(
        "Stalled", lambda s: any(c["type"] == "Stalled" for c in s["conditions"]), 60
    )
    assert "DigestMismatch" in status["message"]
    assert models.good(1).sha256[:12] in status["message"]
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")


def test_an_unreadable_model_ends_a_rollout_before_it_gets_traffic(world: World) -> None:
    """The canary's pods never become ready, stable keeps everything."""
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    garbage = models.Artefact(b"this is not an onnx file")
    world.deploy("2", garbage)
    status = world.wait_phase("Aborted")
    [failure] = status["failedRevisions"]
    assert failure["reason"] == "ModelLoadFailed"
    assert "ModelUnreadable" in failure["message"]
    assert failure["weight"] == 0


def test_an_invalid_spec_stalls_with_a_remedy_and_recovers_without_a_restart(world: World) -> None:
    """What the schema cannot see: the message names the field and what to do."""
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    metrics = [{"name": "own", "query": 'my_metric{r="{{revison}}"}', "max": 1}]
    rollout = quick_rollout(analysis={"metrics": metrics})
    world.deploy("2", models.good(2), rollout=rollout)
    status = world.wait_phase("Invalid")
    assert "spec.rollout.analysis.metrics[0].query" in status["message"]
    assert "{{revision}}" in status["message"]
    assert next(c for c in status["conditions"] if c["type"] == "Available")["status"] == "True"
    with world.traffic():
        world.deploy("2", models.good(2))
        world.wait("version 2 stable", lambda s: s["stable"]["modelVersion"] == "2", 120)


def test_deleting_the_object_deletes_everything_that_was_made_for_it(world: World) -> None:
    """Owner references do it, with no finalizer: also while the operator is down."""
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    world.operator.stop()
    world.kubectl.run("delete", "mdep", world.name, "-n", world.namespace, "--timeout=20s")
    kinds = "deployments,services,hpa,pdb,configmaps,pods,httproutes.gateway.networking.k8s.io"
    # What is remembered of failures outlives the object on purpose.
    selector = f"canarium.dev/model-deployment={world.name},!canarium.dev/memory"
    wait_for(
        "no children",
        lambda: not world.kubectl.list(kinds, world.namespace, selector),
        60,
    )


def test_edits_by_others_do_not_outlive_the_next_look(world: World) -> None:
    """Weights that somebody else wrote into the route are put right at once."""
    world.deploy("1", models.good(1))
    world.wait_phase("Promoted")
    route = "httproutes.gateway.networking.k8s.io"
    patch = json.dumps(
        [{"op": "replace", "path": "/spec/rules/0/backendRefs/0/weight", "value": 7}]
    )
    world.kubectl.run("patch", route, world.name, "-n", world.namespace, "--type=json", "-p", patch)

    def weight() -> int:
        body = world.kubectl.get(route, world.name, world.namespace)
        assert body is not None
        value: int = body["spec"]["rules"][0]["backendRefs"][0]["weight"]
        return value

    wait_for("weight 100 again", lambda: weight() == 100, 30)
