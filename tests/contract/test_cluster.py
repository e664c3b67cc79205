"""The contract of `ports.Cluster`: what the operator relies on, held by the fake and by a real API server alike."""

import copy
from datetime import UTC, datetime

import pytest

from canarium_api import API_VERSION, KIND
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import manifests, naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.memory import Memory, make_copy, make_memory, restored
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.plan import Plan, RevisionPlan
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.revision import Revision, revision_of
from canarium_operator.core.rollout.strategy import Strategy, steps_of
from canarium_operator.errors import (
    ConflictError,
    NotFoundError,
    RejectedError,
    TransientClusterError,
)
from canarium_operator.ports import EventRecord

from .world import World, object_of

IMAGE = "canarium.dev/canarium-runtime:contract"
STATUS = {
    "observedGeneration": 1,
    "phase": "Loading",
    "message": "hello",
    "summary": {"step": "1/6"},
}


def configmap(ref: ObjectRef, **data: str) -> Manifest:
    """A small child."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": naming.child_name(ref.name, "r1"),
            "namespace": ref.namespace,
            "labels": naming.object_labels(ref),
            "ownerReferences": [naming.owner_reference(ref)],
        },
        "data": data,
    }


async def planned(world: World, ref: ObjectRef) -> tuple[Revision, dict[str, Manifest]]:
    """All that the operator makes for an object, by kind."""
    body = await world.cluster.get(ref)
    assert body is not None
    spec = ModelDeploymentSpec.from_manifest(body["spec"])
    revision = revision_of(spec, IMAGE)
    plan = Plan(
        ref=ref,
        spec=spec,
        revisions=(RevisionPlan(revision=revision, min_replicas=2, max_replicas=5),),
        weights={revision.name: 100},
    )
    return revision, {child["kind"]: child for child in desired_children(plan)}


async def get(world: World, ref: ObjectRef) -> Manifest:
    body = await world.cluster.get(ref)
    assert body is not None
    return body


async def test_an_absent_object_is_none(world: World) -> None:
    """No error: a worker learns in this way that its object is gone."""
    assert await world.cluster.get(ObjectRef(namespace=world.namespace, name="nobody")) is None


async def test_a_short_manifest_gets_every_default(world: World) -> None:
    """A model and a gateway are enough; the API server fills in the rest, also within what was given in part."""
    ref = await world.put(
        object_of(world, serving={"maxBatchSize": 8}, rollout={"analysis": {"minSamples": 5}})
    )
    spec = (await get(world, ref))["spec"]
    assert spec["autoscaling"] == {"minReplicas": 3, "maxReplicas": 20, "cpu": 70, "memory": 80}
    # Which strategy is meant where none is named is for the operator to say.
    assert "canary" not in spec["rollout"]
    steps = steps_of(ModelDeploymentSpec.from_manifest(spec).rollout, Strategy.CANARY)
    assert [step.weight for step in steps] == [1, 5, 10, 25, 50, 100]
    assert spec["rollout"]["analysis"]["minSamples"] == 5
    metrics = [metric["name"] for metric in spec["rollout"]["analysis"]["metrics"]]
    assert metrics == ["error-rate", "invalid-rate", "latency-p95"]
    assert (spec["serving"]["maxBatchSize"], spec["serving"]["maxDelay"]) == (8, "100ms")
    assert ModelDeploymentSpec.from_manifest(spec).rollout.progress_deadline.total_seconds() == 600


async def test_a_new_object_is_not_taken_for_a_ready_one(world: World) -> None:
    """Before the operator has seen it, its status says that no generation was observed."""
    ref = await world.put(object_of(world))
    assert (await get(world, ref))["status"] == {"observedGeneration": -1}


async def test_only_a_change_of_the_spec_makes_a_new_generation(world: World) -> None:
    """Annotations, status and an apply of the same leave the generation alone."""
    ref = await world.put(object_of(world))
    await world.put(object_of(world))
    await world.annotate(ref, naming.command_annotation("retry"), "1")
    await world.cluster.apply_status({**await get(world, ref), "status": STATUS})
    assert (await get(world, ref))["metadata"]["generation"] == 1
    await world.put(object_of(world, version="2"))
    assert (await get(world, ref))["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("uri", {"model": {"uri": "ftp://nowhere"}}),
        ("gateway", {"traffic": {"gateway": {"namespace": "g"}}}),
        ("weight", {"rollout": {"canary": {"steps": [{"weight": 0}]}}}),
        ("steps", {"rollout": {"canary": {"steps": []}}}),
        ("maxDelay", {"serving": {"maxDelay": "soon"}}),
        ("maxReplicas", {"autoscaling": {"maxReplicas": 0}}),
        ("format", {"model": {"uri": "https://m/a", "format": "pickle"}}),
        ("hostnames", {"traffic": {"gateway": {"name": "g"}, "hostnames": ["Not A Host"]}}),
        ("max", {"rollout": {"analysis": {"metrics": [{"name": "error-rate", "max": "much"}]}}}),
    ],
)
async def test_a_malformed_spec_is_refused(world: World, field: str, spec: Manifest) -> None:
    """The schema refuses it when it is applied, naming the field."""
    with pytest.raises(RejectedError, match=field):
        await world.put(object_of(world, **spec))


async def test_what_is_applied_is_listed(world: World) -> None:
    """Every kind that the operator makes is accepted by the API server, and found again by its labels."""
    ref = await world.put(object_of(world))
    _, children = await planned(world, ref)
    for child in children.values():
        await world.cluster.apply(child)
    found = {
        child["kind"]: child
        for child in await world.cluster.children(ref)
        if child["kind"] not in ("Pod", "EndpointSlice")
    }
    assert found.keys() == children.keys()
    for kind, child in children.items():
        assert found[kind]["apiVersion"] == child["apiVersion"]
        assert found[kind]["metadata"]["name"] == child["metadata"]["name"]
        assert found[kind]["metadata"]["uid"]
        assert naming.HASH_ANNOTATION in found[kind]["metadata"]["annotations"]


async def test_an_apply_of_the_same_changes_nothing(world: World) -> None:
    """So that a pass over an object at rest costs no write and wakes nobody."""
    ref = await world.put(object_of(world))
    _, children = await planned(world, ref)
    for kind in ("ConfigMap", "Service"):
        first = await world.cluster.apply(children[kind])
        second = await world.cluster.apply(copy.deepcopy(children[kind]))
        assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_an_apply_removes_what_it_no_longer_names(world: World) -> None:
    """Fields that were applied before and are absent now go; what others set stays."""
    ref = await world.put(object_of(world))
    await world.cluster.apply(configmap(ref, a="1", b="2"))
    stored = await world.cluster.apply(configmap(ref, b="3"))
    assert stored["data"] == {"b": "3"}


async def test_replicas_stay_with_whoever_scales(world: World) -> None:
    """The Deployment is applied without replicas: it starts with one, and an apply never undoes a scaling."""
    ref = await world.put(object_of(world))
    _, children = await planned(world, ref)
    deployment = children["Deployment"]
    assert (await world.cluster.apply(deployment))["spec"]["replicas"] == 1
    await world.cluster.scale(deployment, 3)
    changed = copy.deepcopy(deployment)
    changed["spec"]["template"]["metadata"]["annotations"]["x"] = "y"
    stored = await world.cluster.apply(changed)
    assert stored["spec"]["replicas"] == 3
    assert stored["metadata"]["generation"] == 3


async def test_scaling_never_takes_pods_away(world: World) -> None:
    """An autoscaler may have asked for more since the operator looked."""
    ref = await world.put(object_of(world))
    _, children = await planned(world, ref)
    await world.cluster.apply(children["Deployment"])
    await world.cluster.scale(children["Deployment"], 4)
    await world.cluster.scale(children["Deployment"], 2)
    live = await world.read("Deployment", children["Deployment"]["metadata"]["name"])
    assert live is not None
    assert live["spec"]["replicas"] == 4


async def test_scaling_a_missing_deployment_is_not_found(world: World) -> None:
    """It was deleted in between."""
    ref = await world.put(object_of(world))
    _, children = await planned(world, ref)
    with pytest.raises(NotFoundError):
        await world.cluster.scale(children["Deployment"], 4)


async def test_workers_are_sized_up_and_down(world: World) -> None:
    """Unlike servers, which autoscalers size too; one that is gone is no error."""
    ref = await world.put(object_of(world))
    _, children = await planned(world, ref)
    deployment = children["Deployment"]
    await world.cluster.resize(deployment, 3)
    await world.cluster.apply(deployment)
    for size in (3, 0):
        await world.cluster.resize(deployment, size)
        live = await world.read("Deployment", deployment["metadata"]["name"])
        assert live is not None
        assert live["spec"]["replicas"] == size


async def test_what_has_to_do_with_jobs_is_found_by_its_label(world: World) -> None:
    """Of all ModelDeployments; other children are not among it."""
    ref = await world.put(object_of(world))
    await world.cluster.apply(configmap(ref, a="1"))
    told = configmap(ref, revision="r1")
    told["metadata"]["name"] = naming.jobs_name(ref.name)
    told["metadata"]["labels"] = {**told["metadata"]["labels"], naming.JOBS_LABEL: ref.name}
    await world.cluster.apply(told)
    found = [
        child
        for child in await world.cluster.objects_of_jobs()
        if child["metadata"]["namespace"] == ref.namespace
    ]
    assert [(c["kind"], c["metadata"]["name"], c["data"]) for c in found] == [
        ("ConfigMap", naming.jobs_name(ref.name), {"revision": "r1"})
    ]


async def test_a_status_is_written_whole(world: World) -> None:
    """What the operator no longer says is gone from the status; generation and spec stay as they are."""
    ref = await world.put(object_of(world))
    before = await get(world, ref)
    stored = await world.cluster.apply_status({**before, "status": STATUS})
    assert stored["status"] == STATUS
    second = {"observedGeneration": 1, "phase": "Promoted"}
    stored = await world.cluster.apply_status({**stored, "status": second})
    assert stored["status"] == second
    assert stored["spec"] == before["spec"]


async def test_a_status_is_not_written_over_what_was_not_seen(world: World) -> None:
    """Status is decided from what was read; when that has changed, nothing is written."""
    ref = await world.put(object_of(world))
    before = await get(world, ref)
    await world.put(object_of(world, version="2"))
    with pytest.raises(ConflictError):
        await world.cluster.apply_status({**before, "status": STATUS})
    assert (await get(world, ref))["status"] == {"observedGeneration": -1}


async def test_the_status_of_an_object_that_is_gone_cannot_be_written(world: World) -> None:
    """A status never makes an object come back."""
    ref = await world.put(object_of(world))
    before = await get(world, ref)
    await world.remove(KIND, ref.name)
    with pytest.raises((NotFoundError, ConflictError)):
        await world.cluster.apply_status({**before, "status": STATUS})
    assert await world.cluster.get(ref) is None


@pytest.mark.parametrize(
    "status",
    [
        {"observedGeneration": 1, "phase": "Cheerful"},
        {"observedGeneration": "1"},
        {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "Yes"}]},
    ],
)
async def test_a_malformed_status_is_refused(world: World, status: Manifest) -> None:
    """The schema holds for the operator too."""
    ref = await world.put(object_of(world))
    with pytest.raises(RejectedError):
        await world.cluster.apply_status({**await get(world, ref), "status": status})


async def test_delete_takes_only_the_object_that_was_seen(world: World) -> None:
    """Another object under the same name is left alone, and deleting twice is no error."""
    ref = await world.put(object_of(world))
    stored = await world.cluster.apply(configmap(ref, a="1"))
    other = copy.deepcopy(stored)
    other["metadata"]["uid"] = "00000000-0000-4000-8000-000000000000"
    await world.cluster.delete(other)
    assert await world.read("ConfigMap", stored["metadata"]["name"]) is not None
    await world.cluster.delete(stored)
    await world.cluster.delete(stored)
    assert await world.read("ConfigMap", stored["metadata"]["name"]) is None


async def test_children_go_with_their_owner(world: World) -> None:
    """Deleting a ModelDeployment is all that a user has to do."""
    ref = await world.put(object_of(world))
    _, children = await planned(world, ref)
    for child in children.values():
        await world.cluster.apply(child)
    await world.remove(KIND, ref.name)

    async def gone() -> bool:
        return not await world.cluster.children(ref)

    await world.eventually("all children are collected", gone)


async def test_what_the_port_wrote_is_in_its_next_look(world: World) -> None:
    """However far its memory is behind: a pass must not undo, or do again, what the one before it did."""
    ref = await world.put(object_of(world))
    _, children = await planned(world, ref)
    # A real HPA raises a new Deployment to its minimum at some moment of this, and what it writes then is not ours.
    del children["HorizontalPodAutoscaler"]
    for child in children.values():
        await world.cluster.apply(child)
    await world.cluster.scale(children["Deployment"], 3)
    route = children["HTTPRoute"]
    [rule] = route["spec"]["rules"]
    rule["backendRefs"][0]["weight"] = 7
    await world.cluster.apply(route)
    found = {child["kind"]: child for child in await world.cluster.children(ref)}
    assert found["Deployment"]["spec"]["replicas"] == 3
    assert found["HTTPRoute"]["spec"]["rules"][0]["backendRefs"][0]["weight"] == 7
    await world.cluster.delete(found["PodDisruptionBudget"])
    left = [
        child
        for child in await world.cluster.children(ref)
        if child["kind"] == "PodDisruptionBudget" and not manifests.is_being_deleted(child)
    ]
    assert left == []


async def test_what_others_change_is_seen_soon(world: World) -> None:
    """An object that somebody deletes or changes behind the operator's back."""
    ref = await world.put(object_of(world))
    await world.cluster.apply(configmap(ref, a="1"))
    name = configmap(ref)["metadata"]["name"]
    assert len(await world.cluster.children(ref)) == 1
    await world.remove("ConfigMap", name)

    async def gone() -> bool:
        return await world.cluster.children(ref) == []

    await world.eventually("it is gone", gone)
    await world.cluster.apply(configmap(ref, a="2"))
    [found] = await world.cluster.children(ref)
    assert found["data"] == {"a": "2"}


async def test_children_of_others_are_not_listed(world: World) -> None:
    """Neither those of another ModelDeployment, nor those of one that had the same name."""
    ref = await world.put(object_of(world))
    other = await world.put(object_of(world, "other"))
    await world.cluster.apply(configmap(other, a="1"))
    assert await world.cluster.children(ref) == []
    mislabelled = configmap(other, a="1")
    mislabelled["metadata"]["name"] = "mislabelled"
    mislabelled["metadata"]["labels"] = naming.object_labels(ref)
    await world.cluster.apply(mislabelled)
    assert await world.cluster.children(ref) == []


async def test_what_somebody_else_made_is_never_taken_over(world: World) -> None:
    """An object of the same name without our owner reference is refused, with the remedy, and stays as it is."""
    ref = await world.put(object_of(world))
    name = configmap(ref)["metadata"]["name"]
    theirs = {"name": name, "namespace": world.namespace}
    await world.make(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": theirs, "data": {"a": "theirs"}}
    )
    with pytest.raises(RejectedError, match="not Canarium's: delete it, or rename"):
        await world.cluster.apply(configmap(ref, a="ours"))
    found = await world.read("ConfigMap", name)
    assert found is not None
    assert found["data"] == {"a": "theirs"}


async def test_what_a_predecessor_left_is_waited_for(world: World) -> None:
    """A ModelDeployment that was created anew does not fight the garbage collector over the old one's objects."""
    ref = await world.put(object_of(world))
    other = await world.put(object_of(world, "other"))
    leftover = configmap(other, a="1")
    leftover["metadata"]["name"] = configmap(ref)["metadata"]["name"]
    await world.cluster.apply(leftover)
    with pytest.raises(TransientClusterError, match="waiting for it to go"):
        await world.cluster.apply(configmap(ref, a="2"))


async def test_an_event_is_posted_once_for_each_epoch(world: World) -> None:
    """The operator may die after posting and post again; people see one line for each transition."""
    ref = await world.put(object_of(world))
    now = datetime.now(UTC)
    for epoch in (1, 1, 2, 1):
        record = EventRecord(
            epoch=epoch, reason="Promoted", message=f"number {epoch}", warning=False, at=now
        )
        await world.cluster.record_event(ref, record)
    assert sorted(await world.events(ref)) == [("Promoted", "number 1"), ("Promoted", "number 2")]


async def test_what_more_there_is_to_tell_of_an_epoch_has_events_of_its_own(world: World) -> None:
    """Once for each thing that is told."""
    ref = await world.put(object_of(world))
    now = datetime.now(UTC)
    for about in ("", "GitRefused", "OutcomeRecorded", "GitRefused"):
        record = EventRecord(
            epoch=1, reason=about or "Promoted", message="m", warning=False, at=now, about=about
        )
        await world.cluster.record_event(ref, record)
    told = [reason for reason, _ in sorted(await world.events(ref))]
    assert told == ["GitRefused", "OutcomeRecorded", "Promoted"]


async def test_pods_are_made_and_listed(world: World) -> None:
    """The Deployment's pods pass restricted pod security and carry the labels that the operator counts them by."""
    ref = await world.put(object_of(world))
    revision, children = await planned(world, ref)
    for child in children.values():
        await world.cluster.apply(child)
    await world.cluster.scale(children["Deployment"], 2)

    async def pods() -> list[Manifest]:
        children = await world.cluster.children(ref)
        found = [child for child in children if child["kind"] == "Pod"]
        return found if len(found) == 2 else []

    await world.eventually("two pods exist", pods)
    for seen in await pods():
        pod = await world.cluster.reread(seen)  # a memory leaves out what nobody reads
        assert pod is not None
        assert pod["metadata"]["labels"][naming.REVISION_LABEL] == revision.name
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


async def test_a_child_is_read_again_as_it_is(world: World) -> None:
    """From the API server itself: what somebody has deleted is gone, whatever the memory says."""
    ref = await world.put(object_of(world))
    child = configmap(ref, a="1")
    assert await world.cluster.reread(child) is None
    await world.cluster.apply(child)
    found = await world.cluster.reread(child)
    assert found is not None
    assert (found["kind"], found["data"]) == ("ConfigMap", {"a": "1"})
    await world.remove("ConfigMap", child["metadata"]["name"])
    assert await world.cluster.reread(child) is None


async def test_an_object_is_remembered_as_it_was_written(world: World) -> None:
    """What this process wrote is there at once, also where reads come from a memory."""
    ref = await world.put(object_of(world))
    body = await world.cluster.get(ref, fresh=True)
    assert body is not None
    status = {"apiVersion": API_VERSION, "kind": KIND, "metadata": body["metadata"]}
    status["status"] = {"epoch": 7, "phase": "Pending"}
    written = await world.cluster.apply_status(status)
    again = await world.cluster.get(ref)
    assert again is not None
    assert again["status"]["epoch"] == 7
    assert again["metadata"]["resourceVersion"] == written["metadata"]["resourceVersion"]


async def test_the_memory_of_an_object_outlives_it(world: World) -> None:
    """It has no owner, it is listed with the children of whoever has the name, and it can be written again."""
    ref = await world.put(object_of(world))
    memory = make_memory(ref, Memory())
    await world.cluster.apply(configmap(ref, a="1"))
    await world.cluster.apply(memory)
    await world.cluster.children(ref)
    await world.cluster.apply(memory)
    await world.remove(KIND, ref.name)
    await world.eventually("it is gone", lambda: _is_gone(world, ref))
    again = await world.put(object_of(world))
    assert again.uid != ref.uid

    async def alone() -> bool:
        found = await world.cluster.children(again)
        return [child["metadata"]["name"] for child in found] == ["fraud-memory"]

    await world.eventually("the memory is all that is left", alone)
    await world.cluster.apply(memory)


async def test_a_copy_of_a_memory_is_no_child_of_anybody(world: World) -> None:
    """It is found by its namespace and by its name alone, and can be written again and deleted."""
    ref = await world.put(object_of(world))
    memory = make_memory(ref, Memory())
    copy = make_copy(memory, world.namespace, datetime(2026, 1, 1, tzinfo=UTC))
    for _ in range(2):
        await world.cluster.apply(copy)
    assert await world.cluster.children(ref) == []
    [found] = await world.cluster.copies(world.namespace)
    read = await world.cluster.reread(copy)
    assert read is not None
    assert found["metadata"]["uid"] == read["metadata"]["uid"]
    given = restored(read, ref)
    assert given is not None
    assert (manifests.key(given), given["data"]) == (manifests.key(memory), memory["data"])
    await world.cluster.delete(found)
    assert await world.cluster.copies(world.namespace) == []


async def _is_gone(world: World, ref: ObjectRef) -> bool:
    return await world.cluster.get(ref) is None


async def test_a_memory_never_takes_over_what_somebody_else_made(world: World) -> None:
    """A user's ConfigMap of that name stays as it is."""
    ref = await world.put(object_of(world))
    name = naming.memory_name(ref.name)
    meta = {"name": name, "namespace": world.namespace}
    await world.make(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"a": "1"}}
    )
    with pytest.raises(RejectedError, match="is not Canarium's"):
        await world.cluster.apply(make_memory(ref, Memory()))
    found = await world.read("ConfigMap", name)
    assert found is not None
    assert found["data"] == {"a": "1"}
