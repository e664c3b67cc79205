"""The HTTPRoute of a ModelDeployment: one rule, whose weights split the traffic between revisions; and back from it
to weights.
"""

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from canarium_api.v1alpha1 import TrafficSpec
from canarium_operator.core import naming
from canarium_operator.core.manifests import GATEWAY_API_VERSION, Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.plan import Plan
from canarium_operator.core.resources import metadata, service

TIMEOUT_MARGIN: Final = timedelta(seconds=5)
"""The gateway waits longer than the server does, so that a client gets the server's explanation rather than the
gateway's."""


def hostnames(ref: ObjectRef, traffic: TrafficSpec) -> list[str]:
    """Host names of the route."""
    return list(traffic.hostnames) or [f"{ref.name}.{ref.namespace}.models.local"]


def parent_reference(ref: ObjectRef, traffic: TrafficSpec) -> dict[str, str]:
    """Name the Gateway that carries the route."""
    gateway = traffic.gateway
    parent = {
        "group": "gateway.networking.k8s.io",
        "kind": "Gateway",
        "name": gateway.name,
        "namespace": gateway.namespace or ref.namespace,
    }
    if gateway.section_name is not None:
        parent["sectionName"] = gateway.section_name
    return parent


def make_route(plan: Plan, weights: Mapping[str, int]) -> Manifest:
    """Make the HTTPRoute.

    Args:
        plan: the plan.
        weights: percent by revision, as in the plan; no zeros.
    """
    ref = plan.ref
    serving = [p.revision.serving for p in plan.revisions] or [plan.spec.serving]
    timeout = max(s.request_timeout for s in serving) + TIMEOUT_MARGIN
    return {
        "apiVersion": GATEWAY_API_VERSION,
        "kind": "HTTPRoute",
        "metadata": metadata.object_metadata(ref),
        "spec": {
            "parentRefs": [parent_reference(ref, plan.spec.traffic)],
            "hostnames": hostnames(ref, plan.spec.traffic),
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "backendRefs": [
                        {
                            "group": "",
                            "kind": "Service",
                            "name": naming.child_name(ref.name, revision),
                            "port": service.PORT,
                            "weight": weight,
                        }
                        for revision, weight in weights.items()
                    ],
                    # Whole seconds: the grammar of the Gateway API has no days and no fractions.
                    "timeouts": {"request": f"{math.ceil(timeout.total_seconds())}s"},
                }
            ],
        },
    }


def weights_of(route: Manifest) -> dict[str, int]:
    """Read which weights a route asks for, by revision; a backend that is not ours stands under its full name.

    Weights of several rules add up, so that a rule which somebody added cannot hide.
    """
    prefix = naming.child_name(route["metadata"]["name"], "")
    weights: dict[str, int] = {}
    for rule in route.get("spec", {}).get("rules") or []:
        for backend in rule.get("backendRefs") or []:
            revision = backend["name"].removeprefix(prefix)
            weight = backend.get("weight", 1)
            if weight > 0:
                weights[revision] = weights.get(revision, 0) + weight
    return weights
