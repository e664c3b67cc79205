"""What becomes of a ModelDeployment when its manifest changes: spec before and after in, effect out."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_cli.changes.planning import Change, Effect, plan
from canarium_operator.core.revision import revision_of

DIGEST, OTHER = "a" * 64, "b" * 64
SPEC: dict[str, Any] = {
    "model": {"uri": "https://m.example.com/v1.onnx", "sha256": DIGEST, "version": "v1"},
    "traffic": {"gateway": {"name": "public"}},
}


def changed(**parts: dict[str, Any]) -> dict[str, Any]:
    """The spec with some parts changed, one level deep."""
    spec = copy.deepcopy(SPEC)
    for name, part in parts.items():
        spec[name] = {**spec.get(name, {}), **part}
    return spec


def planned(before: Any, after: Any, templates: Any = None) -> Change:
    return plan("files", "shop/deliveries", (before, after), templates or {})


V2 = {"uri": "https://m.example.com/v2.onnx", "sha256": OTHER, "version": "v2"}
TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
WIDER = {**TENSOR, "shape": [-1, 3]}


@pytest.mark.parametrize(
    ("before", "after", "effect"),
    [
        (None, SPEC, Effect.FIRST_DEPLOYMENT),
        (SPEC, None, Effect.REMOVED),
        (SPEC, SPEC, Effect.NONE),
        (SPEC, changed(model=V2), Effect.ROLLOUT),
        (SPEC, changed(serving={"maxBatchSize": 8}), Effect.ROLLOUT),
        (SPEC, changed(serving={"image": "x/y:1"}), Effect.ROLLOUT),
        (SPEC, changed(serving={"maxBatchSize": 32}), Effect.NONE),  # the default
        (SPEC, changed(model={"uri": "https://other.example.com/v1.onnx"}), Effect.IN_PLACE),
        (SPEC, changed(autoscaling={"maxReplicas": 30}), Effect.IN_PLACE),
        (SPEC, changed(rollout={"paused": True}), Effect.IN_PLACE),
        (SPEC, changed(model={"uri": "ftp://x"}), Effect.REFUSED),
        (SPEC, changed(autoscaling={"minReplicas": "many"}), Effect.REFUSED),
        ({"model": {}}, SPEC, Effect.FIRST_DEPLOYMENT),
        (
            SPEC,
            changed(rollout={"fixed": {"versions": [{"name": "eu", "weight": 20, "model": V2}]}}),
            Effect.VERSIONS,
        ),
    ],
)  # fmt: skip
def test_a_change_has_its_effect(before: Any, after: Any, effect: Effect) -> None:
    """Only what decides a prediction begins a rollout."""
    assert planned(before, after).effect is effect


@pytest.mark.parametrize(
    ("rollout", "steps", "least", "approvals"),
    [
        ({}, "1% 5m|5% 5m|10% 5m|25% 5m|50% 5m|100% 5m", 1800, 0),
        (
            {"canary": {"steps": [{"weight": 10, "pause": "1h", "approval": True}, {"weight": 50}]}},
            "10% 1h approval|50% 5m|100%",
            3900,
            1,
        ),
        ({"blueGreen": {}}, "preview 0% 1m|100% 5m", 360, 0),
        (
            {"abTest": {"sticky": {"header": "x"}, "goals": ["error-rate"], "minDuration": "1d"}},
            "A/B test 50% 1d|100%",
            86400,
            0,
        ),
        (
            {"shadow": {"percent": 20, "pause": "2m"}, "canary": {"steps": [{"weight": 100}]}},
            "shadow 20% 2m|100% 5m",
            420,
            0,
        ),
    ],
)  # fmt: skip
def test_the_steps_and_the_least_time_are_those_of_the_engine(
    rollout: dict[str, Any], steps: str, least: int, approvals: int
) -> None:
    """The pauses add up; what is gated may hold longer."""
    change = planned(SPEC, changed(model=V2, rollout=rollout))
    shown = "|".join(str(s).replace(" for", "").replace(",", "") for s in change.steps)
    assert (shown, change.least_seconds, change.approvals) == (steps, least, approvals)


def test_without_a_gateway_the_steps_are_those_that_pods_can_give() -> None:
    """Three pods at least: the default steps become 25, 50 and 100 %."""
    before = {"model": SPEC["model"]}
    change = planned(before, {"model": V2})
    assert [step.weight for step in change.steps] == [25, 50, 100]


def test_what_makes_another_revision_is_told_apart_from_what_is_applied_in_place() -> None:
    """Field by field, with both values; of a digest its beginning."""
    change = planned(SPEC, changed(model=V2, autoscaling={"maxReplicas": 30}))
    assert [(f.field, f.before, f.after) for f in change.revision_fields] == [
        ("spec.model.uri", "https://m.example.com/v1.onnx", "https://m.example.com/v2.onnx"),
        ("spec.model.sha256", "a" * 12, "b" * 12),
        ("spec.model.version", "v1", "v2"),
    ]
    assert [(f.field, f.before, f.after) for f in change.other_fields] == [
        ("spec.autoscaling.maxReplicas", "20", "30")
    ]


@pytest.mark.parametrize(
    ("old", "new", "policy", "breaks"),
    [
        ([TENSOR], [TENSOR], "Refuse", []),
        ([TENSOR], [WIDER], "Refuse", ["input 'x' has shape [-1, 3], it had [-1, 2]"]),
        ([], [WIDER], "Refuse", []),
    ],
)
def test_declared_inputs_and_outputs_are_compared(
    old: list[Any], new: list[Any], policy: str, breaks: list[str]
) -> None:
    """Where both manifests declare them; else pods tell, and the plan says so."""
    before, after = changed(model={"inputs": old}), changed(model={**V2, "inputs": new})
    change = planned(before, after)
    assert list(change.breaks) == breaks
    told = any("when pods of both revisions are up" in note for note in change.notes)
    assert told == (not old)


@pytest.mark.parametrize(
    ("rollout", "words"),
    [
        ({"paused": True}, "rollout.paused is true"),
        ({"freezes": [{"from": "18:00", "to": "08:00"}]}, "1 freeze window may hold it"),
        ({"gates": [{"name": "desk", "url": "https://x"}]}, "outside systems must agree: desk"),
        ({"schemaChange": "Allow"}, "inputs and outputs are not compared"),
        ({"rollbackWindow": 0}, ""),
    ],
)
def test_what_may_hold_a_rollout_is_noted(rollout: dict[str, Any], words: str) -> None:
    """So that nobody wonders why it does not move."""
    notes = " | ".join(planned(SPEC, changed(model=V2, rollout=rollout)).notes)
    assert words in notes
    assert ("stable before" in notes) == ("rollbackWindow" not in rollout)


TEMPLATE = {"metrics": [{"name": "latency-p50", "max": "1s"}]}
NAMED = {"analysis": {"templates": [{"name": "usual"}]}}


@pytest.mark.parametrize("templates", [{}, {(False, "usual"): TEMPLATE}])
def test_templates_add_their_checks_where_they_are_known(templates: Any) -> None:
    """One that is not in git is no reason to refuse."""
    change = planned(SPEC, changed(model=V2, rollout=NAMED), templates)
    assert change.effect is Effect.ROLLOUT
    assert change.steps[0].checks == 3 + len(templates)


PARTS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "model": st.fixed_dictionaries(
            {},
            optional={
                "uri": st.sampled_from(["https://m.example.com/1", "https://m.example.com/2"]),
                "sha256": st.sampled_from([DIGEST, OTHER, None]),
                "version": st.sampled_from(["v1", "v2"]),
            },
        ),
        "serving": st.fixed_dictionaries(
            {},
            optional={
                "maxBatchSize": st.sampled_from([8, 32]),
                "jobs": st.fixed_dictionaries(
                    {"redis": st.just({"name": "redis", "key": "url"})},
                    optional={"workers": st.fixed_dictionaries({"max": st.integers(1, 5)})},
                ),
            },
        ),
        "autoscaling": st.fixed_dictionaries({}, optional={"maxReplicas": st.integers(3, 9)}),
    },
)


@given(PARTS, PARTS)
def test_fields_that_make_another_revision_are_told_exactly_where_there_is_one(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    """The plan's view of which fields decide is that of `revision_of`."""
    before, after = changed(**one), changed(**other)
    change = planned(before, after)
    if change.effect is Effect.REFUSED:
        return
    names = [
        revision_of(ModelDeploymentSpec.from_manifest(spec), "i").name for spec in (before, after)
    ]
    assert bool(change.revision_fields) == (names[0] != names[1])
    assert (change.effect is Effect.ROLLOUT) == (names[0] != names[1])
