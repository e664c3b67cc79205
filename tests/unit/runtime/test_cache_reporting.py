"""What the cache tells: series for Prometheus, one check for `/health`."""

from prometheus_client.parser import text_string_to_metric_families

from canarium_api import metric_names as names
from canarium_api.metric_names import CacheLevel
from canarium_runtime.caching import exposition
from canarium_runtime.caching.statistics import CacheStatistics, LevelStatistics
from canarium_runtime.health import CheckStatus, cache_check
from canarium_runtime.metrics import Histogram, Metrics, render

IDENTITY = {"deployment": "ml/fraud", "model_version": "7", "revision": "r1"}


def statistics(*, up: bool = True) -> CacheStatistics:
    duration = Histogram(names.DURATION_BUCKETS)
    duration.observe(0.002)
    memory = LevelStatistics(name=CacheLevel.MEMORY, hits=5, misses=3, entries=2, bytes=700)
    redis = LevelStatistics(
        name=CacheLevel.REDIS,
        hits=1,
        misses=2,
        errors=3,
        skipped=4,
        dropped=5,
        up=up,
        reason="" if up else "no answer within 50 ms",
        duration=duration,
    )
    return CacheStatistics(levels=(memory, redis), joined=6)


def scrape(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Samples of the cache by name and level; checks the identity labels on the way."""
    found = {}
    for family in text_string_to_metric_families(render([metrics]).decode()):
        for sample in family.samples:
            if sample.name.startswith("ml_cache"):
                assert {k: sample.labels[k] for k in IDENTITY} == IDENTITY
                if sample.labels.get("le", "+Inf") == "+Inf":
                    found[sample.name, sample.labels.get("level", "")] = sample.value
    return found


def test_each_level_has_its_series() -> None:
    """World: statistics of two levels; world: their series, and none for what is not known."""
    metrics = Metrics(**IDENTITY)
    metrics.more.append(lambda identity: exposition.families(statistics(), identity))
    found = scrape(metrics)
    assert found == {
        ("ml_cache_hits_total", "memory"): 5,
        ("ml_cache_misses_total", "memory"): 3,
        ("ml_cache_errors_total", "memory"): 0,
        ("ml_cache_skipped_total", "memory"): 0,
        ("ml_cache_dropped_total", "memory"): 0,
        ("ml_cache_entries", "memory"): 2,
        ("ml_cache_bytes", "memory"): 700,
        ("ml_cache_level_up", "memory"): 1,
        ("ml_cache_hits_total", "redis"): 1,
        ("ml_cache_misses_total", "redis"): 2,
        ("ml_cache_errors_total", "redis"): 3,
        ("ml_cache_skipped_total", "redis"): 4,
        ("ml_cache_dropped_total", "redis"): 5,
        ("ml_cache_level_up", "redis"): 1,
        ("ml_cache_lookup_duration_seconds_bucket", "redis"): 1,
        ("ml_cache_lookup_duration_seconds_count", "redis"): 1,
        ("ml_cache_lookup_duration_seconds_sum", "redis"): 0.002,
        ("ml_cache_joined_total", ""): 6,
    }


def test_without_a_cache_there_are_no_series_of_one() -> None:
    """A server that caches nothing does not look as if it did."""
    assert scrape(Metrics(**IDENTITY)) == {}


def test_a_level_that_is_cut_out_is_a_warning_with_its_reason() -> None:
    """Requests are answered without it, so the pod must not be taken out for it."""
    away = cache_check(statistics(up=False))
    assert (away.name, away.status) == ("cache", CheckStatus.WARN)
    assert away.reason == "not used now: redis: no answer within 50 ms"


def test_levels_that_answer_pass() -> None:
    """The reason names what is in use."""
    well = cache_check(statistics())
    assert (well.status, well.reason) == (CheckStatus.PASS, "in use: memory, redis")
