"""What the server exports."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from canarium_api import metric_names as names
from canarium_api.metric_names import PredictionStatus
from canarium_runtime.metrics import Histogram, Metrics, render

IDENTITY = {"deployment": "ml/fraud", "model_version": "7", "revision": "r1"}


def scrape(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Samples by name and the label that tells them apart; checks the identity labels on the way."""
    found = {}
    for family in text_string_to_metric_families(render([metrics]).decode()):
        for sample in family.samples:
            if sample.name.startswith("ml_"):
                assert {k: sample.labels[k] for k in IDENTITY} == IDENTITY
                found[sample.name, sample.labels.get("status", sample.labels.get("le", ""))] = (
                    sample.value
                )
    return found


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(**IDENTITY)


def test_every_series_is_there_from_the_start_at_zero(metrics: Metrics) -> None:
    """Prometheus' increase() would lose what a series held when it was first scraped."""
    found = scrape(metrics)
    assert set(found.values()) == {0.0}
    assert {(names.PREDICTIONS_TOTAL, s.value) for s in PredictionStatus} <= set(found)
    for name in (
        names.PREDICTION_DURATION_SECONDS,
        names.BATCH_SIZE,
        names.QUEUE_DURATION_SECONDS,
        names.INFERENCE_DURATION_SECONDS,
    ):
        assert (name + "_bucket", "+Inf") in found
        assert (name + "_count", "") in found
    for name in (
        names.INFLIGHT_REQUESTS,
        names.QUEUE_LENGTH,
        names.MODEL_LOAD_SECONDS,
        names.MODEL_READY,
    ):
        assert (name, "") in found


def test_what_happens_is_counted(metrics: Metrics) -> None:
    """World: a few events; world: their series."""
    metrics.failed[PredictionStatus.INVALID] += 2
    metrics.batch_ran(rows=3, seconds=0.004)
    metrics.left_queue(0.0002)
    metrics.inflight = 4
    metrics.queue_length = lambda: 5
    metrics.ready = True
    found = scrape(metrics)
    assert found[names.PREDICTIONS_TOTAL, "invalid"] == 2
    assert found[names.BATCH_SIZE + "_sum", ""] == 3
    assert found[names.INFERENCE_DURATION_SECONDS + "_bucket", "0.005"] == 1
    assert found[names.INFERENCE_DURATION_SECONDS + "_bucket", "0.0025"] == 0
    assert found[names.QUEUE_DURATION_SECONDS + "_bucket", "0.0005"] == 1
    assert found[names.INFLIGHT_REQUESTS, ""] == 4
    assert found[names.QUEUE_LENGTH, ""] == 5
    assert found[names.MODEL_READY, ""] == 1


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        pytest.param(0.5, [1, 1, 1], id="below"),
        pytest.param(1, [1, 1, 1], id="a bound belongs to its bucket"),
        pytest.param(1.5, [0, 1, 1], id="between"),
        pytest.param(9, [0, 0, 1], id="above all"),
    ],
)
def test_buckets_are_cumulative(value: float, counts: list[int]) -> None:
    """World: bounds 1 and 2; event: a value; world: cumulative counts."""
    histogram = Histogram((1, 2))
    histogram.observe(value)
    buckets, total = histogram.snapshot()
    assert [c for _, c in buckets] == counts
    assert [b for b, _ in buckets] == ["1.0", "2.0", "+Inf"]
    assert total == value


def test_several_models_share_a_family_and_not_a_series() -> None:
    """Each name is declared once, and each model keeps its own numbers."""
    first, second = Metrics(**IDENTITY), Metrics(**{**IDENTITY, "model_version": "other:1"})
    first.succeeded, second.succeeded = 3, 5
    text = render([first, second]).decode()
    assert text.count(f"# TYPE {names.PREDICTIONS_TOTAL} ") == 1
    found = {
        sample.labels["model_version"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == names.PREDICTIONS_TOTAL and sample.labels["status"] == "success"
    }
    assert found == {"7": 3, "other:1": 5}
