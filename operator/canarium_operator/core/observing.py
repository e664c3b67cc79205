"""From the objects in the cluster to `Observed`: the one place where their fields are read.

What cannot be read is left out and noted, so that one damaged object does not keep the operator from looking after
the rest.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import golden, manifests, naming, pods
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.memory import is_memory, read_memory
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observation import (
    GatewayClass,
    LoadProblem,
    Observed,
    RouteState,
    Workload,
)
from canarium_operator.core.resources import comparer, front, jobs, route, router
from canarium_operator.core.revision import Revision

_SERVICE_LABEL: Final = "kubernetes.io/service-name"
"""On an EndpointSlice: the Service that it belongs to."""


def observe(children: Sequence[Manifest], spec: ModelDeploymentSpec | None) -> Observed:
    """Read the children of one ModelDeployment.

    Args:
        children: all that was listed, pods included, in any order.
        spec: names the gateway that must have accepted the route; None while the spec cannot be read.
    """
    by_kind: dict[str, list[Manifest]] = defaultdict(list)
    for child in children:
        by_kind[child["kind"]].append(child)
    revisions, notes = _revisions([c for c in by_kind["ConfigMap"] if _is_of_revision(c)])
    memory = None
    for configmap in filter(is_memory, by_kind["ConfigMap"]):
        try:
            memory = read_memory(configmap)
        except ValueError as error:
            notes.append(str(error))
    pods_of: dict[str, list[Manifest]] = defaultdict(list)
    routers = [pod for pod in by_kind["Pod"] if router.is_router(pod)]
    others = (router.is_router, comparer.is_of_comparer, jobs.is_of_jobs, golden.is_of_validation)
    for pod in by_kind["Pod"]:
        if not any(kind(pod) for kind in others):
            pods_of[_revision_name(pod)].append(pod)
    workloads = {
        name: _workload(name, deployment, pods_of[name])
        for deployment in by_kind["Deployment"]
        if (name := _revision_name(deployment))
    }
    routes = [child for child in by_kind["HTTPRoute"] if not manifests.is_being_deleted(child)]
    fronts = [child for child in by_kind["Service"] if front.is_front(child)]
    ready = {
        name: sum(map(pods.is_ready, filter(pods.is_live, of))) for name, of in pods_of.items()
    }
    if spec is not None and spec.traffic.gateway is None:
        state = front.state_of(fronts[0], ready) if fronts else None
    else:
        state = _route_state(routes[0], spec) if routes else None
    return Observed(
        revisions=revisions,
        workloads=workloads,
        services=_leading(by_kind["Service"], by_kind["EndpointSlice"], ready),
        route=state,
        has_front=bool(fronts),
        router_ready=sum(map(pods.is_ready, filter(pods.is_live, routers))),
        has_router=any(map(router.is_router, by_kind["Deployment"])),
        strays=frozenset(
            name
            for name, of in pods_of.items()
            if name not in workloads and any(map(pods.is_live, of))
        ),
        validations=golden.read_outcomes(
            by_kind["Job"], [pod for pod in by_kind["Pod"] if golden.is_of_validation(pod)]
        ),
        memory=memory,
        notes=tuple(notes),
    )


def read_gateway_class(manifest: Manifest) -> GatewayClass:
    """Read what a GatewayClass can do; early releases of the Gateway API listed names, later ones objects."""
    listed = manifest.get("status", {}).get("supportedFeatures") or []
    features = (entry.get("name") if isinstance(entry, dict) else entry for entry in listed)
    return GatewayClass(
        name=manifest["metadata"]["name"], features=frozenset(filter(None, features))
    )


def _leading(
    services: Sequence[Manifest], slices: Sequence[Manifest], ready: Mapping[str, int]
) -> frozenset[str]:
    """Name the revisions whose Service leads to all their ready pods.

    A gateway learns of pods by EndpointSlices, which are written after the pod says that it is ready: traffic that is
    moved in between finds nobody.
    """
    endpoints: dict[str, int] = defaultdict(int)
    for slice_ in slices:
        service = manifests.labels(slice_).get(_SERVICE_LABEL, "")
        endpoints[service] += sum(
            (endpoint.get("conditions") or {}).get("ready") is not False
            for endpoint in slice_.get("endpoints") or []
        )
    return frozenset(
        revision
        for service in services
        if (revision := _revision_name(service))
        and endpoints[service["metadata"]["name"]] >= ready.get(revision, 0)
        and naming.PREVIEW_LABEL not in manifests.labels(service)
    )


def _revision_name(child: Manifest) -> str:
    return manifests.labels(child).get(naming.REVISION_LABEL, "")


def _is_of_revision(configmap: Manifest) -> bool:
    others = (is_memory, comparer.is_of_comparer, jobs.is_of_jobs)
    return not any(is_other(configmap) for is_other in others)


def _revisions(configmaps: Sequence[Manifest]) -> tuple[dict[str, Revision], list[str]]:
    revisions, notes = {}, []
    for configmap in configmaps:
        name = _revision_name(configmap)
        try:
            template = json.loads(manifests.annotations(configmap)[naming.TEMPLATE_ANNOTATION])
            revisions[name] = Revision.from_template(name, template)
        except (KeyError, TypeError, json.JSONDecodeError, ValidationError):
            notes.append(
                f"ConfigMap {configmap['metadata']['name']}: its annotation {naming.TEMPLATE_ANNOTATION} "
                f"cannot be read, so revision {name or '(unnamed)'} can only be made again from a spec that names it"
            )
    return revisions, notes


def _workload(revision: str, deployment: Manifest, all_pods: Sequence[Manifest]) -> Workload:
    """Count the pods themselves: the counts in the Deployment's status lag behind its spec, each time an HPA changes
    that.
    """
    live = [pod for pod in all_pods if pods.is_live(pod)]
    problem = pods.problem_of(live) or _replica_failure(deployment)
    return Workload(
        revision=revision,
        spec_replicas=deployment.get("spec", {}).get("replicas", 1),
        replicas=len(live),
        ready_replicas=sum(pods.is_ready(pod) for pod in live),
        problem=problem,
    )


def _replica_failure(deployment: Manifest) -> LoadProblem | None:
    """Read why pods could not even be created: a quota, or an admission plugin."""
    for condition in deployment.get("status", {}).get("conditions") or []:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return LoadProblem(
                reason=condition.get("reason") or "ReplicaFailure",
                message=f"pods cannot be created: {condition.get('message', '')}",
            )
    return None


def _route_state(manifest: Manifest, spec: ModelDeploymentSpec | None) -> RouteState:
    weights = route.weights_of(manifest)
    if spec is None or spec.traffic.gateway is None:
        return RouteState(
            weights=weights,
            reached=route.reached_by(manifest),
            mirrored=route.mirrored_by(manifest),
            by_router=route.is_by_router(manifest),
        )
    meta = manifest["metadata"]
    ref = ObjectRef(namespace=meta["namespace"], name=meta["name"])
    parent = route.parent_reference(ref, spec.traffic.gateway)
    message = _refusal(manifest, parent)
    if manifest.get("spec", {}).get("hostnames") != route.hostnames(ref, spec.traffic):
        message = "the route does not have the host names of the spec yet"
    return RouteState(
        weights=weights,
        reached=route.reached_by(manifest),
        mirrored=route.mirrored_by(manifest),
        by_router=route.is_by_router(manifest),
        accepted=message == "",
        message=message,
    )


def _refusal(manifest: Manifest, parent: dict[str, str]) -> str:
    """Say why the gateway does not carry the route as it is now; empty when it does.

    Controllers report by parent, and each condition for one generation: what was accepted before the last change
    proves nothing.
    """
    name = f"Gateway {parent['namespace']}/{parent['name']}"
    generation = manifest["metadata"].get("generation")
    answers = [
        entry
        for entry in manifest.get("status", {}).get("parents") or []
        if _same_parent(entry.get("parentRef") or {}, parent)
    ]
    if not answers:
        return f"{name} has not answered yet: check that it exists and that its controller runs"
    refusals = [_unmet(entry.get("conditions") or [], generation, name) for entry in answers]
    return "" if "" in refusals else refusals[0]


def _same_parent(found: dict[str, Any], wanted: dict[str, str]) -> bool:
    namespace = found.get("namespace") or wanted["namespace"]
    return (found.get("name"), namespace, found.get("sectionName")) == (
        wanted["name"],
        wanted["namespace"],
        wanted.get("sectionName"),
    )


def _unmet(conditions: Sequence[dict[str, Any]], generation: int | None, name: str) -> str:
    for kind in ("Accepted", "ResolvedRefs"):
        condition = next((c for c in conditions if c.get("type") == kind), None)
        if condition is None or condition.get("observedGeneration") != generation:
            return f"{name} has not looked at the latest change yet"
        if condition.get("status") != "True":
            return (
                f"{name}: {condition.get('reason', kind)}: {condition.get('message', '')}".rstrip(
                    ": "
                )
            )
    return ""
