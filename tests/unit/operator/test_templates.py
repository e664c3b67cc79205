"""AnalysisTemplates: checks that many ModelDeployments share, with arguments."""

from datetime import timedelta
from typing import Any

import pytest

from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.templates import references_of, resolve
from canarium_operator.reconciler import Reconciler
from canarium_operator.surroundings import FRESH_FOR
from canarium_operator.testing.clock import FakeClock
from canarium_operator.testing.cluster import FakeCluster
from canarium_operator.testing.metrics import FakeMetrics
from canarium_operator.testing.objects import model_deployment

TEMPLATE: dict[str, Any] = {
    "args": [{"name": "job"}, {"name": "least", "value": "100"}],
    "metrics": [
        {"name": "orders", "query": 'sum(orders{job="{{args.job}}"}) > {{ args.least }}', "min": 1},
        {
            "name": "clicks",
            "proportion": {
                "events": 'clicks{job="{{args.job}}",revision="{{revision}}"}',
                "trials": 'views{revision="{{revision}}"}',
            },
        },
    ],
}


def spec(*refs: dict[str, Any], metrics: list[dict[str, Any]] | None = None) -> ModelDeploymentSpec:
    """A spec that uses templates."""
    analysis = {"templates": list(refs), "metrics": metrics or []}
    return ModelDeploymentSpec.from_manifest(
        model_deployment(rollout={"analysis": analysis})["spec"]
    )


def used(**ref: Any) -> ModelDeploymentSpec:
    return spec({"name": "shop", "args": [{"name": "job", "value": "web"}], **ref})


def test_a_template_s_checks_join_the_spec_s_own_with_arguments_filled_in() -> None:
    """Given values win over defaults; other placeholders stay for the engine."""
    own = [{"name": "error-rate"}]
    ref = {"name": "shop", "args": [{"name": "job", "value": "web"}]}
    found = resolve(spec(ref, metrics=own), {(False, "shop"): TEMPLATE})
    assert isinstance(found, ModelDeploymentSpec)
    first, orders, clicks = found.rollout.analysis.metrics
    assert first.name == "error-rate"
    assert orders.query == 'sum(orders{job="web"}) > 100'
    assert clicks.proportion is not None
    assert clicks.proportion.events == 'clicks{job="web",revision="{{revision}}"}'
    assert found.rollout.analysis.templates == []


@pytest.mark.parametrize(
    ("given", "template", "field", "words"),
    [
        (used(), None, "name", "AnalysisTemplate shop does not exist in this namespace: create it"),
        (used(clusterScope=True), None, "name", "ClusterAnalysisTemplate shop does not exist: create"),
        (used(args=[]), TEMPLATE, "args", "needs a value for 'job'"),
        (used(args=[{"name": "jop", "value": "x"}]), TEMPLATE, "args", "no argument 'jop': it takes job, least"),
        (used(), {"metrics": []}, "name", "cannot be read"),
        (used(), {"metrics": [{"name": "X"}]}, "name", "cannot be read"),
        (
            spec({"name": "shop", "args": [{"name": "job", "value": "x"}]}, metrics=[{"name": "orders"}]),
            TEMPLATE,
            "name",
            "brings a check 'orders', which there is already",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_resolved_is_named_with_a_remedy(
    given: ModelDeploymentSpec, template: Any, field: str, words: str
) -> None:
    """By the field of the reference."""
    [ref] = given.rollout.analysis.templates
    found = {(ref.cluster_scope, "shop"): template} if template is not None else {}
    problems = resolve(given, found)
    assert isinstance(problems, list)
    assert problems[0].field == f"spec.rollout.analysis.templates[0].{field}"
    assert words in problems[0].message


def test_a_spec_without_templates_needs_none() -> None:
    """And one that cannot be read names none."""
    plain = spec()
    assert resolve(plain, {}) is plain
    assert references_of({"nonsense": 1}) == frozenset()


async def test_templates_are_read_once_a_minute() -> None:
    """Not at every pass; an edit counts soon all the same."""
    cluster, clock = FakeCluster(), FakeClock()
    ref = {"name": "shop", "args": [{"name": "job", "value": "web"}]}
    body = model_deployment(rollout={"analysis": {"templates": [ref], "metrics": []}})
    cluster.templates["ml", "shop"] = {"spec": TEMPLATE}
    cluster.put(body)
    reconciler = Reconciler(cluster, FakeMetrics(), clock, runtime_image="runtime:1")
    obj = ObjectRef(namespace="ml", name="fraud")

    def reads() -> int:
        return sum(call.method == "template" for call in cluster.calls)

    for _ in range(3):
        await reconciler.reconcile(obj)
    assert reads() == 1
    clock.advance(FRESH_FOR + timedelta(seconds=1))
    del cluster.templates["ml", "shop"]
    await reconciler.reconcile(obj)
    assert reads() == 2
    live = await cluster.get(obj)
    assert live is not None
    assert "AnalysisTemplate shop does not exist" in live["status"]["message"]
    cluster.templates["ml", "shop"] = {"spec": TEMPLATE}
    await reconciler.reconcile(obj)
    live = await cluster.get(obj)
    assert live is not None
    assert live["status"]["message"].startswith("mended: "), "a missing one is not waited for"


async def test_a_missing_template_is_looked_for_again_within_a_minute() -> None:
    """Nothing wakes the operator when it is made."""
    cluster = FakeCluster()
    body = model_deployment(rollout={"analysis": {"templates": [{"name": "shop"}], "metrics": []}})
    cluster.put(body)
    reconciler = Reconciler(cluster, FakeMetrics(), FakeClock(), runtime_image="runtime:1")
    obj = ObjectRef(namespace="ml", name="fraud")
    due = timedelta(0)
    for _ in range(5):
        due = await reconciler.reconcile(obj) or timedelta(0)
    assert timedelta(0) < due <= FRESH_FOR
