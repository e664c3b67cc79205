"""Copies of requests for a shadow: whether the gateway can make them, and of what share.

Part of `core.plan`: a route never asks a gateway for copies that says it cannot make them. Some answer all requests
with an error then, though they accept the route (Traefik 3.5: 500).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from canarium_api.shadow import ShadowTolerance
from canarium_api.status import ModelDeploymentStatus
from canarium_api.v1alpha1 import GatewayRef, ModelDeploymentSpec, ServingSpec
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observation import GatewayClass, Observed
from canarium_operator.core.revision import Revision
from canarium_operator.core.rollout.strategy import StepKind, step_at

MIRROR: Final = "HTTPRouteRequestMirror"
MIRROR_PERCENT: Final = "HTTPRouteRequestPercentageMirror"


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """Copies of the requests that stable answers."""

    revision: str
    """Who gets them."""
    percent: int


@dataclass(frozen=True, kw_only=True)
class ComparerPlan:
    """The comparer of a shadow."""

    stable: str
    shadow: str
    """Revisions."""
    tolerance: ShadowTolerance
    image: str
    """The runtime's, of the shadow."""
    serving: ServingSpec
    """For where pods may run."""


def shadowed_gateway(ref: ObjectRef, raw: Any) -> tuple[str, str] | None:
    """Name the Gateway, by namespace and name, whose class a raw `.spec` with a shadow needs to know; None: none."""
    try:
        if not isinstance(raw["rollout"].get("shadow"), dict):
            return None
        gateway = GatewayRef.from_manifest(raw["traffic"]["gateway"])
    except (KeyError, TypeError, AttributeError, ValidationError):
        return None
    return gateway.namespace or ref.namespace, gateway.name


def unsupported(spec: ModelDeploymentSpec, found: GatewayClass | None) -> str | None:
    """Say why the gateway cannot copy requests, with the remedy; None: it can, or nobody knows.

    A GatewayClass that lists no features at all is given the benefit of the doubt: some controllers that can copy
    requests publish no list (Envoy Gateway 1.9).
    """
    shadow = spec.rollout.shadow
    if shadow is None or found is None or not found.features:
        return None
    what, remedy, missing = "requests", "use a gateway of another class", ""
    if MIRROR not in found.features:
        missing, remedy = MIRROR, f"{remedy}, or remove rollout.shadow"
    elif shadow.percent < 100 and MIRROR_PERCENT not in found.features:
        missing, what = MIRROR_PERCENT, "a share of the requests"
        remedy = f"set rollout.shadow.percent to 100, or {remedy}"
    if not missing:
        return None
    return (
        f"gateways of the class {found.name} cannot copy {what}, which rollout.shadow needs ({missing} is not among "
        f"the GatewayClass's status.supportedFeatures): {remedy}"
    )


def mirror(
    spec: ModelDeploymentSpec, status: ModelDeploymentStatus, observed: Observed
) -> Mirror | None:
    """Tell who gets copies: the canary in a shadow's step, once its pods are ready."""
    rollout, canary = status.rollout, status.canary
    if not _is_shadowed(spec, status) or rollout is None or canary is None:
        return None
    if rollout.prepared_step != rollout.step or unsupported(spec, observed.gateway_class):
        return None
    assert spec.rollout.shadow is not None  # noqa: S101 - the step is its
    return Mirror(revision=canary.revision, percent=spec.rollout.shadow.percent)


def comparer(
    spec: ModelDeploymentSpec, status: ModelDeploymentStatus, known: Mapping[str, Revision]
) -> ComparerPlan | None:
    """Plan the comparer from the beginning of a shadow's step, so that it is there when copies come, to its end."""
    shadow, canary, stable = spec.rollout.shadow, status.canary, status.stable
    if not _is_shadowed(spec, status) or shadow is None or canary is None or stable is None:
        return None
    revision = known.get(canary.revision)
    if revision is None:
        return None
    return ComparerPlan(
        stable=stable.revision,
        shadow=canary.revision,
        tolerance=shadow.tolerance,
        image=revision.image,
        serving=revision.serving,
    )


def _is_shadowed(spec: ModelDeploymentSpec, status: ModelDeploymentStatus) -> bool:
    if status.rollout is None or spec.traffic.gateway is None:
        return False
    return step_at(spec.rollout, status.rollout).kind is StepKind.SHADOW
