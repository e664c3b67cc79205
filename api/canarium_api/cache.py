"""`spec.serving.cache`: where answers are kept, so that equal requests need not run the model again."""

from datetime import timedelta

from pydantic import Field

from canarium_api.base import ApiModel, rules
from canarium_api.duration import Duration
from canarium_api.quantity import Quantity


class SecretKeyRef(ApiModel):
    """A key of a Secret in the same namespace."""

    name: str = Field(min_length=1, max_length=253)
    """Name of the Secret."""
    key: str = Field(default="url", min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")
    """Key in it."""


class MemoryCacheSpec(ApiModel):
    """Answers in each pod's own memory: found in a microsecond, and lost with the pod."""

    size: Quantity = "64Mi"
    """Most memory for them; at most half of the memory limit."""
    ttl: Duration = timedelta(minutes=5)
    """How long an answer is kept; at most 5m."""


class RedisCacheSpec(ApiModel):
    """Answers in a Redis, or a server that speaks its protocol, shared by all pods."""

    model_config = rules(
        (
            "has(self.url) != has(self.urlFrom)",
            "serving.cache.redis takes one of url and urlFrom: set one, remove the other",
        ),
        (
            "!has(self.url) || !self.url.contains('@')",
            "serving.cache.redis.url must not hold a user or password: put the URL into a Secret and name it in "
            "urlFrom",
        ),
    )

    url: str | None = Field(default=None, max_length=1024, pattern=r"^rediss?://.+")
    """`redis://HOST:PORT/NUMBER`, or `rediss://` with TLS; without a password."""
    url_from: SecretKeyRef | None = None
    """Secret that holds the URL, where it has a password."""
    ttl: Duration = timedelta(hours=1)
    """How long an answer is kept."""


class DatabaseCacheSpec(ApiModel):
    """Answers in a database: PostgreSQL, shared by all pods, or by default a file of SQLite in each pod."""

    model_config = rules(
        (
            "!(has(self.url) && has(self.urlFrom))",
            "serving.cache.database takes one of url and urlFrom, or neither for a file in the pod: remove one",
        ),
        (
            "!has(self.url) || !self.url.contains('@')",
            "serving.cache.database.url must not hold a user or password: put the URL into a Secret and name it in "
            "urlFrom",
        ),
    )

    url: str | None = Field(default=None, max_length=1024, pattern=r"^postgresql://.+")
    """`postgresql://HOST:PORT/NAME`, without a password. Default: a file in the pod, which outlives a restart of the
    container and not the pod.
    """
    url_from: SecretKeyRef | None = None
    """Secret that holds the URL, where it has a user and a password."""
    ttl: Duration = timedelta(days=1)
    """How long an answer is kept."""
    size: Quantity = "1Gi"
    """Most that the table holds, the answers of all pods and models in it together. Swept every 30 s: until then it
    may be more.
    """


class CacheSpec(ApiModel):
    """Levels that are asked in this order: memory, Redis, database. Only for models that give equal inputs equal
    answers.
    """

    memory: MemoryCacheSpec | None = None
    """Keep answers in the pod's memory. `{}` takes the defaults. Default: off."""
    redis: RedisCacheSpec | None = None
    """Keep answers in Redis. Default: off."""
    database: DatabaseCacheSpec | None = None
    """Keep answers in a database. `{}` is a file in the pod. Default: off."""
    timeout: Duration = timedelta(milliseconds=50)
    """Longest time that a request waits for Redis, and again for the database, before it goes on without."""
