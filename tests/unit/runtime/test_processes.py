"""Several processes: what each gets, when a dead one is started again, and what their metrics add up to."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import ValidationError

from canarium_api import metric_names as names
from canarium_api.runtime_config import LoadFailure, RuntimeConfig
from canarium_runtime.processes import policy, shares
from canarium_runtime.processes.policy import Death, GiveUp, Restart, Restarts
from canarium_runtime.processes.sums import Sums

BROKEN = LoadFailure(reason="ModelUnreadable", message="it is broken", permanent=True)


def config(**changes: Any) -> RuntimeConfig:
    return RuntimeConfig(model_uri="file:///m", **changes)


KAFKA = {"audit_sink": "Kafka", "audit_kafka_servers": "kafka:9092"}


# --- shares ---


@pytest.mark.parametrize(
    ("wanted", "cpus", "count"),
    [("1", 8, 1), ("3", 1, 3), ("0", 4, 4), ("auto", 4, 4), ("auto", 0, 1)],
)
def test_there_are_as_many_processes_as_set_or_as_cpus(wanted: str, cpus: int, count: int) -> None:
    """`auto` and 0 mean one for each CPU, and never none."""
    set_so = RuntimeConfig.from_env(
        {"CANARIUM_MODEL_URI": "file:///m", "CANARIUM_PROCESSES": wanted}
    )
    assert shares.count(set_so, cpus) == count


@pytest.mark.parametrize(
    ("settings", "processes", "cpus", "threads"),
    [
        ({}, 2, 8, 4),
        ({"workers": 2}, 2, 8, 2),
        ({}, 4, 2, 1),
        ({"intra_op_threads": 3}, 4, 2, 3),
    ],
)
def test_processes_share_the_cpus(
    settings: dict[str, Any], processes: int, cpus: int, threads: int
) -> None:
    """All runs at a time use no more threads than there are CPUs, but each has one; what is set stays."""
    assert shares.of_each(config(**settings), processes, cpus).intra_op_threads == threads


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_the_bounds_of_all_processes_together_are_those_of_the_server(
    size: int, processes: int
) -> None:
    """Parts add up to the whole, with less than one over for each process."""
    each = shares.of_each(config(queue_size=size, cache_memory_bytes=size), processes, 1)
    for part in (each.queue_size, each.cache_memory_bytes):
        assert size <= part * processes < size + processes


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        ({"answers_port": 9}, "CANARIUM_ANSWERS_PORT"),
        ({"model_control": True}, "CANARIUM_MODEL_CONTROL"),
        (KAFKA, "CANARIUM_AUDIT_SINK=Kafka"),
    ],
)
def test_what_works_with_one_process_only_is_refused(
    settings: dict[str, Any], variable: str
) -> None:
    """The error names both settings."""
    assert config(**settings).processes == 1
    with pytest.raises(
        ValidationError, match=f"{variable} works with one process only.*CANARIUM_PROCESSES"
    ):
        config(processes=0, **settings)


def test_each_process_writes_an_audit_file_of_its_own() -> None:
    """A file has one writer; what stands for the host's name stays."""
    files = {shares.of_each(config(), 2, 1, number).audit_file for number in (1, 2)}
    assert files == {"/tmp/audit/{host}-1.jsonl", "/tmp/audit/{host}-2.jsonl"}


# --- restarts ---


def start_failed(exit_code: int = -9, failure: LoadFailure | None = None) -> Death:
    return Death(exit_code=exit_code, failure=failure, ready_seconds=None)


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_reason() -> None:
    """At the first start there is nothing to wait for."""
    verdict = Restarts(1).died(start_failed(1, BROKEN), server_was_ready=False)
    assert verdict == GiveUp(1, BROKEN)


def test_a_process_that_is_killed_at_its_start_is_tried_some_times() -> None:
    """Then the server leaves, and says what happened to which process and what can be done."""
    restarts = Restarts(2)
    verdicts = [
        restarts.died(start_failed(), server_was_ready=False)
        for _ in range(policy.MAX_FAILED_STARTS)
    ]
    assert all(isinstance(v, Restart) for v in verdicts[:-1])
    last = verdicts[-1]
    assert isinstance(last, GiveUp)
    assert last.exit_code == 1
    assert (last.failure.reason, last.failure.permanent) == ("ProcessDied", False)
    assert (
        "process 2 was killed by SIGKILL before it was ready, 5 times in a row"
        in last.failure.message
    )
    assert "memory" in last.failure.message


def test_a_server_that_was_ready_tries_even_a_model_that_cannot_be_loaded_again() -> None:
    """What is in the way may pass; when it does not, the reason of the last failure is given."""
    restarts = Restarts(1)
    verdicts = [
        restarts.died(start_failed(1, BROKEN), server_was_ready=True)
        for _ in range(policy.MAX_FAILED_STARTS)
    ]
    assert all(isinstance(v, Restart) for v in verdicts[:-1])
    assert verdicts[-1] == GiveUp(1, BROKEN)


@given(st.lists(st.floats(0, policy.STEADY_SECONDS, exclude_max=True), min_size=1, max_size=40))
def test_a_process_that_dies_again_and_again_is_started_later_and_later(lives: list[float]) -> None:
    """The delay doubles up to its bound, and such a process is never given up."""
    restarts = Restarts(1)
    delays = []
    for ready_seconds in lives:
        verdict = restarts.died(
            Death(exit_code=-11, failure=None, ready_seconds=ready_seconds), server_was_ready=True
        )
        assert isinstance(verdict, Restart)
        delays.append(verdict.delay_seconds)
    assert delays[0] == policy.FIRST_DELAY_SECONDS
    assert all(b == min(2 * a, policy.MAX_DELAY_SECONDS) for a, b in itertools.pairwise(delays))


def test_a_process_that_was_ready_for_long_is_started_at_once_again() -> None:
    """What it died of before is history."""
    restarts = Restarts(1)
    short = Death(exit_code=-11, failure=None, ready_seconds=1)
    for _ in range(5):
        restarts.died(short, server_was_ready=True)
    long = Death(exit_code=-11, failure=None, ready_seconds=policy.STEADY_SECONDS)
    assert restarts.died(long, server_was_ready=True) == Restart(policy.FIRST_DELAY_SECONDS)


# --- sums ---


def exposition(requests: int, seconds: list[float], **gauges: float) -> str:
    """What one process says of itself."""
    registry = CollectorRegistry()
    Counter("requests_total", "Requests.", ["status"], registry=registry).labels("ok").inc(requests)
    histogram = Histogram("duration_seconds", "Time.", buckets=(1, 2), registry=registry)
    for value in seconds:
        histogram.observe(value)
    for name, value in gauges.items():
        Gauge(name, name, registry=registry).set(value)
    return generate_latest(registry).decode()


def totals(sums: Sums) -> dict[str, float]:
    return {
        s.name + json.dumps(s.labels) if s.labels else s.name: s.value
        for metric in sums.metrics([])
        for s in metric.samples
        if not s.name.endswith("_created")
    }


def test_counters_and_histograms_are_summed_and_gauges_as_fits() -> None:
    """In flight: all of them. Ready: when all are. Load time: the longest. Information: 1, however many there are."""
    sums = Sums()
    for life, (requests, loaded, ready) in enumerate(((3, 1.5, 1), (4, 2.5, 0))):
        gauges = {
            names.INFLIGHT_REQUESTS: 2,
            names.MODEL_LOAD_SECONDS: loaded,
            names.MODEL_READY: ready,
            "server_info": 1,
        }
        sums.report(life, exposition(requests, [0.5, 1.5], **gauges))
    assert totals(sums) == {
        'requests_total{"status": "ok"}': 7,
        'duration_seconds_bucket{"le": "1.0"}': 2,
        'duration_seconds_bucket{"le": "2.0"}': 4,
        'duration_seconds_bucket{"le": "+Inf"}': 4,
        "duration_seconds_count": 4,
        "duration_seconds_sum": 4,
        names.INFLIGHT_REQUESTS: 4,
        names.MODEL_LOAD_SECONDS: 2.5,
        names.MODEL_READY: 0,
        "server_info": 1,
    }


def test_a_level_of_the_cache_outside_of_the_processes_is_counted_once() -> None:
    """Each process has answers in its own memory; those in Redis are the same for all."""
    sums = Sums()
    for life in range(2):
        registry = CollectorRegistry()
        entries = Gauge(names.CACHE_ENTRIES, "Entries.", ["level"], registry=registry)
        entries.labels("memory").set(5)
        entries.labels("redis").set(7)
        sums.report(life, generate_latest(registry).decode())
    assert totals(sums) == {
        'ml_cache_entries{"level": "memory"}': 10,
        'ml_cache_entries{"level": "redis"}': 7,
    }


EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.booleans()), max_size=40)


@given(EVENTS)
def test_a_sum_never_falls_whoever_dies(events: list[tuple[int, int, bool]]) -> None:
    """Processes count, report and die in any order; the sum is all that was ever reported."""
    sums, lives, counted, everything = Sums(), [0, 1, 2, 3], [0, 0, 0, 0], 0
    for place, more, dies in events:
        counted[place] += more
        everything += more
        sums.report(lives[place], exposition(counted[place], [1.0] * counted[place]))
        if dies:
            sums.end(lives[place])
            lives[place] = max(lives) + 1
            counted[place] = 0
        now = totals(sums)
        assert now['requests_total{"status": "ok"}'] == now["duration_seconds_count"] == everything


def test_the_gauges_of_the_dead_are_not_counted() -> None:
    """Nothing is in flight in a process that is no more."""
    sums = Sums()
    sums.report(1, exposition(1, [], ml_inflight_requests=2))
    sums.end(1)
    sums.end(1)  # of one that is not known: nothing
    assert "ml_inflight_requests" not in totals(sums)
    assert totals(sums)['requests_total{"status": "ok"}'] == 1
