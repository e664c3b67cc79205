"""All objects that must exist for a plan, in the order in which they are wanted."""

import hashlib
import json

from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.memory import make_memory
from canarium_operator.core.plan import Plan, RevisionPlan
from canarium_operator.core.resources import (
    autoscaler,
    comparer,
    configmap,
    disruption,
    front,
    jobs,
    route,
    router,
    service,
    validation,
    workload,
)


def desired_children(plan: Plan) -> tuple[Manifest, ...]:
    """Make every child of a plan.

    The route comes as early as it can, right after the objects that it points at: a rollback must not wait for the
    canary's objects. Pods read the ConfigMap, so it comes before them.
    """
    weights = plan.weights or {}
    serving = [planned for planned in plan.revisions if planned.revision.name in weights]
    others = [planned for planned in plan.revisions if planned.revision.name not in weights]
    grpc = any(planned.revision.serving.grpc for planned in plan.revisions)
    children = [child for planned in serving for child in _of_revision(plan, planned)]
    if plan.router is not None:
        children += router.make_router(plan.ref, plan.router)
    if plan.weights is not None and plan.spec.traffic.gateway is not None:
        children.append(route.make_route(plan, plan.weights))
    if plan.front:
        children.append(front.make_front(plan.ref, plan.front, grpc=grpc))
    children += [child for planned in others for child in _of_revision(plan, planned)]
    if plan.comparer is not None:
        children += comparer.make_comparer(plan.ref, plan.comparer)
    if plan.jobs is not None:
        children += jobs.make_jobs(plan.ref, plan.jobs)
    if plan.validation is not None:
        children.append(validation.make_job(plan.ref, plan.validation))
    if plan.preview is not None:
        children.append(service.make_preview(plan.ref, plan.preview, grpc=grpc))
    if plan.memory is not None:
        # At the end: a rollback must not wait for it, and the status holds the same as long as the object is there.
        children.append(make_memory(plan.ref, plan.memory))
    return tuple(_stamped(child) for child in children)


def _of_revision(plan: Plan, planned: RevisionPlan) -> tuple[Manifest, ...]:
    return (
        configmap.make_configmap(plan.ref, planned.revision),
        service.make_service(plan.ref, planned.revision),
        workload.make_workload(plan.ref, planned.revision, plan.spec.rollout),
        disruption.make_disruption_budget(plan.ref, planned.revision),
        autoscaler.make_autoscaler(plan.ref, planned, plan.spec.autoscaling),
    )


def _stamped(manifest: Manifest) -> Manifest:
    """Note on an object what it was made from, so that a later pass sees without a comparison of defaults whether it
    is current.
    """
    content = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    meta = manifest["metadata"]
    stamped = {**meta.get("annotations", {}), naming.HASH_ANNOTATION: digest}
    return {**manifest, "metadata": {**meta, "annotations": stamped}}
