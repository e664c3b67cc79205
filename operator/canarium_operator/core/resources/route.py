"""The HTTPRoute of a ModelDeployment: one rule, whose weights split the traffic between revisions; and back from it
to weights.
"""

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from canarium_api.v1alpha1 import GatewayRef, TrafficSpec
from canarium_operator.core import naming
from canarium_operator.core.manifests import GATEWAY_API_VERSION, Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.plan import HeaderRule, Plan
from canarium_operator.core.resources import metadata, service

TIMEOUT_MARGIN: Final = timedelta(seconds=5)
"""The gateway waits longer than the server does, so that a client gets the server's explanation rather than the
gateway's."""


def hostnames(ref: ObjectRef, traffic: TrafficSpec) -> list[str]:
    """Host names of the route."""
    return list(traffic.hostnames) or [f"{ref.name}.{ref.namespace}.models.local"]


def parent_reference(ref: ObjectRef, gateway: GatewayRef) -> dict[str, str]:
    """Name the Gateway that carries the route."""
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
        plan: the plan; its spec names a gateway.
        weights: percent by revision, as in the plan; no zeros.
    """
    ref, gateway = plan.ref, plan.spec.traffic.gateway
    assert gateway is not None  # noqa: S101 - made only for a gateway
    serving = [p.revision.serving for p in plan.revisions] or [plan.spec.serving]
    timeout = max(s.request_timeout for s in serving) + TIMEOUT_MARGIN
    return {
        "apiVersion": GATEWAY_API_VERSION,
        "kind": "HTTPRoute",
        "metadata": metadata.object_metadata(ref),
        "spec": {
            "parentRefs": [parent_reference(ref, gateway)],
            "hostnames": hostnames(ref, plan.spec.traffic),
            "rules": [
                *(_by_header(ref, rule, timeout) for rule in plan.rules),
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
                },
            ],
        },
    }


def _by_header(ref: ObjectRef, rule: HeaderRule, timeout: timedelta) -> Manifest:
    """Make a rule for requests with a header; the Gateway API prefers it to the rule without one."""
    header = {"type": "Exact", "name": rule.name, "value": rule.value}
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}, "headers": [header]}],
        "backendRefs": [
            {
                "group": "",
                "kind": "Service",
                "name": naming.child_name(ref.name, rule.revision),
                "port": service.PORT,
                "weight": 1,
            }
        ],
        "timeouts": {"request": f"{math.ceil(timeout.total_seconds())}s"},
    }


def reached_by(route: Manifest) -> frozenset[str]:
    """Read which revisions a route leads to in any rule."""
    prefix = naming.child_name(route["metadata"]["name"], "")
    return frozenset(
        backend["name"].removeprefix(prefix)
        for rule in route.get("spec", {}).get("rules") or []
        for backend in rule.get("backendRefs") or []
        if backend.get("weight", 1) > 0
    )


def weights_of(route: Manifest) -> dict[str, int]:
    """Read which weights a route asks for, by revision; a backend that is not ours stands under its full name.

    Rules that ask for a header are left out: what they lead to is no share of the traffic. Weights of all others add
    up, so that a rule which somebody added cannot hide.
    """
    prefix = naming.child_name(route["metadata"]["name"], "")
    weights: dict[str, int] = {}
    for rule in route.get("spec", {}).get("rules") or []:
        if any(match.get("headers") for match in rule.get("matches") or []):
            continue
        for backend in rule.get("backendRefs") or []:
            revision = backend["name"].removeprefix(prefix)
            weight = backend.get("weight", 1)
            if weight > 0:
                weights[revision] = weights.get(revision, 0) + weight
    return weights
