"""What the CRD's schema cannot say of `spec.serving.cache`, and what it says, for those who come without it."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from canarium_api.cache import CacheSpec, DatabaseCacheSpec, RedisCacheSpec
from canarium_api.duration import format_duration
from canarium_api.quantity import parse_quantity
from canarium_api.runtime_config import MAX_MEMORY_TTL
from canarium_api.v1alpha1 import ServingSpec
from canarium_operator.core.problems import Problem

_FIELD: Final = "spec.serving.cache"
_LEAST_BYTES: Final = {"memory": 1 << 16, "database": 1 << 20}


def validate_cache(serving: ServingSpec) -> list[Problem]:
    """Check the cache of a spec."""
    cache = serving.cache
    if cache is None:
        return []
    return [
        *_levels(cache),
        *_times(cache),
        *_sizes(cache, serving.resources.limits.get("memory")),
        *_urls("redis", cache.redis),
        *_urls("database", cache.database),
    ]


def _levels(cache: CacheSpec) -> Iterator[Problem]:
    if cache.memory is None and cache.redis is None and cache.database is None:
        message = "names no level: add memory, redis or database, or remove cache"
        yield Problem(field=_FIELD, message=message)


def _times(cache: CacheSpec) -> Iterator[Problem]:
    times = {"timeout": cache.timeout}
    for name in ("memory", "redis", "database"):
        if (level := getattr(cache, name)) is not None:
            times[f"{name}.ttl"] = level.ttl
    for name, value in times.items():
        if value <= timedelta(0):
            message = "must be above 0: write a duration such as 30s"
            yield Problem(field=f"{_FIELD}.{name}", message=message)
    if cache.memory is not None and cache.memory.ttl > MAX_MEMORY_TTL:
        longest = format_duration(MAX_MEMORY_TTL)
        message = (
            f"{format_duration(cache.memory.ttl)} is above {longest}, since nobody can take back what a pod "
            f"remembers: lower it to {longest}, or keep answers for longer in redis"
        )
        yield Problem(field=f"{_FIELD}.memory.ttl", message=message)


def _sizes(cache: CacheSpec, memory_limit: str | None) -> Iterator[Problem]:
    for name, least in _LEAST_BYTES.items():
        level = getattr(cache, name)
        if level is not None and parse_quantity(level.size) < least:
            message = f"{level.size} is too little to be of use: at least {least >> 10}Ki"
            yield Problem(field=f"{_FIELD}.{name}.size", message=message)
    if cache.memory is None or memory_limit is None:
        return
    if 2 * parse_quantity(cache.memory.size) > parse_quantity(memory_limit):
        message = (
            f"{cache.memory.size} is above half of the memory limit of {memory_limit}: "
            "lower it, or raise serving.resources.limits.memory"
        )
        yield Problem(field=f"{_FIELD}.memory.size", message=message)


def _urls(name: str, level: RedisCacheSpec | DatabaseCacheSpec | None) -> Iterator[Problem]:
    if level is None:
        return
    field = f"{_FIELD}.{name}"
    if level.url is not None and level.url_from is not None:
        yield Problem(field=field, message="takes one of url and urlFrom: remove one")
    elif level.url is None and level.url_from is None and isinstance(level, RedisCacheSpec):
        message = "needs an address: set url, or urlFrom where it has a password"
        yield Problem(field=field, message=message)
    if level.url is not None and "@" in level.url:
        # Without the value: problems end up in the status, which more people may read than the spec.
        message = (
            "must not hold a user or password: put the URL into a Secret and name it in urlFrom"
        )
        yield Problem(field=f"{field}.url", message=message)
