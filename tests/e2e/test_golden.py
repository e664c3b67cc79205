"""Golden data before any traffic, on a real cluster: a Job of the real runtime decides."""

from typing import Any

import numpy as np
import pytest
from onnx import load_from_string, numpy_helper

from tests.e2e import models
from tests.e2e.conftest import World, quick_rollout
from tests.e2e.kube import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def golden_csv(artefact: models.Artefact, rows: int = 80) -> str:
    """Write rows with the answers of a linear model."""
    (weights,) = load_from_string(artefact.content).graph.initializer
    inputs = np.random.default_rng(9).normal(size=(rows, models.FEATURES)).round(3)
    answers = inputs @ numpy_helper.to_array(weights)[:, 0]
    lines = [
        ",".join(f"{v:.6g}" for v in (*row, y)) for row, y in zip(inputs, answers, strict=True)
    ]
    return "\n".join(["a,b,c,d,target", *lines])


def put_golden(world: World, name: str, artefact: models.Artefact) -> dict[str, Any]:
    """Put golden data into the cluster; gives the rollout that asks them."""
    meta = {"name": name, "namespace": world.namespace}
    data = {"golden.csv": golden_csv(artefact)}
    world.kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
    asked = {
        "data": {"uri": f"configmap://{name}/golden.csv"},
        "thresholds": {"metrics": {"r2": {"min": 0.99}}, "minRows": 50},
    }
    return quick_rollout(validation=asked)


def logs(world: World, job: str) -> str:
    return world.kubectl.run("logs", f"job/{job}", "-n", world.namespace)


def test_golden_data_let_a_good_model_in_and_keep_a_bad_one_out(world: World) -> None:
    """The operator is killed while the first Job runs; the bad model never gets a request."""
    rollout = put_golden(world, "golden", models.good(2))
    world.deploy("1", models.good(1), rollout=rollout)
    world.wait_phase("Promoted")
    with world.traffic() as traffic:
        wait_for("answers", lambda: traffic.total >= 20, 20)
        world.deploy("2", models.good(2), rollout=rollout)
        # Its status says that it waits only if the Job takes longer than the pods: the Job is what is there for sure.
        wait_for("the Job", lambda: bool(world.kubectl.list("jobs", world.namespace)), 60)
        world.operator.kill()
        world.operator.start()
        status = world.wait(
            "version 2 promoted",
            lambda s: s["phase"] == "Promoted" and s["stable"]["modelVersion"] == "2",
            150,
        )
        passed = status["stable"]["validation"]
        assert passed["verdict"] == "Passed"
        assert '"r2"' in logs(world, passed["job"])
        world.deploy("3", models.good(3), rollout=rollout)
        status = world.wait("version 3 taken back", lambda s: s["phase"] == "Aborted", 150)
    (failure,) = status["failedRevisions"]
    assert failure["reason"] == "ValidationFailed"
    assert "r2 is" in failure["message"]
    assert failure["weight"] == 0
    job = failure["message"].rpartition("job/")[2]
    assert '"passed": false' in logs(world, job)
    revisions = {revision for (revision, _) in traffic.answers}
    assert failure["revision"] not in revisions
    assert traffic.failures() == {}
