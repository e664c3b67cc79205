"""`diff`: what is and what must be go in, changes come out."""

import copy
from dataclasses import replace

from canarium_operator.core import naming
from canarium_operator.core.diff import Apply, Change, Delete, Scale, diff
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.plan import Plan, RevisionPlan
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.revision import revision_of
from canarium_operator.testing.scenario import IMAGE, make_spec

REF = ObjectRef(namespace="ml", name="fraud", uid="u-1")
OLD, NEW = (revision_of(make_spec(version), IMAGE) for version in "12")


def plan_of(*names: str, size: int = 2, **weights: int) -> Plan:
    """A plan in which the named revisions run."""
    known = {"old": OLD, "new": NEW}
    return Plan(
        ref=REF,
        spec=make_spec(),
        revisions=tuple(
            RevisionPlan(revision=known[n], min_replicas=size, max_replicas=9) for n in names
        ),
        weights={known[n].name: weight for n, weight in weights.items()} or None,
    )


def cluster_of(plan: Plan, replicas: int = 2) -> list[Manifest]:
    """The children that a plan led to, as the API server gives them back."""
    live = copy.deepcopy(list(desired_children(plan)))
    for child in live:
        child["metadata"]["uid"] = f"uid-{child['kind']}-{child['metadata']['name']}"
        child["metadata"]["resourceVersion"] = "1"
        if child["kind"] == "Deployment":
            child["spec"]["replicas"] = replicas
        if child["kind"] == "HTTPRoute":  # the CRD's defaults
            for backend in child["spec"]["rules"][0]["backendRefs"]:
                backend["defaulted"] = True
    return live


def changes(plan: Plan, live: list[Manifest], *, full: bool = False) -> list[tuple[str, str, str]]:
    """The changes as (what, kind, revision)."""

    def row(change: Change) -> tuple[str, str, str]:
        labels = change.manifest["metadata"]["labels"]
        name = {OLD.name: "old", NEW.name: "new"}.get(labels.get(naming.REVISION_LABEL, ""), "")
        return type(change).__name__, change.manifest["kind"], name

    return [row(change) for change in diff(plan, desired_children(plan), live, full=full)]


SERVING = plan_of("old", old=100)


def test_an_empty_namespace_gets_everything() -> None:
    """And the new Deployment is scaled at once, since its HPA would take a while to notice it."""
    assert changes(SERVING, []) == [
        ("Apply", "ConfigMap", "old"),
        ("Apply", "Service", "old"),
        ("Apply", "Deployment", "old"),
        ("Scale", "Deployment", "old"),
        ("Apply", "PodDisruptionBudget", "old"),
        ("Apply", "HorizontalPodAutoscaler", "old"),
        ("Apply", "HTTPRoute", ""),
    ]


def test_nothing_is_done_when_all_is_as_planned() -> None:
    """Defaults of the API server and counts of an autoscaler are no difference."""
    assert changes(SERVING, cluster_of(SERVING, replicas=7)) == []


def test_a_full_pass_applies_everything_again() -> None:
    """That repairs what others changed without touching our stamp."""
    assert {what for what, _, _ in changes(SERVING, cluster_of(SERVING), full=True)} == {"Apply"}
    assert len(changes(SERVING, cluster_of(SERVING), full=True)) == 6


def test_a_changed_plan_applies_only_what_differs() -> None:
    """A larger lower bound touches the HPA, and the Deployment only by scaling."""
    assert changes(
        replace(SERVING, revisions=plan_of("old", size=3).revisions), cluster_of(SERVING)
    ) == [
        ("Scale", "Deployment", "old"),
        ("Apply", "HorizontalPodAutoscaler", "old"),
    ]


def test_a_deployment_is_never_scaled_down() -> None:
    """That is for its autoscaler to decide."""
    assert changes(SERVING, cluster_of(SERVING, replicas=9)) == []


def test_weights_that_somebody_changed_are_set_right_at_once() -> None:
    """The live route decides, not what we once wrote on it."""
    live = cluster_of(SERVING)
    live[-1]["spec"]["rules"][0]["backendRefs"][0]["weight"] = 1
    assert changes(SERVING, live) == [("Apply", "HTTPRoute", "")]


def test_a_rule_that_somebody_added_is_taken_out() -> None:
    """It would carry traffic past the weights."""
    live = cluster_of(SERVING)
    live[-1]["spec"]["rules"].append({"backendRefs": [{"name": "elsewhere"}]})
    assert changes(SERVING, live) == [("Apply", "HTTPRoute", "")]


def test_a_revision_without_a_place_in_the_plan_is_deleted() -> None:
    """The HPA goes first and the ConfigMap, its memory, last; pods are left to the Deployment."""
    live = cluster_of(plan_of("new", "old", old=100))
    live.append(
        {"kind": "Pod", "metadata": {"name": "p", "labels": {naming.REVISION_LABEL: NEW.name}}}
    )
    assert changes(SERVING, live) == [
        ("Delete", "HorizontalPodAutoscaler", "new"),
        ("Delete", "Deployment", "new"),
        ("Delete", "PodDisruptionBudget", "new"),
        ("Delete", "Service", "new"),
        ("Delete", "ConfigMap", "new"),
    ]


def test_nothing_is_deleted_while_the_live_route_gives_it_traffic() -> None:
    """First the route is set right; the next pass deletes."""
    live = cluster_of(plan_of("new", "old", old=90, new=10))
    assert changes(SERVING, live) == [("Apply", "HTTPRoute", "")]


def test_nothing_is_deleted_that_the_plan_gives_traffic() -> None:
    """A revision whose template was lost cannot be made again, but what runs of it goes on serving."""
    lost = replace(plan_of("new", old=100), kept=frozenset())
    live = cluster_of(plan_of("old", old=100))
    assert not [row for row in changes(lost, live) if row[0] == "Delete"]


def test_what_the_plan_keeps_is_not_deleted() -> None:
    """Also without traffic: it drains."""
    live = cluster_of(plan_of("new", "old", old=100))
    assert changes(replace(SERVING, kept=frozenset({NEW.name})), live) == []


def test_the_route_is_never_deleted() -> None:
    """Even a plan without a route leaves it: it goes with its owner."""
    live = [child for child in cluster_of(SERVING) if child["kind"] == "HTTPRoute"]
    assert changes(replace(plan_of(), weights=None), live) == []


def test_what_is_being_deleted_is_not_deleted_again() -> None:
    """It waits for finalizers."""
    live = cluster_of(plan_of("new", "old", old=100))
    for child in live:
        child["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert changes(SERVING, live) == []


def test_the_same_input_gives_the_same_changes() -> None:
    """Order included, so that a pass after a crash goes on where the last one stopped."""
    live = cluster_of(plan_of("new", "old", old=100))
    first = diff(SERVING, desired_children(SERVING), live, full=True)
    assert diff(SERVING, desired_children(SERVING), list(reversed(live)), full=True) == first
    assert all(isinstance(change, Apply | Scale | Delete) for change in first)
