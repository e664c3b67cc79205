"""`observe`: objects as the API server gives them go in, what the engine decides from comes out."""

import copy
from typing import Any

import pytest

from canarium_api.runtime_config import LoadFailure
from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observation import LoadProblem
from canarium_operator.core.observing import observe
from canarium_operator.core.plan import Plan, RevisionPlan
from canarium_operator.core.pods import problem_of
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.revision import revision_of
from canarium_operator.testing.scenario import IMAGE, make_spec

REF = ObjectRef(namespace="ml", name="fraud", uid="u-1")
SPEC = make_spec()
REVISION = revision_of(SPEC, IMAGE)


def live() -> dict[str, Manifest]:
    """The children of one serving revision, by kind."""
    plan = Plan(
        ref=REF,
        spec=SPEC,
        revisions=(RevisionPlan(revision=REVISION, min_replicas=2, max_replicas=9),),
        weights={REVISION.name: 100},
    )
    found = {child["kind"]: child for child in desired_children(plan)}
    found["Deployment"]["spec"]["replicas"] = 2
    return found


def pod(number: int = 1, *, ready: bool = False, deleting: bool = False, **status: Any) -> Manifest:
    meta: Manifest = {"name": f"p{number}", "labels": {naming.REVISION_LABEL: REVISION.name}}
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = [{"type": "Ready", "status": str(ready)}, *status.pop("conditions", [])]
    return {
        "kind": "Pod",
        "metadata": meta,
        "status": {"phase": "Running", "conditions": conditions, **status},
    }


def container(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "server", **state}]}


def ended(message: str = "", reason: str = "Error", code: int = 1) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def load_failure(reason: str = "DigestMismatch", *, permanent: bool = True) -> str:
    return LoadFailure(
        reason=reason, message="it is another file", permanent=permanent
    ).model_dump_json()


@pytest.mark.parametrize(
    ("listed", "leads"),
    [
        ([], False),
        ([[True]], False),
        ([[True, True]], True),
        ([[True], [True]], True),
        ([[True, False]], False),
        ([[None, None]], True),
    ],
    ids=str,
)
def test_a_service_leads_to_a_revision_when_gateways_can_know_all_its_ready_pods(
    listed: list[list[bool | None]], leads: bool
) -> None:
    """Two pods are ready; EndpointSlices are written a moment later, and may be several. No word means ready."""
    service = live()["Service"]
    slices = [
        {
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"s{number}",
                "labels": {"kubernetes.io/service-name": service["metadata"]["name"]},
            },
            "endpoints": [{"conditions": {"ready": ready}} for ready in endpoints],
        }
        for number, endpoints in enumerate(listed)
    ]
    pods = [pod(1, ready=True), pod(2, ready=True), pod(3)]
    found = observe([live()["Deployment"], service, *pods, *slices], SPEC)
    assert found.services == (frozenset({REVISION.name}) if leads else frozenset())


def test_a_template_gives_back_its_revision() -> None:
    """From the ConfigMap's annotation, exactly."""
    assert observe([live()["ConfigMap"]], SPEC).revisions == {REVISION.name: REVISION}


@pytest.mark.parametrize(
    "template",
    ["", "{", "[]", "null", '{"model": {}}', '{"model": 1, "serving": {}, "image": "i"}'],
)
def test_a_damaged_template_is_left_out_and_noted(template: str) -> None:
    """One object that cannot be read keeps nobody from looking after the others."""
    damaged = copy.deepcopy(live()["ConfigMap"])
    damaged["metadata"]["annotations"][naming.TEMPLATE_ANNOTATION] = template
    seen = observe([damaged, live()["Deployment"]], SPEC)
    assert seen.revisions == {}
    assert seen.workloads.keys() == {REVISION.name}
    (note,) = seen.notes
    assert damaged["metadata"]["name"] in note


def test_pods_are_counted_themselves() -> None:
    """Whatever the Deployment's status says, which is behind whenever its HPA has just changed the spec."""
    deployment = live()["Deployment"]
    deployment["metadata"]["generation"] = 5
    deployment["status"] = {"observedGeneration": 4, "replicas": 1, "readyReplicas": 1}
    gone = pod(4, ready=True, phase="Failed")
    seen = observe(
        [deployment, pod(1, ready=True), pod(2), pod(3, ready=True, deleting=True), gone], SPEC
    )
    workload = seen.workload(REVISION.name)
    assert (workload.spec_replicas, workload.replicas, workload.ready_replicas) == (2, 2, 1)


def test_a_deployment_that_lost_its_label_belongs_to_no_revision() -> None:
    """The next apply gives the label back."""
    deployment = live()["Deployment"]
    del deployment["metadata"]["labels"][naming.REVISION_LABEL]
    assert observe([deployment], SPEC).workloads == {}


def test_a_revision_without_a_deployment_has_no_pods() -> None:
    """It was never made, or is gone."""
    assert observe([pod(ready=True)], SPEC).workloads == {}


@pytest.mark.parametrize(
    ("pods", "problem"),
    [
        ([pod()], None),
        ([pod(ready=True, **container(lastState=ended(load_failure())))], None),
        ([pod(deleting=True, **container(state=ended(load_failure())))], None),
        ([pod(**container(state=ended(load_failure())))], ("DigestMismatch", "it is another file", True)),
        (
            [pod(**container(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=ended(load_failure())))],
            ("DigestMismatch", "it is another file", True),
        ),
        (
            [
                pod(1, **container(state=ended(load_failure("DownloadFailed", permanent=False)))),
                pod(2, **container(state=ended(load_failure()))),
            ],
            ("DigestMismatch", "it is another file", True),
        ),
        (
            [
                pod(1, **container(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})),
                pod(2, **container(state=ended(load_failure("DownloadFailed", permanent=False)))),
            ],
            ("DownloadFailed", "it is another file", False),
        ),
        (
            [pod(**container(state={"waiting": {"reason": "ErrImagePull", "message": "no such image"}}))],
            ("ErrImagePull", "check its name and the pull secrets: no such image", False),
        ),
        (
            [pod(**container(state={"waiting": {"reason": "InvalidImageName"}}))],
            ("InvalidImageName", "serving.image is not the name of an image", True),
        ),
        ([pod(**container(state={"waiting": {"reason": "ContainerCreating"}}))], None),
        (
            [pod(**container(lastState=ended(reason="OOMKilled", code=137)))],
            ("OOMKilled", "raise serving.resources.limits.memory", False),
        ),
        (
            [pod(**container(lastState=ended("Segmentation\n fault", code=139)))],
            ("CrashLoop", "exit code 139; its log says why: Segmentation fault", False),
        ),
        ([pod(**container(lastState=ended(code=0)))], None),
        (
            [
                pod(
                    phase="Pending",
                    conditions=[
                        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
                    ],
                )
            ],
            ("Unschedulable", "no node can take the pod: 0/3 nodes", False),
        ),
    ],
)  # fmt: skip
def test_a_pod_that_cannot_serve_says_why(
    pods: list[Manifest], problem: tuple[str, str, bool] | None
) -> None:
    """The server's own words first, the permanent ones before all; pods that serve or go have no problem."""
    found = problem_of(pods)
    if problem is None:
        assert found is None
        return
    assert found is not None
    assert (found.reason, found.permanent) == (problem[0], problem[2])
    assert problem[1] in found.message


def test_long_words_of_the_kubelet_are_cut() -> None:
    """It quotes whole replies of registries, and a status is no place for them."""
    found = problem_of(
        [pod(**container(state={"waiting": {"reason": "ErrImagePull", "message": "x" * 5000}}))]
    )
    assert found is not None
    assert len(found.message) < 700


def test_pods_that_could_not_even_be_created_are_a_problem() -> None:
    """A quota refuses them; only the Deployment says so."""
    deployment = live()["Deployment"]
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": "exceeded quota",
    }
    deployment["status"] = {"conditions": [condition]}
    assert observe([deployment], SPEC).workload(REVISION.name).problem == LoadProblem(
        reason="FailedCreate", message="pods cannot be created: exceeded quota"
    )
    condition["status"] = "False"
    assert observe([deployment], SPEC).workload(REVISION.name).problem is None


PARENT = {
    "group": "gateway.networking.k8s.io",
    "kind": "Gateway",
    "name": "public",
    "namespace": "ml",
}


def answered(
    parent: dict[str, Any] = PARENT, generation: int = 3, **answers: str
) -> dict[str, Any]:
    """A gateway's answer: each condition with its status, Accepted and ResolvedRefs True unless said otherwise."""
    conditions = {"Accepted": "True", "ResolvedRefs": "True", **answers}
    return {
        "parentRef": parent,
        "conditions": [
            {
                "type": kind,
                "status": status,
                "reason": "R",
                "message": "m",
                "observedGeneration": generation,
            }
            for kind, status in conditions.items()
        ],
    }


def route_with(*parents: dict[str, Any]) -> Manifest:
    found = live()["HTTPRoute"]
    found["metadata"]["generation"] = 3
    found["status"] = {"parents": list(parents)}
    return found


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ([answered()], ""),
        ([answered({"name": "public"})], ""),
        ([answered(Accepted="False"), answered()], ""),
        ([], "has not answered yet"),
        ([answered({**PARENT, "name": "other"})], "has not answered yet"),
        ([answered({**PARENT, "sectionName": "https"})], "has not answered yet"),
        ([answered(generation=2)], "has not looked at the latest change yet"),
        ([{"parentRef": PARENT, "conditions": []}], "has not looked at the latest change yet"),
        ([answered(Accepted="False")], "Gateway ml/public: R: m"),
        ([answered(ResolvedRefs="False")], "Gateway ml/public: R: m"),
        ([answered(Accepted="Unknown")], "Gateway ml/public: R: m"),
    ],
)
def test_a_route_counts_only_as_the_gateway_carries_it_now(
    parents: list[dict[str, Any]], message: str
) -> None:
    """Both conditions, from the gateway that the spec names, for the generation that is there."""
    route = observe([route_with(*parents)], SPEC).route
    assert route is not None
    assert route.accepted is (message == "")
    assert message in route.message
    assert route.weights == {REVISION.name: 100}


def test_a_route_that_is_being_deleted_is_no_route() -> None:
    """Its weights no longer mean anything."""
    route = route_with(answered())
    route["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert observe([route], SPEC).route is None


def test_without_a_readable_spec_no_route_is_accepted() -> None:
    """There is no gateway to ask for."""
    route = observe([route_with(answered())], None).route
    assert route is not None
    assert not route.accepted


def test_a_route_without_the_host_names_of_the_spec_is_not_accepted_yet() -> None:
    """Between an edit of the spec and its way into the route, the gateway's answer is about the past."""
    moved = SPEC.traffic.model_copy(update={"hostnames": ["new.example.com"]})
    spec = SPEC.model_copy(update={"traffic": moved})
    route = observe([route_with(answered())], spec).route
    assert route is not None
    assert not route.accepted
    assert "host names" in route.message
