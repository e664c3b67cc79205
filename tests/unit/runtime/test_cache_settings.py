"""Settings of the cache: what is refused, what is shown, what survives the environment."""

from typing import Any

import pytest
from pydantic import ValidationError

from canarium_api.runtime_config import RuntimeConfig

FULL = RuntimeConfig(
    model_uri="file:///m.onnx",
    cache_memory_bytes=1 << 20,
    cache_memory_ttl="1m",
    cache_redis_url="rediss://user:hidden@cache:6380/1",
    cache_redis_ttl="2h",
    cache_database_url="postgresql://user:hidden@db/answers",
    cache_database_ttl="2d",
    cache_database_bytes=1 << 22,
    cache_timeout="20ms",
)


def test_settings_survive_the_environment() -> None:
    """Rendered and read again they are the same, passwords included."""
    assert RuntimeConfig.from_env(FULL.to_env()) == FULL
    assert FULL.to_env()["CANARIUM_CACHE_REDIS_URL"] == "rediss://user:hidden@cache:6380/1"


def test_passwords_show_in_no_repr() -> None:
    """Who logs the settings does not log a password."""
    assert "hidden" not in repr(FULL)
    assert "hidden" not in str(FULL)


def test_nothing_is_on_by_default() -> None:
    """A model that is not deterministic is served right without any setting."""
    config = RuntimeConfig(model_uri="file:///m.onnx")
    assert config.cache_memory_bytes == 0
    assert config.cache_redis_url is None
    assert config.cache_database_url is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cache_memory_ttl": "6m"}, "CANARIUM_CACHE_MEMORY_TTL must be at most 5m: lower it"),
        ({"cache_timeout": "0s"}, "CANARIUM_CACHE_TIMEOUT must be above 0"),
        ({"cache_redis_ttl": "0s"}, "CANARIUM_CACHE_REDIS_TTL must be above 0"),
        (
            {"cache_redis_url": "http://u:hidden@h"},
            "CANARIUM_CACHE_REDIS_URL must begin with redis:// or rediss:// or unix://",
        ),
        (
            {"cache_database_url": "mysql://u:hidden@h"},
            "CANARIUM_CACHE_DATABASE_URL must begin with sqlite:/// or postgresql://",
        ),
        ({"cache_memory_bytes": -1}, "CANARIUM_CACHE_MEMORY_BYTES: "),
    ],
)
def test_what_is_wrong_is_named_without_what_it_holds(settings: dict[str, Any], words: str) -> None:
    """The message names the variable and the remedy, and no password."""
    with pytest.raises(ValidationError) as caught:
        RuntimeConfig(model_uri="file:///m.onnx", **settings)
    message = RuntimeConfig.describe(caught.value)
    assert words in message
    assert "hidden" not in message
