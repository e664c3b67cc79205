"""What each of several processes gets of the container's CPUs and of the settings' bounds."""

import math
from pathlib import Path
from typing import Any

from canarium_api.runtime_config import RuntimeConfig

_DIVIDED = ("queue_size", "model_memory_bytes", "cache_memory_bytes")


def count(config: RuntimeConfig, usable_cpus: int) -> int:
    """How many processes serve: as set, or one for each whole CPU."""
    return config.processes or max(1, usable_cpus)


def of_each(
    config: RuntimeConfig, processes: int, usable_cpus: int, number: int = 1
) -> RuntimeConfig:
    """Settings of one of several processes.

    Threads for a run are the CPUs shared by all runs that can happen at a time. Bounds of the queue, of memory for
    models and of memory for cached answers are the whole server's: each process has its part, rounded up. A file of
    audit records has one writer, so each process has one of its own.

    Args:
        config: of the whole server.
        processes: how many there are.
        usable_cpus: whole CPUs of the container.
        number: which of them, from 1.
    """
    audit = Path(config.audit_file)
    changes: dict[str, Any] = {
        "processes": 1,
        "audit_file": str(audit.with_name(f"{audit.stem}-{number}{audit.suffix}")),
        **{name: math.ceil(getattr(config, name) / processes) for name in _DIVIDED},
    }
    if config.intra_op_threads == 0:
        changes["intra_op_threads"] = max(1, usable_cpus // processes // config.workers)
    return config.model_copy(update=changes)
