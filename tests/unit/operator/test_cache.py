"""`spec.serving.cache`: what is refused, and how it reaches the servers."""

from typing import Any

import pytest

from canarium_api.runtime_config import RuntimeConfig
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources.configmap import make_configmap
from canarium_operator.core.resources.workload import make_workload
from canarium_operator.core.revision import Revision, revision_of
from canarium_operator.core.validation import parse_spec, validate
from canarium_operator.testing.objects import model_deployment

REF = ObjectRef(namespace="ml", name="fraud", uid="u-1")
SECRET = {"name": "answers", "key": "redis"}


def make_spec(cache: dict[str, Any] | None, **serving: Any) -> ModelDeploymentSpec:
    changes = {"serving": {**serving, **({"cache": cache} if cache is not None else {})}}
    parsed = parse_spec(model_deployment(**changes)["spec"])
    assert isinstance(parsed, ModelDeploymentSpec), parsed
    return parsed


def revision(cache: dict[str, Any] | None) -> Revision:
    return revision_of(make_spec(cache), "runtime:1")


def settings(cache: dict[str, Any] | None) -> RuntimeConfig:
    return RuntimeConfig.from_env(make_configmap(REF, revision(cache))["data"])


def container(cache: dict[str, Any] | None) -> Manifest:
    workload = make_workload(REF, revision(cache), make_spec(None).rollout)
    found: Manifest = workload["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(
    "cache",
    [
        {"memory": {}},
        {"memory": {"size": "512Mi", "ttl": "5m"}},
        {"redis": {"url": "redis://cache:6379/0"}},
        {"redis": {"urlFrom": {"name": "answers"}}},
        {"database": {}},
        {"database": {"url": "postgresql://db/answers", "size": "10Gi"}, "timeout": "20ms"},
    ],
)
def test_a_cache_that_can_be_made_is_taken(cache: dict[str, Any]) -> None:
    """Nothing is said of it."""
    assert validate(make_spec(cache)) == []


@pytest.mark.parametrize(
    ("cache", "field", "words"),
    [
        ({}, "", "names no level: add memory, redis or database"),
        ({"memory": {"ttl": "10m"}}, ".memory.ttl", "10m is above 5m"),
        ({"memory": {"ttl": "0s"}}, ".memory.ttl", "must be above 0"),
        ({"memory": {}, "timeout": "0s"}, ".timeout", "must be above 0"),
        ({"memory": {"size": "600Mi"}}, ".memory.size", "above half of the memory limit of 1Gi"),
        ({"memory": {"size": "1Ki"}}, ".memory.size", "at least 64Ki"),
        ({"database": {"size": "1Ki"}}, ".database.size", "at least 1024Ki"),
        ({"redis": {}}, ".redis", "needs an address: set url, or urlFrom"),
        ({"redis": {"url": "redis://h", "urlFrom": SECRET}}, ".redis", "one of url and urlFrom"),
        (
            {"redis": {"url": "redis://:hidden@h"}},
            ".redis.url",
            "put the URL into a Secret and name it in urlFrom",
        ),
        (
            {"database": {"url": "postgresql://u:hidden@h/d"}},
            ".database.url",
            "put the URL into a Secret and name it in urlFrom",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_field_and_remedy(
    cache: dict[str, Any], field: str, words: str
) -> None:
    """One problem, which names its field and what to do, and no password."""
    (problem,) = validate(make_spec(cache))
    assert problem.field == f"spec.serving.cache{field}"
    assert words in problem.message
    assert "hidden" not in problem.message


@pytest.mark.parametrize(
    ("cache", "field"),
    [
        ({"redis": {"url": "http://h"}}, "spec.serving.cache.redis.url"),
        ({"database": {"url": "mysql://h/d"}}, "spec.serving.cache.database.url"),
        ({"memory": {"ttl": "soon"}}, "spec.serving.cache.memory.ttl"),
    ],
)
def test_what_is_misspelt_is_refused_by_its_field(cache: dict[str, Any], field: str) -> None:
    """The types refuse it."""
    problems = parse_spec(model_deployment(serving={"cache": cache})["spec"])
    assert isinstance(problems, list)
    assert [problem.field for problem in problems] == [field]


def test_the_servers_get_what_the_spec_says() -> None:
    """All levels with their sizes and times."""
    found = settings(
        {
            "memory": {"size": "64Mi", "ttl": "1m"},
            "redis": {"url": "redis://cache:6379/0", "ttl": "2h"},
            "database": {"url": "postgresql://db/answers", "ttl": "2d", "size": "2Gi"},
            "timeout": "20ms",
        }
    )
    assert found.cache_redis_url is not None
    assert found.cache_database_url is not None
    assert (
        found.cache_memory_bytes,
        found.cache_memory_ttl.total_seconds(),
        found.cache_redis_url.get_secret_value(),
        found.cache_redis_ttl.total_seconds(),
        found.cache_database_url.get_secret_value(),
        found.cache_database_ttl.total_seconds(),
        found.cache_database_bytes,
        found.cache_timeout.total_seconds(),
    ) == (
        64 << 20,
        60,
        "redis://cache:6379/0",
        7200,
        "postgresql://db/answers",
        172800,
        2 << 30,
        0.02,
    )


def test_a_database_without_a_url_is_a_file_in_the_pod() -> None:
    """Below /tmp, where the pod may write."""
    found = settings({"database": {}})
    assert found.cache_database_url is not None
    assert found.cache_database_url.get_secret_value() == "sqlite:////tmp/cache/answers.db"


def test_urls_with_passwords_come_from_secrets_and_never_from_the_configmap() -> None:
    """The container refers to the Secret's key; the ConfigMap does not know the URL."""
    cache = {"redis": {"urlFrom": SECRET}, "database": {"urlFrom": {"name": "db"}}}
    assert settings(cache).cache_redis_url is None
    assert settings(cache).cache_database_url is None
    assert container(cache)["env"] == [
        {
            "name": "CANARIUM_CACHE_REDIS_URL",
            "valueFrom": {"secretKeyRef": {"name": "answers", "key": "redis"}},
        },
        {
            "name": "CANARIUM_CACHE_DATABASE_URL",
            "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}},
        },
    ]


def test_without_a_cache_pods_are_as_before() -> None:
    """An operator that knows caches restarts no pod, and names no revision anew."""
    assert "env" not in container(None)
    assert "env" not in container({"memory": {}})
    assert settings(None).cache_memory_bytes == 0
    assert '"cache"' not in str(revision(None).to_template())


def test_a_cache_is_part_of_the_revision() -> None:
    """It decides the latency, so turning it on is a new revision, with a canary."""
    assert revision({"memory": {}}).name != revision(None).name
    assert revision({"memory": {}}).name != revision({"memory": {"size": "32Mi"}}).name
