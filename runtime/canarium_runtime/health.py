"""What `/health` reports: one check for each thing that can be wrong, with its reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from canarium_runtime import cgroup
from canarium_runtime.caching.statistics import CacheStatistics
from canarium_runtime.fallback.chain import Chain
from canarium_runtime.lifecycle import ModelState
from canarium_runtime.models import Models
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


def checks(models: Models) -> tuple[Check, ...]:
    """Look at the server's model, its queue, the other models and the memory."""
    service = models.primary
    found = [_model(service), _queue(service), _memory(cgroup.memory_bytes())]
    if len(models.index()) > 1:
        found.append(_others(models))
    if service.pipeline is not None and service.pipeline.cache is not None:
        found.append(cache_check(service.pipeline.cache.statistics()))
    if service.pipeline is not None and service.pipeline.chain is not None:
        found.append(_chain(service.pipeline.chain))
    return tuple(found)


def report(
    models: Models, problems: Mapping[str, str] | None = None
) -> tuple[bool, dict[str, Any]]:
    """All checks as JSON, and whether none failed.

    Args:
        models: of the server.
        problems: what else is wrong, by part; none of it stops the server.
    """
    service = models.primary
    results = [*checks(models)]
    results += [Check(name, CheckStatus.WARN, why) for name, why in (problems or {}).items()]
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


def cache_check(statistics: CacheStatistics) -> Check:
    """Look at the cache: a level that is cut out costs hits, so it is a warning and never more."""
    away = [f"{level.name.value}: {level.reason}" for level in statistics.levels if not level.up]
    if away:
        return Check("cache", CheckStatus.WARN, f"not used now: {'; '.join(away)}")
    names = ", ".join(level.name.value for level in statistics.levels)
    return Check("cache", CheckStatus.PASS, f"in use: {names}")


def _model(service: InferenceService) -> Check:
    state = service.lifecycle.state
    if service.ready:
        return Check("model", CheckStatus.PASS, f"ready after {service.metrics.load_seconds:.1f} s")
    return Check("model", CheckStatus.FAIL, f"{state.value}: {service.lifecycle.reason}")


def _chain(chain: Chain) -> Check:
    problems = chain.problems()
    if problems:
        text = "; ".join(
            f"{name} is left alone for a while: {why}" for name, why in problems.items()
        )
        return Check("fallback", CheckStatus.WARN, text)
    return Check("fallback", CheckStatus.PASS, "the model answers itself")


def _others(models: Models) -> Check:
    failed = [m for m in models.index() if m.state is ModelState.FAILED]
    if failed:
        text = "; ".join(f"{m.name} {m.version}: {m.reason}" for m in failed)
        return Check("models", CheckStatus.WARN, text)
    ready = sum(m.state is ModelState.READY for m in models.index())
    return Check("models", CheckStatus.PASS, f"{ready} of {len(models.index())} are loaded")


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
