"""The world: what the watches bring, folded into what the story and the report need."""

from typing import Any

import pytest

from canarium_demo.world import World, rollout_weights

SPEC = {
    "model": {"uri": "configmap://digits-v2/model.onnx"},
    "traffic": {"gateway": {"name": "public"}},
    "rollout": {"canary": {"steps": [{"weight": 10}, {"weight": 50}]}},
}
STATUS = {
    "observedGeneration": 2,
    "phase": "Aborted",
    "stable": {"revision": "bbbb", "modelVersion": "v2"},
    "canary": {"revision": "cccc", "modelVersion": "v3"},
    "failedRevisions": [
        {
            "revision": "cccc",
            "modelVersion": "v3",
            "reason": "AnalysisFailed",
            "message": "32% is above max 5%",
            "failedAt": "2026-01-01T00:00:00Z",
        }
    ],
    "history": [
        {
            "revision": revision,
            "modelVersion": version,
            "outcome": outcome,
            "message": "",
            "finishedAt": "2026-01-01T00:00:00Z",
        }
        for revision, version, outcome in (
            ("aaaa", "v1", "Deployed"),
            ("bbbb", "v2", "Promoted"),
            ("cccc", "v3", "RolledBack"),
        )
    ],
}


def route(**weights: int) -> dict[str, Any]:
    backends = [{"name": f"digits-{r}", "weight": w} for r, w in weights.items()]
    return {"spec": {"rules": [{"backendRefs": backends}]}}


def operator(
    uid: str, *, ready: bool = True, restarts: int = 0, leaving: bool = False
) -> dict[str, Any]:
    metadata = {"uid": uid, **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {})}
    return {
        "metadata": metadata,
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"restartCount": restarts}],
        },
    }


def world() -> World:
    seen = World(name="digits")
    seen.see_object({"metadata": {"generation": 2}, "spec": SPEC, "status": STATUS})
    return seen


def test_versions_are_learnt_from_the_status() -> None:
    """Also those of revisions that are long gone."""
    assert world().versions == {"aaaa": "v1", "bbbb": "v2", "cccc": "v3"}
    assert world().revisions_of("v3") == ["cccc"]


def test_outcomes_are_what_the_status_says() -> None:
    """Promoted and failed versions, by name."""
    assert world().outcomes("Promoted") == ["v2"]
    assert world().failed_versions == ["v3"]


def test_the_plan_ends_at_100() -> None:
    """As the operator adds a last step to a list that ends below."""
    assert world().plan == [10, 50, 100]


def test_an_object_without_a_status_is_pending() -> None:
    """The first look may come before the operator's."""
    seen = World(name="digits")
    seen.see_object({"metadata": {"generation": 1}, "spec": SPEC})
    assert seen.status.observed_generation == -1


def test_weights_of_a_canary_are_those_until_it_is_stable() -> None:
    """What comes after 100 belongs to the next rollout."""
    seen = world()
    for weights in (
        {"aaaa": 100},
        {"aaaa": 90, "bbbb": 10},
        {"aaaa": 90, "bbbb": 10},
        {"bbbb": 100},
        {"bbbb": 90, "cccc": 10},
        {"bbbb": 100},
    ):
        seen.see_route(route(**weights))
    assert len(seen.routes) == 5
    assert seen.canary_weights("v2") == [10, 100]
    assert seen.canary_weights("v3") == [10]


@pytest.mark.parametrize(
    ("weights", "seen"),
    [([0, 10, 10, 25, 100, 90, 100], [10, 25, 100]), ([10, 0, 10, 25], [10, 25]), ([], [])],
)
def test_rollout_weights(weights: list[int], seen: list[int]) -> None:
    """Repetitions and zeros say nothing: pods that were lost for a moment take the weight to 0 and back."""
    assert rollout_weights(weights) == seen


def test_an_event_is_taken_once() -> None:
    """A watch that begins anew brings all events again."""
    seen = World(name="digits")
    event = {
        "metadata": {"uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "reason": "Promoted",
        "message": "v2 replaces v1",
        "type": "Normal",
    }
    seen.see_event(event)
    seen.see_event(event)
    assert [e.reason for e in seen.events] == ["Promoted"]


def test_a_new_operator_pod_is_one_restart_once_it_is_ready() -> None:
    """Restarts from before the demo do not count."""
    seen = World(name="digits")
    seen.see_operator(operator("old", leaving=True))
    seen.see_operator(operator("first", restarts=3))
    assert seen.operator_restarts == 0
    seen.see_operator(operator("second", ready=False))
    assert seen.operator_restarts == 0
    seen.see_operator(operator("second"))
    assert seen.operator_restarts == 1


def test_a_restarted_container_of_the_operator_counts_too() -> None:
    """The pod is the same, the process is not."""
    seen = World(name="digits")
    seen.see_operator(operator("first"))
    seen.see_operator(operator("first", restarts=1))
    assert seen.operator_restarts == 1
