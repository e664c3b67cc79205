"""What the container may use: CPU and memory limits from the cgroup, version 2 or 1.

The machine's own numbers would make a pod with one CPU start a thread for each of the node's 64. Everything is read
below `root`, so tests use a directory.
"""

import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT_V1_BYTES = 1 << 60
"""Version 1 writes "no limit" as a number near 2**63."""


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def cpu_limit(root: Path = ROOT) -> float | None:
    """CPUs that the container may use, such as 1.5; None: no limit or no cgroup."""
    if text := _read(root / "cpu.max"):
        quota, _, period = text.partition(" ")
        return None if quota == "max" else int(quota) / int(period or 100_000)
    quota_us = _read(root / "cpu" / "cpu.cfs_quota_us")
    period_us = _read(root / "cpu" / "cpu.cfs_period_us")
    if quota_us is None or period_us is None or int(quota_us) <= 0:
        return None
    return int(quota_us) / int(period_us)


def usable_cpus(root: Path = ROOT) -> int:
    """Whole CPUs for threads, at least 1: the limit rounded down, never more than the process may run on.

    A limit of 1500m gives 1: a second thread would be throttled for half of each period.
    """
    allowed = len(os.sched_getaffinity(0))
    limit = cpu_limit(root)
    return max(1, min(allowed, int(limit))) if limit is not None else allowed


def memory_bytes(root: Path = ROOT) -> tuple[int, int] | None:
    """Memory as (used without reclaimable page cache, limit) in bytes; None: no limit or no cgroup."""
    if (limit_text := _read(root / "memory.max")) is not None:
        used_text, stat = _read(root / "memory.current"), _read(root / "memory.stat")
    else:
        limit_text = _read(root / "memory" / "memory.limit_in_bytes")
        used_text = _read(root / "memory" / "memory.usage_in_bytes")
        stat = _read(root / "memory" / "memory.stat")
    if (
        not limit_text
        or limit_text == "max"
        or not used_text
        or int(limit_text) >= _NO_LIMIT_V1_BYTES
    ):
        return None
    reclaimable = 0
    for line in (stat or "").splitlines():
        name, _, value = line.partition(" ")
        if name in {"inactive_file", "total_inactive_file"}:
            # Version 1 lists both; the total, which comes last, includes children.
            reclaimable = int(value)
    return max(0, int(used_text) - reclaimable), int(limit_text)
