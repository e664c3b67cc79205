"""What `/health` reports: one check for each thing that can be wrong, with its reason."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from canarium_runtime import cgroup
from canarium_runtime.service import InferenceService

_QUEUE_WARN_PERCENT = 80
_MEMORY_WARN_PERCENT = 90


class CheckStatus(StrEnum):
    """How one check stands. Only FAIL makes the whole answer 503."""

    PASS = "pass"  # noqa: S105 - not a password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One check."""

    name: str
    status: CheckStatus
    reason: str


def checks(service: InferenceService) -> tuple[Check, ...]:
    """Look at the model, the queue and the memory."""
    return (_model(service), _queue(service), _memory(cgroup.memory_bytes()))


def report(service: InferenceService) -> tuple[bool, dict[str, Any]]:
    """All checks as JSON, and whether none failed."""
    results = checks(service)
    worst = max(results, key=lambda c: list(CheckStatus).index(c.status)).status
    config = service.config
    document = {
        "status": worst.value,
        "model": config.model_name,
        "model_version": config.model_version,
        "revision": config.revision,
        "state": service.lifecycle.state.value,
        "checks": {c.name: {"status": c.status.value, "reason": c.reason} for c in results},
    }
    return worst is not CheckStatus.FAIL, document


def _model(service: InferenceService) -> Check:
    state = service.lifecycle.state
    if service.ready:
        return Check("model", CheckStatus.PASS, f"ready after {service.metrics.load_seconds:.1f} s")
    return Check("model", CheckStatus.FAIL, f"{state.value}: {service.lifecycle.reason}")


def _queue(service: InferenceService) -> Check:
    waiting, capacity = service.waiting, service.config.queue_size
    text = f"{waiting} of at most {capacity} requests wait"
    if waiting >= capacity:
        return Check("queue", CheckStatus.FAIL, text + "; new ones are refused")
    warn = waiting * 100 >= capacity * _QUEUE_WARN_PERCENT
    return Check("queue", CheckStatus.WARN if warn else CheckStatus.PASS, text)


def _memory(usage: tuple[int, int] | None) -> Check:
    if usage is None:
        return Check("memory", CheckStatus.PASS, "no limit is set")
    used, limit = usage
    text = f"{used >> 20} of {limit >> 20} MiB used"
    warn = used * 100 >= limit * _MEMORY_WARN_PERCENT
    return Check("memory", CheckStatus.WARN if warn else CheckStatus.PASS, text)
