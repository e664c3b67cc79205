"""Limits as the kernel writes them, for both versions."""

import os
from pathlib import Path

import pytest

from canarium_runtime import cgroup

V1_CPU = {"cpu/cpu.cfs_period_us": "100000"}
V1_MEMORY = "memory/memory.limit_in_bytes"
CPUS = len(os.sched_getaffinity(0))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({"cpu.max": "150000 100000"}, 1.5, id="version 2"),
        pytest.param({"cpu.max": "max 100000"}, None, id="version 2 without limit"),
        pytest.param({**V1_CPU, "cpu/cpu.cfs_quota_us": "50000"}, 0.5, id="version 1"),
        pytest.param({**V1_CPU, "cpu/cpu.cfs_quota_us": "-1"}, None, id="version 1 without limit"),
        pytest.param({}, None, id="no cgroup"),
    ],
)
def test_the_cpu_limit_is_read(
    tmp_path: Path, files: dict[str, str], expected: float | None
) -> None:
    """World: files; world: CPUs."""
    assert cgroup.cpu_limit(write(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        pytest.param("50000 100000", 1, id="half a CPU: one thread"),
        pytest.param("190000 100000", 1, id="1.9 CPUs: one, as the second would be throttled"),
        pytest.param("6400000 100000", CPUS, id="more than there are"),
        pytest.param("max 100000", CPUS, id="no limit"),
    ],
)
def test_threads_are_whole_cpus(tmp_path: Path, quota: str, expected: int) -> None:
    """World: a quota; world: threads."""
    assert cgroup.usable_cpus(write(tmp_path, {"cpu.max": quota})) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {
                "memory.max": "1000",
                "memory.current": "600",
                "memory.stat": "anon 1\ninactive_file 100",
            },
            (500, 1000),
            id="version 2",
        ),
        pytest.param(
            {"memory.max": "max", "memory.current": "600"}, None, id="version 2 without limit"
        ),
        pytest.param(
            {
                V1_MEMORY: "1000",
                "memory/memory.usage_in_bytes": "600",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 200",
            },
            (400, 1000),
            id="version 1",
        ),
        pytest.param(
            {V1_MEMORY: "9223372036854771712", "memory/memory.usage_in_bytes": "6"},
            None,
            id="version 1 without limit",
        ),
        pytest.param({}, None, id="no cgroup"),
    ],
)
def test_memory_is_read_without_reclaimable_cache(
    tmp_path: Path, files: dict[str, str], expected: tuple[int, int] | None
) -> None:
    """World: files; world: (used, limit) in bytes."""
    assert cgroup.memory_bytes(write(tmp_path, files)) == expected
