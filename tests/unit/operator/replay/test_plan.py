"""`canarium plan`: recorded numbers in, the live engine's decisions out."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from canarium_operator.replay.recording import RecordingError, parse
from canarium_operator.testing.objects import model_deployment

BOUNDS = (0.05, 0.1, 0.2)


def recorded(
    error_rate: float = 0.005, factor: float = 1.0, seconds: int = 3600, seed: int = 1
) -> list[dict[str, Any]]:
    """Samples every 10 s: 100 requests of stable, 20 of the canary."""
    chance = random.Random(seed)
    totals = {role: {"n": 0, "e": 0, **dict.fromkeys(BOUNDS, 0)} for role in ("stable", "canary")}
    samples = []
    for at in range(0, seconds + 1, 10):
        for role, total in totals.items():
            for _ in range((100 if role == "stable" else 20) if at else 0):
                bad, slow = (0.005, 1.0) if role == "stable" else (error_rate, factor)
                seconds_taken = chance.lognormvariate(-3.2, 0.4) * slow
                total["n"] += 1
                total["e"] += chance.random() < bad
                for bound in BOUNDS:
                    total[bound] += seconds_taken <= bound
            buckets = {str(bound): total[bound] for bound in BOUNDS}
            samples.append(
                {
                    "at": at,
                    "revision": role,
                    "requests": total["n"],
                    "errors": total["e"],
                    "latency_seconds_buckets": {**buckets, "+Inf": total["n"]},
                    "values": {"agreement": 0.99},
                }
            )
    return samples


def plan(
    tmp_path: Path, samples: Any, *options: str, **spec: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    (tmp_path / "mdep.yaml").write_text(json.dumps(model_deployment(**spec)), encoding="utf-8")
    (tmp_path / "recorded.json").write_text(
        samples if isinstance(samples, str) else json.dumps(samples), encoding="utf-8"
    )
    words = [sys.executable, "-m", "canarium_cli", "plan", "-f", "mdep.yaml"]
    return subprocess.run(
        [*words, "--metrics", "recorded.json", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def decisions(tmp_path: Path, samples: Any, *options: str, **spec: Any) -> list[dict[str, Any]]:
    """What the command prints with --json."""
    done = plan(tmp_path, samples, "--json", *options, **spec)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_good_version_is_promoted_through_every_step(tmp_path: Path) -> None:
    """One entry for each decision, with its time and its reason; the outcome comes last."""
    *entries, outcome = decisions(tmp_path, recorded())
    assert set(entries[0]) == {"at", "phase", "step", "weight", "verdict", "reason"}
    assert outcome["outcome"] == "promoted"
    assert outcome["canary_requests"] == 2 * outcome["at"]
    started = [e["weight"] for e in entries if e["reason"].startswith("StepStarted")]
    assert started == [1, 5, 10, 25, 50, 100]
    assert {e["verdict"] for e in entries if e["reason"].startswith("StepPassed")} == {"pass"}
    assert [e["at"] for e in entries] == sorted(e["at"] for e in entries)


@pytest.mark.parametrize(
    ("samples", "check"),
    [(recorded(error_rate=0.05), "error-rate"), (recorded(factor=1.8), "latency-p95")],
    ids=["errors", "slow"],
)
def test_a_bad_version_is_rolled_back_with_the_reason(
    tmp_path: Path, samples: list[dict[str, Any]], check: str
) -> None:
    """Early, and with the numbers of the canary until then."""
    *entries, outcome = decisions(tmp_path, samples)
    assert outcome["outcome"] == "rolled_back"
    assert entries[-1]["verdict"] == "fail"
    assert entries[-1]["reason"].startswith("AnalysisFailed: ")
    assert check in entries[-1]["reason"]
    assert entries[-1]["weight"] == 0
    assert outcome["canary_requests"] < 1000
    assert outcome["canary_failed_requests"] <= outcome["canary_requests"]


def test_a_recording_that_ends_too_early_holds(tmp_path: Path) -> None:
    """The outcome is where it stood."""
    *entries, outcome = decisions(tmp_path, recorded(seconds=100))
    assert outcome == {
        "outcome": "held",
        "at": 100,
        "canary_requests": 200,
        "canary_failed_requests": outcome["canary_failed_requests"],
    }
    assert entries[-1]["reason"].startswith("AwaitingPause")


def test_the_same_recording_gives_the_same_bytes(tmp_path: Path) -> None:
    """No clock, no chance."""
    first, second = (plan(tmp_path, recorded(0.02), "--json").stdout for _ in range(2))
    assert first == second


def test_a_user_s_query_is_answered_by_its_value(tmp_path: Path) -> None:
    """And a limit on it decides."""
    metric = {"name": "agreement", "query": 'a{r="{{revision}}"}', "min": 0.995}
    rollout = {"analysis": {"metrics": [metric]}}
    *entries, outcome = decisions(tmp_path, recorded(), rollout=rollout)
    assert outcome["outcome"] == "rolled_back"
    assert "agreement: 0.99 is below min 0.995" in entries[-1]["reason"]


def test_an_approval_holds_unless_it_is_given(tmp_path: Path) -> None:
    """`--approve` stands for somebody who is always there."""
    steps = [{"weight": 50, "pause": "1m", "approval": True}]
    rollout = {"canary": {"steps": steps}, "analysis": {"metrics": []}}
    assert decisions(tmp_path, recorded(), rollout=rollout)[-1]["outcome"] == "held"
    assert (
        decisions(tmp_path, recorded(), "--approve", rollout=rollout)[-1]["outcome"] == "promoted"
    )


def test_slow_pods_delay_the_first_weight(tmp_path: Path) -> None:
    """`--pods-ready-after`."""
    entries = decisions(tmp_path, recorded(), "--pods-ready-after", "45s")
    first = next(e for e in entries if e.get("weight", 0) > 0)
    assert first["at"] == 45


def test_for_people_there_is_a_table_and_a_last_line(tmp_path: Path) -> None:
    """It names the outcome and what it cost."""
    done = plan(tmp_path, recorded(error_rate=0.05))
    assert "rolled back after" in done.stdout
    assert "canary requests failed until then" in done.stdout
    assert "AnalysisFailed" in done.stdout


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ("{", "not JSON"),
        ([], "a list of samples is needed"),
        ([{"at": 0, "revision": "stable", "requests": 1, "errors": 2}], "sample 0: 2 errors among 1 requests"),
        ([{"at": 0, "revision": "blue", "requests": 1}], 'must be "stable" or "canary"'),
        ([{"at": 0, "revision": "stable", "requests": -1}], "-1 is below 0"),
        ([{"at": 0, "revision": "stable", "requests": "1"}], "a number is needed"),
        ([{"at": 0, "revision": "stable", "requests": 1, "latency": 1}], "unknown field 'latency'"),
        ([{"at": 0, "revision": "stable", "requests": 1}], 'no sample has "revision": "canary"'),
        (
            [{"at": 9, "revision": "stable", "requests": 1}, {"at": 9, "revision": "stable", "requests": 1}],
            "sample 1: \"at\" is 9, not after the sample before it",
        ),
        (
            [{"at": 0, "revision": "stable", "requests": 1, "latency_seconds_buckets": {"0.1": 1}}],
            'the bucket "+Inf" is missing',
        ),
        (
            [{"at": 0, "revision": "stable", "requests": 1, "latency_seconds_buckets": {"0.1": 2, "+Inf": 1}}],
            "counts are cumulative",
        ),
        (
            [{"at": 0, "revision": "stable", "requests": 1, "latency_seconds_buckets": {"fast": 2, "+Inf": 2}}],
            "no bound in seconds",
        ),
    ],
)  # fmt: skip
def test_a_recording_that_contradicts_itself_is_refused(samples: Any, words: str) -> None:
    """With the sample and what to do."""
    with pytest.raises(RecordingError) as caught:
        parse(samples if isinstance(samples, str) else json.dumps(samples))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "samples", "words"),
    [
        ({}, "[]", "recorded.json: a list of samples is needed"),
        ({"rollout": {"analysis": {"metrics": [{"name": "x", "query": "a"}]}}}, None, "without a limit"),
        ({"rollout": {"canary": {"steps": [{"weight": 0}]}}}, None, "spec.rollout.canary.steps[0].weight"),
        ({"rollout": {"analysis": {"templates": [{"name": "shop"}]}}}, None, "AnalysisTemplate shop does not exist"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_with_exit_status_2(
    tmp_path: Path, spec: dict[str, Any], samples: str | None, words: str
) -> None:
    """On the error stream, without a traceback."""
    done = plan(tmp_path, samples or recorded(seconds=20), **spec)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_restart_of_a_server_loses_no_requests() -> None:
    """A counter that falls has started over at 0, as in Prometheus' increase."""
    samples = [
        {"at": at, "revision": role, "requests": n}
        for role in ("stable", "canary")
        for at, n in ((0, 100), (10, 150), (20, 30), (30, 60))
    ]
    counter = parse(json.dumps(samples)).roles["stable"].requests
    assert counter.increase(0, 30) == 50 + 30 + 30
    assert counter.increase(10, 20) == 30
    assert counter.increase(-100, 0) == 0
    assert counter.increase(30, 500) == 0


def test_an_ab_test_is_planned_too(tmp_path: Path) -> None:
    """The goal decides in recorded time; what the operator waits for then is in the list."""
    test = {"sticky": {"header": "x-user-id"}, "goals": ["error-rate"], "minDuration": "10m"}
    rollout = {"abTest": {**test, "maxDuration": "40m"}, "analysis": {"minSamples": 20}}
    found = decisions(tmp_path, recorded(error_rate=0.1), rollout=rollout)
    reasons = [entry["reason"].split(":")[0] for entry in found[:-1]]
    assert "ExperimentConcluded" in reasons
    assert found[-1]["outcome"] == "rolled_back"
    found = decisions(tmp_path, recorded(), rollout=rollout)
    assert found[-1]["outcome"] == "held"
    assert found[-2]["reason"].startswith("AwaitingDecision")
