"""Situations of a ModelDeployment, as the operator's own code writes their status: every phase and every strategy.

Each is a world in virtual time, and what is said of it with each `readyWhen`. Argo CD's word stands for kstatus', too
(`KSTATUS`), so that Flux and Argo CD cannot be told to disagree.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from canarium_api import API_VERSION, KIND
from canarium_api.kstatus import Health
from canarium_api.rollout import ReadyWhen
from canarium_api.status import Phase
from canarium_operator.core.observation import GatewayClass, LoadProblem
from canarium_operator.core.revision import revision_of
from canarium_operator.testing.scenario import IMAGE, REF, Scenario, Traffic, make_spec

V1, V2 = (revision_of(make_spec(v), IMAGE).name for v in "12")
READY_STEP: Final = 2
MODES: Final[dict[ReadyWhen, dict[str, Any]]] = {
    ReadyWhen.PROMOTED: {},
    ReadyWhen.STEP_REACHED: {"readyWhen": "StepReached", "readyStep": READY_STEP},
    ReadyWhen.ADMITTED: {"readyWhen": "Admitted"},
}
WITHOUT_STEPS: Final = (ReadyWhen.PROMOTED, ReadyWhen.ADMITTED)
"""What `readyWhen` may be with fixed versions."""
KSTATUS: Final = {
    "Healthy": Health.CURRENT,
    "Degraded": Health.FAILED,
    "Progressing": Health.IN_PROGRESS,
    "Suspended": Health.IN_PROGRESS,
}
"""What kstatus says where Argo CD says this."""

World = Callable[[dict[str, Any]], Scenario]
"""From `readyWhen` and `readyStep` to a world."""

STEPS: dict[str, Any] = {"canary": {"steps": [{"weight": w, "pause": "1m"} for w in (10, 50)]}}
THREE: dict[str, Any] = {"canary": {"steps": [{"weight": w, "pause": "1m"} for w in (10, 50, 70)]}}
APPROVED: dict[str, Any] = {
    "canary": {"steps": [{"weight": w, "pause": "1m", "approval": w == 50} for w in (10, 50)]}
}
ERRORS: dict[str, Any] = {"analysis": {"interval": "30s", "metrics": [{"name": "error-rate"}]}}
COLOURS: dict[str, Any] = {"blueGreen": {"beforeSwitch": {"pause": "1m"}}}
TEST: dict[str, Any] = {
    "abTest": {
        "header": {"name": "x-group", "value": "b"},
        "goals": ["error-rate"],
        "minDuration": "1m",
        "maxDuration": "5m",
    }
}
SHADOW: dict[str, Any] = {"shadow": {"percent": 50, "pause": "1m"}}
EU: dict[str, Any] = {"uri": "https://models/fraud/eu.onnx", "version": "eu-3"}
FIXED: dict[str, Any] = {"fixed": {"versions": [{"name": "eu", "weight": 30, "model": EU}]}}
RATIOS: dict[str, Any] = {"canary": {"steps": [{"weight": w, "pause": "1m"} for w in (33, 50)]}}
FREEZE: dict[str, Any] = {"freezes": [{"from": "00:00", "to": "00:00", "reason": "sale"}]}
CORRUPT: Final = LoadProblem(
    reason="DigestMismatch", message="expected 9c1f, got 41aa", permanent=True
)
UNMIRRORED: Final = GatewayClass(name="traefik", features=frozenset({"HTTPRoute"}))


def first(ready: dict[str, Any]) -> Scenario:
    """The operator has just seen the object."""
    return Scenario(spec=make_spec("1", rollout={**STEPS, **ERRORS, **ready}))


def begun(ready: dict[str, Any], *strategy: dict[str, Any], gateway: bool = True) -> Scenario:
    """Version 1 serves, and version 2 has just been applied; nothing has been decided."""
    rollout: dict[str, Any] = {**ERRORS, **ready}
    for part in strategy or (STEPS,):
        rollout |= part
    if rollout.get("fixed"):
        del rollout["analysis"]
    traffic = {} if gateway else {"traffic": {}}
    before = make_spec("1", rollout={**STEPS, **ERRORS, **ready}, **traffic)
    return Scenario(spec=before).settle().change(make_spec("2", rollout=rollout, **traffic))


def step(ready: dict[str, Any], number: int, *strategy: dict[str, Any]) -> Scenario:
    """A step of version 2 has just begun."""
    world = begun(ready, *strategy).settle()
    for _ in range(number - 1):
        world = world.later(61).settle()
    assert world.status.rollout is not None
    assert world.status.rollout.step == number, world.status.message
    assert world.status.rollout.step_started_at is not None
    return world


def asked(world: Scenario, verb: str) -> Scenario:
    """Somebody gives a command."""
    return replace(world, commands={**world.commands, verb: "alice 1"}).settle()


def bad(world: Scenario) -> Scenario:
    """Version 2 fails one request in five."""
    return world.serves(V2, Traffic(error_rate=0.2)).later(31)


def refused(ready: dict[str, Any]) -> Scenario:
    """The first model cannot be loaded."""
    return first(ready).step().act(ready=False).pods(V1, 0, CORRUPT).step().step()


def waiting_for_pods(ready: dict[str, Any]) -> Scenario:
    """Step 1 has passed, and step 2 needs more pods than are ready."""
    world = step(ready, 1)
    assert world.status.rollout is not None
    few = world.pods(V2, 1).pods(V1, 2).later(61)
    many = replace(few.observed.workload(V1), spec_replicas=10, replicas=10, ready_replicas=10)
    workloads = {**few.observed.workloads, V1: many}
    return replace(few, observed=replace(few.observed, workloads=workloads)).step().step()


def lost(world: Scenario, revision: str) -> Scenario:
    """All pods of a revision are gone."""
    return world.pods(revision, 0).step().step()


def shadowed(ready: dict[str, Any]) -> Scenario:
    """Version 2 gets copies of requests."""
    return begun(ready, SHADOW, STEPS).serves(V2, Traffic(custom=0.01)).settle()


def unmirrored(ready: dict[str, Any]) -> Scenario:
    """The gateway cannot copy requests."""
    world = begun(ready, SHADOW, STEPS)
    return replace(world, observed=replace(world.observed, gateway_class=UNMIRRORED)).settle()


def versions_load(ready: dict[str, Any]) -> Scenario:
    """Pods of fixed versions are awaited."""
    return begun(ready, FIXED).step().act(ready=False).step()


def version_failed(ready: dict[str, Any]) -> Scenario:
    """A fixed version beside `main` cannot load its model."""
    world = versions_load(ready)
    (eu,) = (v.next.revision for v in world.status.versions if v.name == "eu" and v.next)
    return world.pods(eu, 0, CORRUPT).settle().later(31).settle()


def v1(ready: dict[str, Any]) -> Any:
    """The spec of version 1."""
    return make_spec("1", rollout={**STEPS, **ERRORS, **ready})


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A world, and what is said of it: with readyWhen Promoted, StepReached (step 2) and Admitted."""

    name: str
    world: World
    phase: Phase
    health: tuple[str, str, str]
    modes: tuple[ReadyWhen, ...] = tuple(ReadyWhen)
    """Those that its spec may have."""

    @cache  # noqa: B019 - situations live as long as the tests
    def scenario(self, mode: ReadyWhen = ReadyWhen.PROMOTED) -> Scenario:
        """Give the world; it is frozen, so one is enough for all tests."""
        return self.world(MODES[mode])

    def manifest(self, mode: ReadyWhen) -> dict[str, Any]:
        """Give the object as the API server has it."""
        return as_stored(self.scenario(mode))

    def expected(self, mode: ReadyWhen) -> str:
        """Give Argo CD's word."""
        return self.health[list(ReadyWhen).index(mode)]


def as_stored(scenario: Scenario) -> dict[str, Any]:
    """Give the object of a scenario as the API server has it."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": REF.name,
            "namespace": REF.namespace,
            "generation": scenario.generation,
        },
        "spec": scenario.spec.to_manifest(),
        "status": scenario.status.to_manifest(),
    }


P, S, H, D = "Progressing", "Suspended", "Healthy", "Degraded"
ALWAYS: Final = (P, P, P)


def _row(
    name: str, world: World, phase: Phase, health: tuple[str, str, str], **more: Any
) -> Situation:
    return Situation(name=name, world=world, phase=phase, health=health, **more)


SITUATIONS: Final = (
    _row("not seen yet", first, Phase.PENDING, ALWAYS),
    _row("first revision loads", lambda m: first(m).step(), Phase.LOADING, ALWAYS),
    _row("first revision cannot be loaded", refused, Phase.LOADING, (D, D, D)),
    _row(
        "first revision is not ready in time",
        lambda m: first(m).step().act(ready=False).later(601).step(),
        Phase.LOADING,
        (D, D, D),
    ),
    _row("serving what the spec asks", lambda m: first(m).settle(), Phase.PROMOTED, (H, H, H)),
    _row("a new spec is not seen yet", begun, Phase.PROMOTED, ALWAYS),
    _row("a new spec has just been seen", lambda m: begun(m).step(), Phase.LOADING, ALWAYS),
    _row(
        "canary loads",
        lambda m: begun(m).step().act(ready=False).step(),
        Phase.LOADING,
        (P, P, H),
    ),
    _row("canary in a step before readyStep", lambda m: step(m, 1), Phase.CANARY, (P, P, H)),
    _row("canary waits for pods for readyStep", waiting_for_pods, Phase.CANARY, (P, P, H)),
    _row(
        "the gateway does not carry readyStep yet",
        lambda m: step(m, 1).later(61).step().act(accepted=False).step(),
        Phase.CANARY,
        (P, P, H),
    ),
    _row("canary in readyStep, or past it", lambda m: step(m, 2), Phase.CANARY, (P, H, H)),
    _row(
        "canary has lost its pods in readyStep",
        lambda m: lost(step(m, 2), V2),
        Phase.CANARY,
        (P, P, H),
    ),
    _row(
        "its pods are back, and the gateway does not carry them yet",
        lambda m: lost(step(m, 3, THREE), V2).act(accepted=False).step().step(),
        Phase.CANARY,
        (P, P, H),
    ),
    _row("stable has lost its pods", lambda m: lost(step(m, 2), V1), Phase.CANARY, ALWAYS),
    _row(
        "paused before readyStep",
        lambda m: asked(step(m, 1), "pause"),
        Phase.PAUSED,
        (S, S, H),
    ),
    _row(
        "paused before its Deployment is seen",
        lambda m: replace(begun(m).step(), commands={"pause": "alice 1"}).step().step(),
        Phase.PAUSED,
        (S, S, S),
    ),
    _row(
        "readyStep waits for an approval",
        lambda m: step(m, 2, APPROVED).later(61).settle(),
        Phase.PAUSED,
        (S, H, H),
    ),
    _row(
        "paused in the spec before its beginning",
        lambda m: begun(m, STEPS, {"paused": True}).settle(),
        Phase.PAUSED,
        (S, S, H),
    ),
    _row(
        "frozen before its beginning",
        lambda m: begun(m, STEPS, FREEZE).settle(),
        Phase.PAUSED,
        (S, S, H),
    ),
    _row("promoting", lambda m: step(m, 2).later(61).settle(), Phase.PROMOTING, (P, H, H)),
    _row(
        "promoted",
        lambda m: step(m, 2).later(61).settle().later(31).settle(),
        Phase.PROMOTED,
        (H, H, H),
    ),
    _row(
        "promoted, and stable has lost its pods",
        lambda m: lost(first(m).settle(), V1),
        Phase.PROMOTED,
        ALWAYS,
    ),
    _row(
        "promoted, with fewer pods than minReplicas",
        lambda m: first(m).settle().pods(V1, 1).step(),
        Phase.PROMOTED,
        ALWAYS,
    ),
    _row("rolling back", lambda m: bad(step(m, 2)).settle(), Phase.ROLLING_BACK, ALWAYS),
    _row(
        "taken back, stable serves",
        lambda m: bad(step(m, 2)).settle().later(31).settle(),
        Phase.ABORTED,
        (D, D, D),
    ),
    _row(
        "aborted by somebody",
        lambda m: asked(step(m, 2), "abort").later(31).settle(),
        Phase.ABORTED,
        (D, D, D),
    ),
    _row(
        "tried again",
        lambda m: asked(bad(step(m, 2)).settle().later(31).serves(V2, Traffic()).settle(), "retry"),
        Phase.CANARY,
        (P, P, H),
    ),
    _row(
        "made anew with a spec that has failed",
        lambda m: bad(step(m, 2)).settle().later(31).settle().recreated().settle(),
        Phase.ABORTED,
        (D, D, D),
    ),
    _row(
        "invalid spec",
        lambda m: replace(step(m, 2), problem="spec.x: is wrong").settle(),
        Phase.INVALID,
        (D, D, D),
    ),
    _row(
        "refused by the cluster",
        lambda m: replace(step(m, 2), rejection="exceeded quota").settle(),
        Phase.CANARY,
        (D, D, D),
    ),
    _row(
        "the spec names stable again",
        lambda m: step(m, 1).change(v1(m)).settle(),
        Phase.ROLLING_BACK,
        (P, H, H),
    ),
    _row(
        "going back within rollbackWindow, pods load",
        lambda m: (
            step(m, 2)
            .later(61)
            .settle()
            .later(31)
            .settle()
            .change(v1(m))
            .step()
            .act(ready=False)
            .step()
        ),
        Phase.LOADING,
        (P, P, H),
    ),
    _row(
        "promoted by hand, pods load",
        lambda m: replace(step(m, 1), commands={"promote": "alice 1"}).step().pods(V2, 1).step(),
        Phase.CANARY,
        (P, P, H),
    ),
    _row("blue-green, preview", lambda m: step(m, 1, COLOURS), Phase.CANARY, (P, P, H)),
    _row("blue-green, switched", lambda m: step(m, 2, COLOURS), Phase.CANARY, (P, H, H)),
    _row("A/B test", lambda m: step(m, 1, TEST), Phase.CANARY, (P, P, H)),
    _row(
        "A/B test is over, and nobody has decided",
        lambda m: step(m, 1, TEST).later(301).settle(),
        Phase.PAUSED,
        (S, S, H),
    ),
    _row("shadow", shadowed, Phase.CANARY, (P, P, H)),
    _row("after a shadow", lambda m: asked(shadowed(m), "skip"), Phase.CANARY, (P, H, H)),
    _row("the gateway cannot copy requests", unmirrored, Phase.PAUSED, (D, D, D)),
    _row("fixed versions load", versions_load, Phase.LOADING, (P, P, H), modes=WITHOUT_STEPS),
    _row(
        "fixed versions serve",
        lambda m: begun(m, FIXED).settle().later(31).settle(),
        Phase.PROMOTED,
        (H, H, H),
        modes=WITHOUT_STEPS,
    ),
    _row(
        "a fixed version has failed", version_failed, Phase.ABORTED, (D, D, D), modes=WITHOUT_STEPS
    ),
    _row(
        "without a gateway",
        lambda m: begun(m, RATIOS, gateway=False).settle().later(61).settle(),
        Phase.CANARY,
        (P, H, H),
    ),
)
ROWS: Final = [(row, mode) for row in SITUATIONS for mode in row.modes]
"""Each situation with each `readyWhen` that its spec may have."""
