"""What the operator saw of one ModelDeployment's children in one pass: frozen values, read from the objects
as they are.

Deciding from what is seen, not from what was done before, is what lets another operator go on after a crash.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from canarium_api.golden import Outcome
from canarium_operator.core.memory import Memory
from canarium_operator.core.revision import Revision


@dataclass(frozen=True, kw_only=True)
class LoadProblem:
    """Why a pod of a revision cannot serve, in the words of the server or of the kubelet."""

    reason: str
    message: str
    permanent: bool = False
    """True: no retry of this revision can help."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The Deployment of one revision."""

    revision: str
    spec_replicas: int = 0
    """What the HPA (or the operator, to begin with) asked for."""
    replicas: int = 0
    ready_replicas: int = 0
    problem: LoadProblem | None = None


@dataclass(frozen=True, kw_only=True)
class RouteState:
    """The HTTPRoute: the weights that it asks for, and whether the gateway took them. Without a gateway the Service
    `NAME`: the weights that its selector and the ready pods give.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    """Revision to percent; a revision that is not named gets none."""
    reached: frozenset[str] = frozenset()
    """Revisions that some rule leads to, also by a header alone."""
    accepted: bool = False
    """Accepted and ResolvedRefs are True for the route's present generation, at the gateway that the spec names."""
    message: str = ""
    """What the gateway says where it did not accept."""
    mirrored: Mapping[str, int] = field(default_factory=dict)
    """Revisions that get copies of requests, to their percent."""
    by_router: bool = False
    """It leads to the router of a sticky A/B test, with these weights."""


@dataclass(frozen=True, kw_only=True)
class GatewayClass:
    """What the class of the gateway says of itself."""

    name: str
    features: frozenset[str]
    """`status.supportedFeatures`; empty: it publishes none."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """All that was seen."""

    revisions: Mapping[str, Revision] = field(default_factory=dict)
    """Revisions whose ConfigMap exists."""
    workloads: Mapping[str, Workload] = field(default_factory=dict)
    """By revision."""
    services: frozenset[str] = frozenset()
    """Revisions whose Service leads to all their ready pods."""
    route: RouteState | None = None
    """None: there is no route yet, or without a gateway no Service `NAME`."""
    has_front: bool = False
    """The Service `NAME` exists."""
    router_ready: int = 0
    """Ready pods of the router of a sticky A/B test."""
    has_router: bool = False
    """The router's Deployment exists."""
    gateway_class: GatewayClass | None = None
    """Of the gateway that the spec names; None: not looked at, or there is none."""
    strays: frozenset[str] = frozenset()
    """Revisions with pods that still run though their Deployment is gone."""
    validations: Mapping[str, Outcome] = field(default_factory=dict)
    """What Jobs said of models on golden data, by Job; one that still runs is absent."""
    memory: Memory | None = None
    """What is remembered from earlier objects of the same name."""
    notes: tuple[str, ...] = ()
    """What could not be read, in sentences for the log."""

    def workload(self, revision: str) -> Workload:
        """Give the workload of a revision, or one without pods."""
        return self.workloads.get(revision, Workload(revision=revision))

    def weight(self, revision: str | None) -> int:
        """Percent that the route asks for, for one revision."""
        return 0 if self.route is None or revision is None else self.route.weights.get(revision, 0)
