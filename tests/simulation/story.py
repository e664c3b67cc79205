"""Stories: from a seed to a rollout, the faults that it meets, and what must come of it.

All faults stop after a while; what holds while they last is in `invariants`, and what must be true at the end is here.
The deadlines of the specs are longer than all faults together, so that a good revision has no excuse to fail.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any, Final

from canarium_api.conditions import Reason
from canarium_operator.core import naming
from canarium_operator.core.manifests import Manifest
from canarium_operator.errors import (
    ConflictError,
    ForbiddenError,
    MetricSourceError,
    TransientClusterError,
)
from canarium_operator.testing.cluster import Call
from canarium_operator.testing.controllers import PodScript
from canarium_operator.testing.metrics import Behaviour
from canarium_operator.testing.objects import model_deployment

from .world import REF, Crash, World

FAULTS_LAST: Final = 240.0
"""Seconds from the new spec until the last fault is over."""
LONGEST_BACKOFF: Final = 60.0
"""Seconds an operator may wait after its last failure, so that what people asked for has not begun."""
PATIENCE: Final = 3600.0
"""Seconds in which every story must come to its end."""
RATIOS: Final = (25, 33, 40, 50, 100)
"""Weights that any bounds of a story reach without a gateway."""
READY_WHEN: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"readyWhen": "StepReached", "readyStep": 1},
    {"readyWhen": "Admitted"},
)
"""When a rollout counts as ready; nothing else may depend on it."""
QUOTAS: Final = ("HorizontalPodAutoscaler", "Service", "Deployment")
WRITES: Final = ("apply", "apply_status", "scale", "delete", "record_event")


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How probable each fault is at one call of a port."""

    before: float = 0.0
    after: float = 0.0
    crash: float = 0.0
    conflict: float = 0.0
    forbidden: float = 0.0
    metrics: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Model:
    """A version of the model: how it behaves and what must become of it."""

    version: str
    good: bool
    behaviour: Behaviour = field(default_factory=Behaviour)
    pods: PodScript = field(default_factory=PodScript)


GOOD: Final = Model(version="2", good=True)
BAD: Final = Model(version="2", good=False, behaviour=Behaviour(error_rate=0.3))
REFUSING: Final = Model(version="2", good=False, behaviour=Behaviour(invalid_rate=0.5))
SLOW: Final = Model(version="2", good=False, behaviour=Behaviour(latency=0.5))
NEVER_READY: Final = Model(version="2", good=False, pods=PodScript(ready_after=None))


class Story:
    """One seed."""

    def __init__(
        self, seed: int, *, operators: int = 1, pods_fail: bool | None = None, gateway: bool = True
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.gateway = gateway
        # A Service that exists is changed, not made, when traffic moves without a gateway: no quota refuses that.
        self.quotas = QUOTAS if gateway else tuple(kind for kind in QUOTAS if kind != "Service")
        random = self.random
        self.rates = self._rates()
        self.pods_fail = random.random() < 0.5 if pods_fail is None else pods_fail
        self.world = World(
            operators_wanted=operators,
            exact_routes=operators == 1,
            restart_after=lambda: timedelta(seconds=random.choice((0, 0, 1, 20))),
        )
        self.drain = random.choice((0, 20))
        self.rollout = self._rollout()
        self.autoscaling = {"minReplicas": random.randint(1, 4), "maxReplicas": 6}
        self.model = self._model()
        self.lost_events = False
        """A process died that had Events to post which had been refused before: only it knew of them."""
        self.faults_end = self.world.clock.now()
        self.world.fault = self._fault
        if operators > 1:
            self.world.cluster.delays = lambda: random.choice((0, 0, 1, 3))

    # --- what the seed decides

    def _rates(self) -> Rates:
        random = self.random
        names = random.sample(("before", "after", "crash", "conflict", "forbidden", "metrics"), 3)
        return Rates(**{name: random.choice((0.01, 0.05, 0.15)) for name in names})

    def _rollout(self) -> dict[str, Any]:
        random = self.random
        choice = (1, 5, 10, 25, 50, 75, 100) if self.gateway else RATIOS
        weights = sorted(random.sample(choice, random.randint(1, 3)))
        steps: list[dict[str, Any]] = [
            {"weight": w, "pause": f"{random.choice((0, 15, 30))}s"} for w in weights
        ]
        if random.random() < 0.2:
            random.choice(steps)["approval"] = True
        metrics = random.choice(
            (
                [{"name": "error-rate"}, {"name": "latency-p95"}],
                [{"name": "error-rate"}, {"name": "invalid-rate"}, {"name": "latency-p50"}],
                [{"name": "error-rate", "max": "5%"}, {"name": "latency-p99", "maxRatio": 2}],
            )
        )
        chance = random.random()
        strategy: dict[str, Any] = {"canary": {"steps": steps}}
        if chance < 0.25:
            strategy = self._colours()
        elif chance < 0.4 and self.gateway:
            strategy = self._ab_test()
            metrics = [{"name": "error-rate"}, {"name": "invalid-rate"}, {"name": "latency-p50"}]
        # Of a source of its own: what else happens under a seed stays the same.
        apart = Random(f"{self.seed} shadow")
        if self.gateway and apart.random() < 0.25:
            percent, pause = apart.choice((20, 100)), apart.choice((0, 20, 60))
            strategy["shadow"] = {"percent": percent, "pause": f"{pause}s"}
        return {
            **strategy,
            **READY_WHEN[self.seed % len(READY_WHEN)],
            "analysis": {
                "metrics": metrics,
                "interval": random.choice(("10s", "20s")),
                "minSamples": random.choice((1, 20)),
                "failureLimit": random.choice((0, 0, 1)),
                "maxWait": "30m",
            },
            "progressDeadline": "15m",
            "scaleDownDelay": f"{self.drain}s",
        }

    def _colours(self) -> dict[str, Any]:
        """Choose a blue-green strategy."""
        random = self.random
        return {
            "blueGreen": {
                "beforeSwitch": {
                    "pause": f"{random.choice((0, 15, 30))}s",
                    "approval": random.random() < 0.2,
                },
                "afterSwitch": {"pause": f"{random.choice((0, 30))}s"},
                "keepFor": f"{random.choice((0, 60, 200))}s",
            }
        }

    def _ab_test(self) -> dict[str, Any]:
        """Choose an A/B test, whose goal is the error rate; what else is checked guards it."""
        random = self.random
        ways = (
            {"sticky": {"header": "x-user-id"}, "share": random.choice((10, 50, 90))},
            {"sticky": {"cookie": "uid"}},
            {"header": {"name": "x-group", "value": "b"}},
        )
        return {
            "abTest": {
                **random.choice(ways),
                "goals": ["error-rate"],
                "minDuration": f"{random.choice((0, 60))}s",
                "maxDuration": f"{random.choice((120, 400))}s",
                "onLoser": random.choice(("Hold", "Abort")),
            }
        }

    def _model(self) -> Model:
        if self.random.random() < 0.1 and len(self.rollout["analysis"]["metrics"]) == 3:
            return REFUSING
        return self.random.choice((GOOD, GOOD, GOOD, BAD, BAD, SLOW, NEVER_READY))

    def manifest(self, version: str, **changes: Any) -> Manifest:
        """Build the spec of a version."""
        parts = {"rollout": self.rollout, "autoscaling": self.autoscaling, **changes}
        if not self.gateway:
            parts["traffic"] = {}
        return model_deployment(version=version, **parts)

    def put(self, model: Model, **changes: Any) -> str:
        """Apply a version and make it behave."""
        revision = self.world.put(self.manifest(model.version, **changes))
        self.world.metrics.behaviours[revision] = model.behaviour
        self.world.cluster.controllers.revisions[revision] = model.pods
        return revision

    # --- faults

    def _fault(self, call: Call, when: str) -> None:
        if self.world.clock.now() >= self.faults_end:
            return
        random, rates = self.random, self.rates
        if random.random() < rates.crash / 2:
            self.lost_events = self.lost_events or self.world.monitor.events_behind() > 1
            raise Crash
        if call.method == "query":
            if random.random() < rates.metrics:
                msg = "connection refused"
                raise MetricSourceError(msg)
            return
        error: Exception | None = None
        if when == "after":
            if random.random() < rates.after:
                error = TransientClusterError(f"{call.method} {call.kind}: the answer was lost")
        elif call.method == "apply_status" and random.random() < rates.conflict:
            error = ConflictError("409 the object has been modified")
        elif random.random() < rates.before:
            error = TransientClusterError(f"{call.method} {call.kind}: 503", retry_after=1)
        elif call.method in WRITES and random.random() < rates.forbidden / 5:
            error = ForbiddenError(f"{call.method} {call.kind}: 403")
        if error is not None:
            raise error

    def _troubles(self) -> None:
        """Plan what happens to the world around the operator."""
        world, random = self.world, self.random
        controllers, metrics, clock = world.cluster.controllers, world.metrics, world.operator_clock
        every: list[tuple[str, Callable[[], None], Callable[[], None]]] = [
            ("prometheus is down", lambda: _set(metrics, outage="timed out"), lambda: _set(metrics, outage=None)),
            ("prometheus has no series", lambda: _set(metrics, gap=True), lambda: _set(metrics, gap=False)),
            (
                "prometheus is behind",
                lambda: _set(metrics, lag=timedelta(seconds=40)),
                lambda: _set(metrics, lag=timedelta(0)),
            ),
            (
                "the gateway refuses",
                lambda: _set(controllers, route_refusal="no such listener"),
                lambda: _set(controllers, route_refusal=None),
            ),
            (
                "the clock jumps",
                lambda: _set(clock, skew=timedelta(seconds=random.choice((-30, -5, 5, 30)))),
                lambda: _set(clock, skew=timedelta(0)),
            ),
            (
                "a quota refuses new objects",
                lambda: _set(world.cluster, refuse=_quota(random.choice(self.quotas))),
                lambda: _set(world.cluster, refuse=lambda _manifest: None),
            ),
            (
                "the memory of the children is behind",
                lambda: _set(world, behind=lambda: random.random() < 0.8),
                world.catch_up,
            ),
            ("the object is read and written by others", self._touch, self._touch),
            ("somebody edits the route", self._damage_route, lambda: None),
        ]  # fmt: skip
        if self.pods_fail:
            every += [
                (
                    "the nodes are full",
                    lambda: _set(controllers, capacity=random.randint(1, 5)),
                    lambda: _set(controllers, capacity=None),
                ),
                ("a pod dies", self._kill_pod, self._kill_pod),
                ("a node dies", self._kill_pods, lambda: None),
            ]
        world.monitor.drain = timedelta(seconds=self.drain)
        chosen = random.sample(every, random.randint(0, 4))
        if any("is behind" in what and "memory" in what for what, _, _ in chosen):
            # A look that is behind cannot see an edit of that moment; nor could one that came a moment earlier.
            chosen = [entry for entry in chosen if entry[0] != "somebody edits the route"]
        for what, begin, end in chosen:
            if what == "the clock jumps":
                self.world.monitor.drain = None
            start = random.uniform(0, FAULTS_LAST - 100)
            world.at(start, what, begin)
            world.at(start + random.uniform(5, 100), f"no more: {what}", end)

    def _touch(self) -> None:
        self.world.cluster.annotate(REF, "example.com/touched", str(self.random.random()))

    def _kill_pod(self) -> None:
        pods = self.world.cluster.all("Pod")
        if pods:
            name = self.random.choice(pods)["metadata"]["name"]
            self.world.cluster.remove("Pod", REF.namespace, name)

    def _kill_pods(self) -> None:
        """Kill all pods of one revision, or of the router."""
        pods = self.world.cluster.all("Pod")
        if not pods:
            return
        revision = self.random.choice(pods)["metadata"]["labels"].get(naming.REVISION_LABEL)
        for pod in pods:
            if pod["metadata"]["labels"].get(naming.REVISION_LABEL) == revision:
                self.world.cluster.remove("Pod", REF.namespace, pod["metadata"]["name"])

    def _damage_route(self) -> None:
        service = self.world.cluster.live("Service", REF.namespace, REF.name)
        if service is not None:
            wide = {**service["spec"], "selector": naming.any_revision_selector(REF)}
            self.world.cluster.store({**service, "spec": wide})
        live = self.world.cluster.live("HTTPRoute", REF.namespace, REF.name)
        if live is None:
            return
        rules = [
            {**rule, "backendRefs": [{**backend, "weight": 50} for backend in rule["backendRefs"]]}
            for rule in live["spec"]["rules"]
        ]
        self.world.cluster.store({**live, "spec": {**live["spec"], "rules": rules}})

    # --- the user in the middle

    def _edits(self) -> tuple[Model, list[tuple[str, Callable[[], Any]]]]:
        """Choose what the user does; gives the last version, too."""
        random, model = self.random, self.model
        third = Model(version="3", good=True)
        choice = (2, 20, 40, 60, 100) if self.gateway else RATIOS
        weights = sorted(random.sample(choice, random.randint(1, 3)))
        steps = {"steps": [{"weight": w, "pause": "10s"} for w in weights]}
        replanned = {**self.rollout, "canary": steps}
        replanned.pop("blueGreen", None)
        replanned.pop("abTest", None)
        replanned.pop("shadow", None)
        broken = {"serving": {"resources": {"requests": {"cpu": "4"}, "limits": {"cpu": "1"}}}}

        def replan() -> None:
            self.rollout = replanned
            self.put(model)

        def resize() -> None:
            self.autoscaling = {"minReplicas": random.randint(1, 5), "maxReplicas": 6}
            self.put(model)

        def retry() -> None:
            self._ask("retry")

        match random.randint(0, 13):
            case 0:
                return third, [("a third version", lambda: self.put(third))]
            case 1:
                first = Model(version="1", good=True)
                return first, [("a revert", lambda: self.put(first))]
            case 2:
                return model, [("other steps", replan)]
            case 3:
                return model, [("another size", resize)]
            case 4:
                return model, [
                    ("an invalid spec", lambda: self.put(replace(model, version="4"), **broken)),
                    ("a mended spec", lambda: self.put(model)),
                ]
            case 5:
                return model, [("a retry", retry), ("another retry", retry)]
            case 6 | 7 | 8 | 9:
                return model, self._commands()
            case _:
                return model, []

    def _commands(self) -> list[tuple[str, Callable[[], Any]]]:
        """Choose what people ask for on the way; none of it changes the end, but some of it hastens it."""
        verbs = [("pause", "resume"), ("skip",), ("skip", "skip"), ("abort", "retry")]
        if self.model.good:
            verbs += [("promote",), ("pause", "promote")]
        chosen = self.random.choice(verbs)
        return [(f"canarium {verb}", partial(self._ask, verb)) for verb in chosen]

    def _ask(self, verb: str) -> None:
        self.world.cluster.annotate(
            REF, naming.command_annotation(verb), f"alice {self.random.random()}"
        )

    def _approve(self) -> None:
        """Look every now and then whether an approval is asked for, and give it."""
        rollout = self.world.status.get("rollout") or {}
        if rollout.get("blockedOn") == Reason.AWAITING_APPROVAL:
            self._ask("approve")
        self.world.at(self.random.uniform(10, 60), "an approver looks", self._approve)

    def _decide(self) -> None:
        """Look every now and then whether an A/B test waits for a decision, and decide as is best."""
        rollout = self.world.status.get("rollout") or {}
        if rollout.get("blockedOn") == Reason.AWAITING_DECISION:
            tested = self.world.status["canary"]["modelVersion"]
            good = self.model.good or tested != self.model.version
            self._ask(self.random.choice(("skip", "promote")) if good else "abort")
        self.world.at(self.random.uniform(10, 60), "an owner looks", self._decide)

    # --- from the beginning to the end

    async def play(self) -> None:
        """Bring the first version up in peace, then the second in trouble, and see what comes of it."""
        world = self.world
        self.first = self.put(Model(version="1", good=True))
        await world.run(120, lambda: world.phase == "Promoted")
        assert world.phase == "Promoted", world.status.get("message")
        world.metrics.lost = 0.0
        self.faults_end = world.clock.now() + timedelta(seconds=FAULTS_LAST)
        second = self.put(self.model)
        last, edits = self._edits()
        for number, (what, edit) in enumerate(edits):
            world.at(self.random.uniform(60 * number, 60 * number + 60), f"user: {what}", edit)
        self._troubles()
        if '"approval": true' in json.dumps(self.rollout):
            self._approve()
        if "abTest" in self.rollout:
            self._decide()
        await world.run(FAULTS_LAST + LONGEST_BACKOFF + 1)
        await world.run(PATIENCE, lambda: self._is_over(last))
        await world.run(400)
        self._verify(second, last)

    def _is_over(self, last: Model) -> bool:
        return self.world.phase == ("Promoted" if last.good else "Aborted")

    def _verify(self, second: str, last: Model) -> None:
        world, monitor = self.world, self.world.monitor
        status = world.status
        wanted = world.put(self.manifest(last.version))
        assert self._is_over(last), f"{world.phase}: {status['message']}"
        if not self.model.good:
            assert second not in monitor.promoted
        failed = [entry["revision"] for entry in status.get("failedRevisions", [])]
        ready = {c["type"]: c["status"] for c in status["conditions"]}
        if last.good:
            assert world.weights == {wanted: 100}
            assert wanted not in failed
            assert ready["Ready"] == "True", status["conditions"]
        else:
            assert world.weights == {self.first: 100}
            assert wanted in failed
            assert ready["Stalled"] == "True"
            assert ready["Available"] == "True"
        revisions = {
            d["metadata"]["labels"].get(naming.REVISION_LABEL, "the router")
            for d in world.cluster.each("Deployment")
        }
        assert revisions == set(world.weights), f"left over: {revisions - set(world.weights)}"
        assert "retiring" not in status or status["retiring"] == []
        if not self.pods_fail:
            assert world.metrics.lost == 0, f"{world.metrics.lost:.0f} requests were lost"
        monitor.finished(
            events_complete=not self.lost_events, events_in_order=len(world.operators) == 1
        )


def _set(target: object, **values: Any) -> None:
    for name, value in values.items():
        setattr(target, name, value)


def _quota(kind: str) -> Callable[[Manifest], str | None]:
    return lambda manifest: "exceeded quota" if manifest["kind"] == kind else None
