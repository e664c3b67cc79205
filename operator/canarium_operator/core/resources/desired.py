"""All objects that must exist for a plan, in the order in which they are wanted."""

import hashlib
import json

from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.plan import Plan
from canarium_operator.core.resources import (
    autoscaler,
    configmap,
    disruption,
    route,
    service,
    workload,
)


def desired_children(plan: Plan) -> tuple[Manifest, ...]:
    """Make every child of a plan.

    Pods read the ConfigMap, so it comes before them; the route comes last, when what it points at exists.
    """
    children: list[Manifest] = []
    for planned in plan.revisions:
        children += [
            configmap.make_configmap(plan.ref, planned.revision),
            service.make_service(plan.ref, planned.revision),
            workload.make_workload(plan.ref, planned.revision, plan.spec.rollout),
            disruption.make_disruption_budget(plan.ref, planned.revision),
            autoscaler.make_autoscaler(plan.ref, planned, plan.spec.autoscaling),
        ]
    if plan.weights is not None:
        children.append(route.make_route(plan, plan.weights))
    return tuple(_stamped(child) for child in children)


def _stamped(manifest: Manifest) -> Manifest:
    """Note on an object what it was made from, so that a later pass sees without a comparison of defaults whether it
    is current.
    """
    content = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    meta = manifest["metadata"]
    stamped = {**meta.get("annotations", {}), naming.HASH_ANNOTATION: digest}
    return {**manifest, "metadata": {**meta, "annotations": stamped}}
