"""Requests that do not follow weights: previews, A/B tests by header, by cookie, or by a router, and fixed versions.

Part of `core.plan`: all of it follows from the status that was just written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from canarium_api.abtest import AbTestSpec
from canarium_api.split import Split
from canarium_api.status import ModelDeploymentStatus, RolloutStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec, ServingSpec
from canarium_operator.core.observation import Observed
from canarium_operator.core.revision import Revision
from canarium_operator.core.rollout.strategy import Strategy

ROUTERS: Final = 2
"""Pods of the router before users are led to it: one may be lost at any time."""


@dataclass(frozen=True, kw_only=True)
class HeaderRule:
    """Requests with a header that go to one revision, whatever its weight."""

    name: str
    value: str
    revision: str


@dataclass(frozen=True, kw_only=True)
class CookieRule:
    """Requests with a cookie that go to one revision, whatever its weight."""

    name: str
    value: str
    revision: str


@dataclass(frozen=True, kw_only=True)
class RouterPlan:
    """The router of a sticky A/B test."""

    image: str
    """The runtime's, of the revision that is tested."""
    serving: ServingSpec
    """For the limits of requests, and where pods may run."""


def rules(
    spec: ModelDeploymentSpec, status: ModelDeploymentStatus, preview: str | None
) -> tuple[HeaderRule | CookieRule, ...]:
    """Tell which requests do not follow the weights: those of a preview, of an A/B test by header or cookie, or those
    that name a fixed version.
    """
    canary, colours = status.canary, spec.rollout.blue_green
    if spec.traffic.gateway is None:
        return ()
    if canary is None:
        return _by_version(spec, status)
    if preview is not None and colours is not None:
        header = colours.preview_header
        return (HeaderRule(name=header.name, value=header.value, revision=preview),)
    test = _test(spec, status.rollout)
    if test is None or status.rollout is None or canary.ready_replicas == 0:
        return ()
    # Also while the switch to 100 % waits for pods: whoever has B keeps it.
    direct = status.rollout.strategy == Strategy.DIRECT
    if status.rollout.weight == 100 or (status.rollout.prepared_step == 0 and not direct):
        return ()
    if test.header is not None:
        match = test.header
        return (HeaderRule(name=match.name, value=match.value, revision=canary.revision),)
    if test.cookie is not None:
        cookie = test.cookie
        return (CookieRule(name=cookie.name, value=cookie.value, revision=canary.revision),)
    return ()


def _by_version(spec: ModelDeploymentSpec, status: ModelDeploymentStatus) -> tuple[HeaderRule, ...]:
    fixed = spec.rollout.fixed
    if fixed is None or not fixed.header:
        return ()
    return tuple(
        HeaderRule(name=fixed.header, value=version.name, revision=version.revision)
        for version in status.versions
        if version.revision
    )


def split(spec: ModelDeploymentSpec, status: ModelDeploymentStatus) -> Split | None:
    """Tell the router who gets what, from when a sticky test has a share of the users until B has all of them."""
    rollout, test = status.rollout, _test(spec, status.rollout)
    if rollout is None or status.canary is None or status.stable is None or test is None:
        return None
    if test.sticky is None or not 0 < rollout.weight < 100:
        return None
    return Split(
        stable=status.stable.revision,
        canary=status.canary.revision,
        share=rollout.weight,
        key=test.sticky.header or test.sticky.cookie or "",
        is_cookie=test.sticky.header is None,
    )


def router(
    spec: ModelDeploymentSpec, status: ModelDeploymentStatus, known: Mapping[str, Revision]
) -> RouterPlan | None:
    """Plan the router from the start of a sticky test, so that it is ready when the route is to lead to it, to the end
    of the whole rollout, so that it is gone only when nobody is led to it.
    """
    test = _test(spec, status.rollout)
    if test is None or test.sticky is None or status.canary is None:
        return None
    tested = known.get(status.canary.revision)
    return RouterPlan(image=tested.image, serving=tested.serving) if tested is not None else None


def keeps_router(status: ModelDeploymentStatus, observed: Observed) -> bool:
    """Keep the router until the gateway was seen to lead around it, and what lost its traffic has drained."""
    if not observed.has_router:
        return False
    route = observed.route
    unsure = route is None or not route.accepted or route.by_router
    return unsure or status.canary is not None or bool(status.draining)


def _test(spec: ModelDeploymentSpec, rollout: RolloutStatus | None) -> AbTestSpec | None:
    """Give the A/B test that a rollout carries out, or has carried out on its way to 100 %."""
    if rollout is None or spec.traffic.gateway is None:
        return None
    promoted = rollout.strategy == Strategy.DIRECT and rollout.experiment is not None
    return spec.rollout.ab_test if rollout.strategy == Strategy.AB_TEST or promoted else None
