"""The cache of a revision's servers: settings for the ConfigMap, and URLs with passwords by reference alone."""

from typing import Any, Final

from canarium_api import quantity
from canarium_api.cache import CacheSpec, SecretKeyRef
from canarium_api.runtime_config import PREFIX
from canarium_operator.core.manifests import Manifest

FILE_IN_POD: Final = "sqlite:////tmp/cache/answers.db"
"""In the emptyDir that is the one place where a server may write."""


def cache_settings(cache: CacheSpec | None) -> dict[str, Any]:
    """Translate to fields of `RuntimeConfig`; what is not said keeps its default there."""
    if cache is None:
        return {}
    settings: dict[str, Any] = {"cache_timeout": cache.timeout}
    if cache.memory is not None:
        settings["cache_memory_bytes"] = int(quantity.parse_quantity(cache.memory.size))
        settings["cache_memory_ttl"] = cache.memory.ttl
    if cache.redis is not None:
        settings["cache_redis_ttl"] = cache.redis.ttl
        if cache.redis.url_from is None:
            settings["cache_redis_url"] = cache.redis.url
    if cache.database is not None:
        settings["cache_database_ttl"] = cache.database.ttl
        settings["cache_database_bytes"] = int(quantity.parse_quantity(cache.database.size))
        if cache.database.url_from is None:
            settings["cache_database_url"] = cache.database.url or FILE_IN_POD
    return settings


def cache_environment(cache: CacheSpec | None) -> list[Manifest]:
    """Give the variables of the container that come from Secrets."""
    if cache is None:
        return []
    sources = {
        "CACHE_REDIS_URL": cache.redis.url_from if cache.redis else None,
        "CACHE_DATABASE_URL": cache.database.url_from if cache.database else None,
    }
    return [_from_secret(PREFIX + name, ref) for name, ref in sources.items() if ref is not None]


def _from_secret(name: str, ref: SecretKeyRef) -> Manifest:
    return {
        "name": name,
        "valueFrom": {"secretKeyRef": {"name": ref.name, "key": ref.key}},
    }
