"""From settings to a cache, importing no library of a level that is off."""

from canarium_api.metric_names import CacheLevel
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.caching.cache import ResponseCache
from canarium_runtime.caching.guarded import CONNECT_SECONDS, CONNECTIONS, GuardedLevel
from canarium_runtime.caching.levels import Level
from canarium_runtime.caching.memory import MemoryLevel
from canarium_runtime.errors import LoadError


def make_cache(
    config: RuntimeConfig, model_sha256: str, server_version: str
) -> ResponseCache | None:
    """Make the cache that the settings ask for. Call on the event loop; nothing is connected yet.

    Args:
        config: settings.
        model_sha256: digest of the artefact that is served, as it was read.
        server_version: version of this program, since another may compute otherwise.

    Returns:
        None where no level is on.

    Raises:
        LoadError: InvalidConfig: a URL cannot be used, or a library is missing.
    """
    below = []
    timeout_seconds = config.cache_timeout.total_seconds()
    if config.cache_redis_url is not None:
        level = _redis(config.cache_redis_url.get_secret_value())
        ttl_seconds = config.cache_redis_ttl.total_seconds()
        below.append(
            GuardedLevel(
                CacheLevel.REDIS, level, ttl_seconds=ttl_seconds, timeout_seconds=timeout_seconds
            )
        )
    if config.cache_database_url is not None:
        level = _database(config.cache_database_url.get_secret_value(), config.cache_database_bytes)
        ttl_seconds = config.cache_database_ttl.total_seconds()
        below.append(
            GuardedLevel(
                CacheLevel.DATABASE, level, ttl_seconds=ttl_seconds, timeout_seconds=timeout_seconds
            )
        )
    memory = None
    if config.cache_memory_bytes:
        ttl_seconds = config.cache_memory_ttl.total_seconds()
        memory = MemoryLevel(config.cache_memory_bytes, ttl_seconds)
    if memory is None and not below:
        return None
    return ResponseCache(
        (model_sha256, config.revision, server_version),
        memory,
        below,
        flight_seconds=config.request_timeout.total_seconds(),
    )


def _redis(url: str) -> Level:
    try:
        from canarium_runtime.caching.redis_level import RedisLevel
    except ImportError as error:
        raise _missing("CANARIUM_CACHE_REDIS_URL", error) from error
    try:
        return RedisLevel(url, connections=CONNECTIONS, connect_seconds=CONNECT_SECONDS)
    except ValueError as error:
        raise _unusable("CANARIUM_CACHE_REDIS_URL", "redis://HOST:PORT/NUMBER") from error


def _database(url: str, max_bytes: int) -> Level:
    try:
        from canarium_runtime.caching.sql_level import SqlLevel
    except ImportError as error:
        raise _missing("CANARIUM_CACHE_DATABASE_URL", error) from error
    try:
        return SqlLevel(
            url, max_bytes=max_bytes, connections=CONNECTIONS, connect_seconds=CONNECT_SECONDS
        )
    except ValueError as error:
        expected = "sqlite:////PATH or postgresql://HOST/DATABASE"
        raise _unusable("CANARIUM_CACHE_DATABASE_URL", expected) from error
    except ImportError as error:  # the driver, which the library looks for itself
        raise _missing("CANARIUM_CACHE_DATABASE_URL", error) from error


def _missing(variable: str, error: ImportError) -> LoadError:
    message = (
        f"{variable} needs the package {error.name}, which this image does not have: "
        "install canarium[cache], or unset it"
    )
    return LoadError("InvalidConfig", message, permanent=True)


def _unusable(variable: str, expected: str) -> LoadError:
    """Say it without the library's words, which quote the URL and its password."""
    message = f"{variable} cannot be used: write it as {expected}"
    return LoadError("InvalidConfig", message, permanent=True)
