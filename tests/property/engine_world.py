"""Worlds for the engine's laws: what can happen to a ModelDeployment between two looks, as values that Hypothesis
can shrink.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from hypothesis import strategies as st

from canarium_operator.core.naming import COMMANDS
from canarium_operator.core.observation import LoadProblem, RouteState
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.inputs import ProbeFailure, SignatureAnswer
from canarium_operator.core.rollout.queries import QueryFailure
from canarium_operator.testing.cluster import SIGNATURE
from canarium_operator.testing.scenario import IMAGE, Scenario, Traffic, make_spec

VERSIONS = ("1", "2", "3")
MAX_BACKWARDS = 30.0
"""Seconds that one correction sets the clock back at most."""

STEPS: dict[str, list[tuple[int, str]]] = {
    "usual": [(10, "1m"), (50, "1m"), (100, "1m")],
    "short": [(50, "10s")],
    "other": [(5, "1m"), (20, "0s"), (100, "30s")],
    "whole": [(100, "1m")],
}
ANALYSES: dict[str, dict[str, Any]] = {
    "usual": {"interval": "30s", "minSamples": 100},
    "none": {"metrics": []},
    "forgiving": {"interval": "20s", "minSamples": 10, "failureLimit": 2, "maxWait": "5m"},
    "custom": {
        "interval": "30s",
        "minSamples": 0,
        "metrics": [
            {"name": "agreement", "query": 'agreement{revision="{{revision}}"}', "min": 0.9},
            {"name": "error-rate", "max": "2%", "minSamples": 50},
        ],
    },
}
AUTOSCALINGS: dict[str, dict[str, int]] = {
    "usual": {"minReplicas": 2, "maxReplicas": 10},
    "one": {"minReplicas": 1, "maxReplicas": 1},
    "many": {"minReplicas": 5, "maxReplicas": 6},
}
FREEZE = ("12:03", "12:20")
"""Soon after the beginning of all lives, and over before long."""
HOLDS: dict[str, dict[str, Any]] = {
    "": {},
    "paused": {"paused": True},
    "frozen": {"freezes": [{"from": FREEZE[0], "to": FREEZE[1]}]},
    "approved": {"approvals": [{"version": v, "step": 1} for v in VERSIONS]},
}
READY_WHEN: dict[str, dict[str, Any]] = {
    "": {},
    "first step": {"readyWhen": "StepReached", "readyStep": 1},
    "second step": {"readyWhen": "StepReached", "readyStep": 2},
    "admitted": {"readyWhen": "Admitted"},
}
TESTS: dict[str, dict[str, Any]] = {
    "": {},
    "sticky": {
        "sticky": {"header": "x-user"},
        "share": 30,
        "minDuration": "0s",
        "onWinner": "Promote",
    },
    "more": {"sticky": {"header": "x-user"}, "share": 60, "minDuration": "1m", "maxDuration": "5m"},
    "header": {"header": {"name": "x", "value": "b"}, "minDuration": "0s", "onUndecided": "Abort"},
}
for _test in TESTS.values():
    _test["goals"] = ["error-rate"]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asks for."""

    version: str = "1"
    steps: str = "usual"
    analysis: str = "usual"
    autoscaling: str = "usual"
    drain: str = "30s"
    schema: str = "Refuse"
    throughput: float | None = None
    """Requests a second that a pod is said to answer."""
    last_good: str = ""
    """Version that git says is good."""
    approval: bool = False
    """The first step ends only when somebody approves."""
    hold: str = ""
    test: str = ""
    """An A/B test instead of steps."""
    ready: str = ""

    def spec(self) -> Any:
        """Build the spec."""
        steps: list[dict[str, Any]] = [{"weight": w, "pause": p} for w, p in STEPS[self.steps]]
        steps[0]["approval"] = self.approval
        return make_spec(
            self.version,
            autoscaling=AUTOSCALINGS[self.autoscaling],
            rollout={
                **(
                    {"abTest": TESTS[self.test]}
                    if self._is_tested
                    else {"canary": {"steps": steps}}
                ),
                "analysis": ANALYSES[self.analysis],
                "scaleDownDelay": self.drain,
                **HOLDS[self.hold],
                **READY_WHEN[self.ready],
                "schemaChange": self.schema,
                **({"capacity": {"requestsPerSecond": self.throughput}} if self.throughput else {}),
                **({"lastGood": _model(self.last_good)} if self.last_good else {}),
            },
        )

    @property
    def _is_tested(self) -> bool:
        """A test needs a goal that can be decided, which not all analyses have."""
        return bool(self.test) and self.analysis in ("usual", "forgiving")


def _model(version: str) -> dict[str, str]:
    return {"uri": f"https://models/fraud/{version}.onnx", "version": version}


class Start(Enum):
    """Where a life begins."""

    NOTHING = 0
    SERVING = 1
    CANARY = 2

    def reach(self, wish: Wish) -> Scenario:
        """Play to the start in peace; the canary is what is wished for, under another version than stable's."""
        if self is Start.NOTHING:
            return Scenario(spec=wish.spec())
        other = "1" if wish.version != "1" else "2"
        world = Scenario(spec=replace(wish, version=other).spec()).settle()
        return world if self is Start.SERVING else world.change(wish.spec()).settle()


REVISIONS = tuple(revision_of(Wish(version=v).spec(), IMAGE).name for v in VERSIONS)


class Role(Enum):
    """Whom something happens to."""

    CANARY = 0
    STABLE = 1
    OTHER = 2

    def who(self, world: Scenario) -> str:
        """Find the revision."""
        if self is Role.OTHER:
            return REVISIONS[-1]
        found = world.status.canary if self is Role.CANARY else world.status.stable
        return found.revision if found is not None else world.wanted.name


@dataclass(frozen=True)
class Edit:
    """The user applies another spec."""

    wish: Wish

    def happen(self, world: Scenario) -> Scenario:
        """Give the world after it."""
        return world.change(self.wish.spec())


@dataclass(frozen=True)
class Break:
    """The spec becomes invalid, or valid again."""

    problem: str | None

    def happen(self, world: Scenario) -> Scenario:
        """Give the world after it."""
        if world.problem == self.problem:
            return world
        return replace(world, problem=self.problem, generation=world.generation + 1)


@dataclass(frozen=True)
class Refuse:
    """The API server refuses a child, or lets all in again."""

    rejection: str | None

    def happen(self, world: Scenario) -> Scenario:
        """Give the world after it."""
        return replace(world, rejection=self.rejection)


@dataclass(frozen=True)
class Ask:
    """Somebody sets the annotation of a command."""

    verb: str
    value: str

    def happen(self, world: Scenario) -> Scenario:
        """Give the world after it."""
        return replace(world, commands={**world.commands, self.verb: self.value})


@dataclass(frozen=True)
class Pass:
    """Time passes; backwards when the clock is corrected."""

    seconds: float

    def happen(self, world: Scenario) -> Scenario:
        """Give the world after it."""
        return world.later(self.seconds)


@dataclass(frozen=True)
class Act:
    """The cluster does what the status asks for, in part or in full."""

    ready: bool
    accepted: bool

    def happen(self, world: Scenario) -> Scenario:
        """Give the world after it."""
        return world.act(ready=self.ready, accepted=self.accepted)


@dataclass(frozen=True)
class Pods:
    """Pods of a revision come or go."""

    role: Role
    ready: int
    problem: LoadProblem | None

    def happen(self, world: Scenario) -> Scenario:
        """Give the world after it."""
        return world.pods(self.role.who(world), self.ready, self.problem)


@dataclass(frozen=True)
class Route:
    """The gateway changes its mind, or somebody the route."""

    route: RouteState | None

    def happen(self, world: Scenario) -> Scenario:
        """Give the world after it."""
        return replace(world, observed=replace(world.observed, route=self.route))


@dataclass(frozen=True)
class Unreachable:
    """The Service of a revision is gone, or was refused."""

    role: Role

    def happen(self, world: Scenario) -> Scenario:
        """Give the world after it."""
        left = world.observed.services - {self.role.who(world)}
        return replace(world, observed=replace(world.observed, services=left))


@dataclass(frozen=True)
class Answer:
    """Prometheus says something else of a revision."""

    role: Role
    traffic: Traffic

    def happen(self, world: Scenario) -> Scenario:
        """Give the world after it."""
        return world.serves(self.role.who(world), self.traffic)


@dataclass(frozen=True)
class Tell:
    """Pods of a revision tell something else of their model, or nothing."""

    role: Role
    signature: SignatureAnswer

    def happen(self, world: Scenario) -> Scenario:
        """Give the world after it."""
        return replace(world, signatures={**world.signatures, self.role.who(world): self.signature})


@dataclass(frozen=True)
class Recreate:
    """The user deletes the object, after all was done for its status, and makes it anew."""

    def happen(self, world: Scenario) -> Scenario:
        """Give the world after it."""
        return world if world.problem is not None else world.act().recreated()


@dataclass(frozen=True)
class Prometheus:
    """Prometheus is away, or back."""

    failure: QueryFailure | None

    def happen(self, world: Scenario) -> Scenario:
        """Give the world after it."""
        return replace(world, failure=self.failure)


Action = (
    Edit
    | Break
    | Refuse
    | Ask
    | Pass
    | Act
    | Pods
    | Route
    | Unreachable
    | Answer
    | Prometheus
    | Tell
    | Recreate
)

wishes = st.builds(
    Wish,
    version=st.sampled_from(VERSIONS),
    steps=st.sampled_from(sorted(STEPS)) | st.just("usual"),
    analysis=st.sampled_from(sorted(ANALYSES)) | st.just("usual"),
    autoscaling=st.sampled_from(sorted(AUTOSCALINGS)) | st.just("usual"),
    drain=st.sampled_from(("30s", "0s")),
    approval=st.sampled_from((False, False, True)),
    schema=st.sampled_from(("Refuse", "Refuse", "Allow")),
    throughput=st.sampled_from((None, None, 3.0, 100.0)),
    last_good=st.sampled_from(("", "", *VERSIONS)),
    hold=st.sampled_from(("", "", "", *sorted(HOLDS))),
    test=st.sampled_from(("", "", "", "", *sorted(TESTS))),
    ready=st.sampled_from(("", *sorted(READY_WHEN))),
)
revisions = st.sampled_from(REVISIONS)
roles = st.sampled_from((Role.CANARY, Role.CANARY, Role.STABLE, Role.OTHER))
problems = st.sampled_from(
    (
        None,
        LoadProblem(reason="DownloadFailed", message="404"),
        LoadProblem(reason="DigestMismatch", message="expected a, got b", permanent=True),
    )
)
bad_values = st.sampled_from((None, float("nan"), float("inf"), float("-inf"), -1.0, 1e300))
traffics = st.builds(
    Traffic,
    requests=st.sampled_from((1000.0, 200.0, 100.0, 99.4, 0.0)) | bad_values,
    error_rate=st.sampled_from((0.0, 0.001, 0.02, 0.3)),
    invalid_rate=st.sampled_from((0.0, 0.0, 0.04, 0.4)),
    latency=st.sampled_from((0.02, 0.03, 0.5)),
    custom=st.sampled_from((0.99, 0.5)) | bad_values,
)
routes = st.none() | st.builds(
    RouteState,
    weights=st.dictionaries(revisions, st.sampled_from((1, 10, 50, 100)), max_size=2),
    accepted=st.booleans(),
    message=st.sampled_from(("", "no such listener")),
)
obedient: st.SearchStrategy[Action] = st.just(Act(ready=True, accepted=True))
onwards: st.SearchStrategy[Action] = st.builds(Pass, st.sampled_from((0.0, 1.0, 10.0, 31.0, 61.0)))
"""What happens most of the time, so that rollouts come far."""

signatures = st.sampled_from(
    (
        SIGNATURE,
        SIGNATURE.model_copy(update={"inputs": []}),
        SIGNATURE.model_copy(update={"outputs": []}),
        ProbeFailure(message="no endpoints"),
    )
)
answers = st.builds(Answer, roles, traffics)
pods = st.builds(Pods, roles, st.sampled_from((0, 0, 1, 2, 6)), problems)
commands = st.builds(
    Ask,
    st.sampled_from(COMMANDS),
    st.sampled_from(("alice 1", "bob 2", "2026-01-01", "alice 3 step=1", "eve 4 revision=ffff")),
)
troubles: st.SearchStrategy[Action] = st.one_of(
    *[answers] * 5,
    *[pods] * 2,
    st.builds(Prometheus, st.sampled_from((None, None, QueryFailure(message="timed out")))),
    st.builds(Unreachable, roles),
    st.builds(Tell, roles, signatures),
    st.just(Recreate()),
    *[st.builds(Edit, wishes)] * 2,
    st.builds(Break, st.sampled_from((None, None, "spec.x: is wrong"))),
    st.builds(Refuse, st.sampled_from((None, None, "exceeded quota"))),
    *[commands] * 4,
    st.builds(Pass, st.sampled_from((601.0, 90_000.0, -MAX_BACKWARDS, -1.0))),
    st.builds(Act, st.booleans(), st.booleans()),
    st.builds(Route, routes),
)


def _one_action(kind: int) -> st.SearchStrategy[Action]:
    # Not st.one_of: it would flatten the troubles, and one obedient cluster in fifteen gets no rollout far.
    kinds: list[st.SearchStrategy[Action]] = [obedient, onwards, troubles]
    return kinds[kind]


lives: st.SearchStrategy[list[Action]] = st.lists(
    st.integers(0, 2).flatmap(_one_action), min_size=10, max_size=50
)
