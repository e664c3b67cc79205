"""The log of decisions: a replay gives the same bytes, whatever happened; and another engine is found out."""

import json
import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from canarium_operator.core import naming
from canarium_operator.core.naming import ObjectRef
from canarium_operator.reconciler import Reconciler
from canarium_operator.replay.decisions import DecisionLog, DecisionLogError, replay
from canarium_operator.testing.clock import FakeClock
from canarium_operator.testing.cluster import FakeCluster
from canarium_operator.testing.metrics import Behaviour, SimulatedTraffic
from canarium_operator.testing.objects import model_deployment

REF = ObjectRef(namespace="ml", name="fraud")
STEPS = [{"weight": 10, "pause": "10s"}, {"weight": 50, "pause": "10s"}]
METRICS = [
    {"name": "error-rate", "minEffect": "10%"},
    {"name": "latency-p95"},
    {"name": "agreement", "query": 'a{r="{{revision}}"}', "min": 0.5, "dryRun": True},
]
TEMPLATE = {"args": [], "metrics": [{"name": "orders", "query": "o", "max": 1, "dryRun": True}]}


async def recorded(path: Path, seed: int) -> list[str]:
    """Let an operator with a log live through versions that are good and bad, commands, and a flaky Prometheus."""
    chance = random.Random(seed)
    clock, cluster = FakeClock(), FakeCluster()
    cluster.templates["ml", "shop"] = {"spec": TEMPLATE}
    metrics = SimulatedTraffic(cluster)
    reconciler = Reconciler(
        cluster, metrics, clock, runtime_image="runtime:1", decisions=DecisionLog(path)
    )
    for version in "1234":
        analysis = {"interval": "5s", "metrics": METRICS, "templates": [{"name": "shop"}]}
        rollout = {
            "canary": {"steps": STEPS},
            "analysis": analysis,
            "notifications": [{"name": "ops", "secret": "s"}],
        }
        cluster.put(model_deployment(version=version, rollout=rollout))
        if chance.random() < 0.5:
            cluster.annotate(REF, naming.command_annotation("pause"), f"alice {version}")
        for second in range(120):
            for _ in range(20):
                if await reconciler.reconcile(REF) != timedelta(0):
                    break
            now = clock.advance(timedelta(seconds=1, milliseconds=chance.randrange(1000)))
            cluster.tick(now)
            metrics.tick(now)
            metrics.outage = "timed out" if chance.random() < 0.1 else None
            if second == 30:
                cluster.annotate(REF, naming.command_annotation("resume"), f"bob {version}")
            if chance.random() < 0.02:
                revision = chance.choice(list(metrics._times) or [""])
                metrics.behaviours[revision] = Behaviour(error_rate=0.4, custom=0.9)
    return lines_of(path)


def lines_of(path: Path) -> list[str]:
    """Read a log."""
    return path.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("seed", range(4))
async def test_a_replay_gives_the_same_bytes(tmp_path: Path, seed: int) -> None:
    """Of every pass: first deployments, canaries, rollbacks, pauses, failing queries."""
    lines = await recorded(tmp_path / "decisions.jsonl", seed)
    assert len(lines) > 300
    replayed = list(replay(lines))
    assert [r.line for r in replayed if not r.same] == []
    decided = [json.loads(line)["decided"].get("lastTransition", {}) for line in lines]
    reasons = {transition.get("reason") for transition in decided}
    assert {"Deployed", "RolloutStarted", "StepStarted"} <= reasons


async def test_another_decision_is_found_out_by_the_command(tmp_path: Path) -> None:
    """Exit status 1, with the line and both statuses; 0 where all is the same; 2 for no log at all."""
    path = tmp_path / "decisions.jsonl"
    lines = await recorded(path, 1)

    def run(text: str) -> subprocess.CompletedProcess[str]:
        path.write_text(text, encoding="utf-8")
        words = [sys.executable, "-m", "canarium_cli", "plan", "--replay", str(path)]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    good = run("\n".join(lines[:40]) + "\n")
    assert (good.returncode, good.stdout) == (0, "40 decisions, all the same\n")
    entry = json.loads(lines[20])
    entry["decided"]["phase"] = "Promoting"
    bad = run("\n".join([*lines[:20], json.dumps(entry)]))
    assert bad.returncode == 1
    assert "line 21: decided otherwise" in bad.stderr
    nonsense = run("{}\n")
    assert nonsense.returncode == 2
    assert "line 1: not an entry" in nonsense.stderr


def test_a_log_has_a_bound(tmp_path: Path) -> None:
    """At its size it is put aside, in place of the one before it."""
    path = tmp_path / "deep" / "decisions.jsonl"
    log = DecisionLog(path, max_bytes=100)
    for number in range(50):
        log.take({"number": number, "padding": "x" * 40})
    assert sorted(p.name for p in path.parent.iterdir()) == ["decisions.jsonl", "decisions.jsonl.1"]
    assert sum(p.stat().st_size for p in path.parent.iterdir()) < 400
    assert json.loads(path.read_text().splitlines()[-1])["number"] == 49


def test_a_disk_that_is_full_does_not_stop_the_operator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once."""
    (tmp_path / "file").write_text("")
    log = DecisionLog(tmp_path / "file" / "decisions.jsonl")
    log.take({})
    log.take({})
    assert len(caplog.records) == 1


def test_what_is_no_log_is_refused() -> None:
    """With its line."""
    with pytest.raises(DecisionLogError, match="line 1"):
        list(replay(["not json"]))
