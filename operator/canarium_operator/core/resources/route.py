"""The HTTPRoute of a ModelDeployment: one rule, whose weights split the traffic between revisions; and back from it
to weights.
"""

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from canarium_api.split import HEADER, Split
from canarium_api.v1alpha1 import GatewayRef, TrafficSpec
from canarium_operator.core import naming
from canarium_operator.core.manifests import GATEWAY_API_VERSION, Manifest
from canarium_operator.core.mirroring import Mirror
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.plan import Plan
from canarium_operator.core.resources import metadata, service
from canarium_operator.core.routing import CookieRule, HeaderRule

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
                _for_all(ref, weights, timeout, plan.mirror)
                if plan.split is None
                else _by_router(ref, plan.split, timeout),
            ],
        },
    }


def _backend(name: str, weight: int) -> Manifest:
    return {
        "group": "",
        "kind": "Service",
        "name": name,
        "port": service.PORT,
        "weight": weight,
    }


def _timeouts(timeout: timedelta) -> Manifest:
    """Give whole seconds: the grammar of the Gateway API has no days and no fractions."""
    return {"request": f"{math.ceil(timeout.total_seconds())}s"}


def _for_all(
    ref: ObjectRef, weights: Mapping[str, int], timeout: timedelta, mirror: Mirror | None
) -> Manifest:
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        **({"filters": [_mirror(ref, mirror)]} if mirror is not None else {}),
        "backendRefs": [
            _backend(naming.child_name(ref.name, revision), weight)
            for revision, weight in weights.items()
        ],
        "timeouts": _timeouts(timeout),
    }


def _mirror(ref: ObjectRef, mirror: Mirror) -> Manifest:
    """Copy requests to a revision; the answers are thrown away by the gateway."""
    request: Manifest = {
        "backendRef": {
            "group": "",
            "kind": "Service",
            "name": naming.child_name(ref.name, mirror.revision),
            "port": service.PORT,
        }
    }
    if mirror.percent < 100:
        # Left out for all: a gateway may know mirrors, but not shares of them.
        request["percent"] = mirror.percent
    return {"type": "RequestMirror", "requestMirror": request}


def _by_router(ref: ObjectRef, split: Split, timeout: timedelta) -> Manifest:
    """Lead everything to the router, and tell it in a header what the split is. `set` overrides what a client sends."""
    header = {"name": HEADER, "value": split.render()}
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [header]}}],
        "backendRefs": [_backend(naming.router_name(ref.name), 1)],
        # The router waits as long as a server may take; the gateway a little longer than both.
        "timeouts": _timeouts(timeout + TIMEOUT_MARGIN),
    }


def _by_header(ref: ObjectRef, rule: HeaderRule | CookieRule, timeout: timedelta) -> Manifest:
    """Make a rule for requests with a header; the Gateway API prefers it to the rule without one."""
    header = {"type": "Exact", "name": rule.name, "value": rule.value}
    if isinstance(rule, CookieRule):
        value = cookie_pattern(rule.name, rule.value)
        header = {"type": "RegularExpression", "name": "Cookie", "value": value}
    return {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}, "headers": [header]}],
        "backendRefs": [_backend(naming.child_name(ref.name, rule.revision), 1)],
        "timeouts": _timeouts(timeout),
    }


def cookie_pattern(name: str, value: str) -> str:
    """Write a regular expression for `Cookie` headers that hold a cookie.

    Gateways differ: Envoy holds an expression against the whole value, Go's regexps find it anywhere. This one is
    anchored and matches the whole value, so that both mean the same; it is within RE2's grammar, which both have.
    """
    return rf"^(?:.*;)?[ \t]*{re.escape(name)}={re.escape(value)}[ \t]*(?:;.*)?$"


def split_of(rule: Manifest) -> Split | None:
    """Read what a rule tells the router; None: it does not lead to one."""
    for entry in rule.get("filters") or []:
        for header in (entry.get("requestHeaderModifier") or {}).get("set") or []:
            if header.get("name", "").lower() == HEADER:
                try:
                    return Split.parse(header.get("value", ""))
                except ValueError:
                    return None
    return None


def is_by_router(route: Manifest) -> bool:
    """Tell whether a route leads to the router."""
    router = naming.router_name(route["metadata"]["name"])
    return any(
        backend["name"] == router
        for rule in route.get("spec", {}).get("rules") or []
        for backend in rule.get("backendRefs") or []
    )


def reached_by(route: Manifest) -> frozenset[str]:
    """Read which revisions a route leads to in any rule, be it through the router or with copies of requests."""
    return frozenset(mirrored_by(route)) | frozenset(
        revision
        for rule in route.get("spec", {}).get("rules") or []
        for revision, weight in _weights_of_rule(route, rule)
        if weight > 0
    )


def mirrored_by(route: Manifest) -> dict[str, int]:
    """Read which revisions get copies of requests, and of what percent."""
    prefix = naming.child_name(route["metadata"]["name"], "")
    mirrors = [
        entry["requestMirror"]
        for rule in route.get("spec", {}).get("rules") or []
        for entry in rule.get("filters") or []
        if entry.get("requestMirror")
    ]
    return {
        mirror["backendRef"]["name"].removeprefix(prefix): mirror.get("percent", 100)
        for mirror in mirrors
    }


def _weights_of_rule(route: Manifest, rule: Manifest) -> list[tuple[str, int]]:
    split = split_of(rule)
    if split is not None:
        return [(split.stable, 100 - split.share), (split.canary, split.share)]
    prefix = naming.child_name(route["metadata"]["name"], "")
    return [
        (backend["name"].removeprefix(prefix), backend.get("weight", 1))
        for backend in rule.get("backendRefs") or []
    ]


def weights_of(route: Manifest) -> dict[str, int]:
    """Read which weights a route asks for, by revision; a backend that is not ours stands under its full name.

    Rules that ask for a header are left out: what they lead to is no share of the traffic. Weights of all others add
    up, so that a rule which somebody added cannot hide.
    """
    weights: dict[str, int] = {}
    for rule in route.get("spec", {}).get("rules") or []:
        if any(match.get("headers") for match in rule.get("matches") or []):
            continue
        for revision, weight in _weights_of_rule(route, rule):
            if weight > 0:
                weights[revision] = weights.get(revision, 0) + weight
    return weights
