"""A small world in virtual time: the real reconciler on the fake cluster, with everything going wrong from a seed.

`World.run` plays passes as `worker.Workers` would: at once when woken, later when asked for later, with a pause
after an error. Between passes the cluster's controllers and the traffic move. Time passes only here, so a minute costs
no more than what happens in it.

Operators die with `Crash`, a BaseException that nothing in the product catches: raised from inside a call of a port,
before or after its effect, and what comes next is a `Reconciler` without a memory.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from canarium_api import KIND
from canarium_operator.copies import MemoryCopies
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.queries import Query, Vector
from canarium_operator.core.validation import parse_spec
from canarium_operator.errors import ConflictError, OperatorError
from canarium_operator.reconciler import Reconciler
from canarium_operator.testing.clock import FakeClock
from canarium_operator.testing.cluster import Call, FakeCluster
from canarium_operator.testing.metrics import SimulatedTraffic

from .invariants import Monitor

REF = ObjectRef(namespace="ml", name="fraud")
IMAGE = "runtime:1"
TICK = timedelta(seconds=5)
"""How often the cluster moves while the operator sleeps."""
PASS_TIME = timedelta(milliseconds=100)
"""What one pass takes."""
MAX_PASSES_AT_ONCE = 60
"""Passes without a pause between them; more is a spinning operator."""


class Crash(BaseException):
    """The operator's process ends here."""


class OperatorClock:
    """The clock of the operator's machine, which may be wrong."""

    def __init__(self, truth: FakeClock) -> None:
        self.truth = truth
        self.skew = timedelta(0)

    def now(self) -> datetime:
        """Give what the machine believes."""
        return self.truth.now() + self.skew


class Interleaved(FakeCluster):
    """A cluster whose calls take as long as `delays` says, so that two operators meet in every order."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: Callable[[], int] = lambda: 0

    async def _enter(self, call: Call) -> None:
        for _ in range(self.delays()):
            await asyncio.sleep(0)
        await super()._enter(call)


class Prometheus(SimulatedTraffic):
    """Prometheus with calls that can be interrupted and answers that can be missing or late."""

    def __init__(self, cluster: FakeCluster) -> None:
        super().__init__(cluster)
        self.before: Callable[[], None] = lambda: None
        """Called before each query; may raise."""
        self.gap = False
        """No series at all."""
        self.lag = timedelta(0)
        """How far its newest samples are behind."""

    async def query(self, query: Query) -> Vector:
        """Evaluate a query."""
        self.before()
        if self.gap:
            return ()
        return await super().query(replace(query, at=query.at - self.lag))


@dataclass
class Operator:
    """One process: a reconciler that forgets everything when it dies."""

    name: str
    reconciler: Reconciler
    due: datetime
    unheeding_until: datetime
    backoff: float = 0.5
    woken: bool = False


@dataclass
class World:
    """The cluster, Prometheus, the clocks and the operators."""

    operators_wanted: int = 1
    restart_after: Callable[[], timedelta] = lambda: timedelta(0)
    """How long a dead operator stays away."""
    exact_routes: bool = True
    """Hold the route to the status at every write; two operators that interleave are only held to it in the end."""
    memory_namespace: str = ""
    """Where copies of memories are kept; empty: nowhere."""
    clock: FakeClock = field(default_factory=FakeClock)
    cluster: Interleaved = field(default_factory=Interleaved)
    trace: list[str] = field(default_factory=list)
    """What happened, for the report of a failure."""
    calls: int = 0
    """Calls of ports so far."""
    crashes: int = 0
    passes: int = 0

    def __post_init__(self) -> None:
        self.metrics = Prometheus(self.cluster)
        self.operator_clock = OperatorClock(self.clock)
        self.fault: Callable[[Call, str], None] = lambda _call, _when: None
        """Called before and after each call of a port ("before", "after"); raises what shall go wrong."""
        self.script: list[tuple[datetime, str, Callable[[], None]]] = []
        """What happens at which time."""
        self._faulted = False
        """Something went wrong in the present pass."""
        self.monitor = Monitor(self.cluster, REF, self.clock.now, exact_routes=self.exact_routes)
        self.cluster.before = self._before
        self.cluster.after = self._after
        self.metrics.before = lambda: self._before(Call("query", "Query", ""))
        self.cluster.on_change = self._wake
        self.cluster.behind = self._look_behind
        self.behind: Callable[[], bool] = lambda: False
        """Whether this look of the operator at the children is behind."""
        self.operators = [self._boot(f"operator-{n}") for n in range(self.operators_wanted)]

    # --- the user's side

    def put(self, manifest: Manifest) -> str:
        """Apply a ModelDeployment; gives the revision that it names."""
        body = self.cluster.put(manifest)
        self.note(f"user applies generation {body['metadata']['generation']}")
        spec = parse_spec(body["spec"])
        return "" if isinstance(spec, list) else revision_of(spec, IMAGE).name

    def at(self, seconds: float, what: str, action: Callable[[], Any]) -> None:
        """Have something happen, so many seconds from now."""
        when = self.clock.now() + timedelta(seconds=seconds)
        self.script.append((when, what, action))
        self.script.sort(key=lambda entry: entry[0])

    @property
    def body(self) -> Manifest:
        """The object as it is now; not to be changed."""
        found = self.cluster.live(KIND, REF.namespace, REF.name)
        assert found is not None
        return found

    @property
    def status(self) -> dict[str, Any]:
        """Its status as it is stored."""
        status: dict[str, Any] = self.body["status"]
        return status

    @property
    def phase(self) -> str:
        """Its phase, as of its present generation."""
        body = self.body
        current = body["status"]["observedGeneration"] == body["metadata"]["generation"]
        phase: str = body["status"].get("phase", "Pending") if current else "Pending"
        return phase

    @property
    def weights(self) -> dict[str, int]:
        """The route's weights, by revision."""
        return self.monitor.route_weights()

    # --- time

    async def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Play for so long, or until something is the case."""
        end = self.clock.now() + timedelta(seconds=seconds)
        at_once = 0
        while self.clock.now() < end and not until():
            self._tick()
            now = self.clock.now()
            due = [o for o in self.operators if o.due <= now]
            if due:
                await asyncio.gather(*(self._guarded(operator) for operator in due))
                at_once += 1
                assert at_once < MAX_PASSES_AT_ONCE, "the operator spins"
                self.clock.advance(PASS_TIME)
                continue
            at_once = 0
            moments = [o.due for o in self.operators] + [when for when, _, _ in self.script]
            self.clock.advance(min(TICK, max(min(moments) - now, timedelta(milliseconds=1))))

    async def settle(self, seconds: float = 120) -> None:
        """Play on for a while, so that what drains has drained."""
        await self.run(seconds)

    def _tick(self) -> None:
        now = self.clock.now()
        while self.script and self.script[0][0] <= now:
            _, what, action = self.script.pop(0)
            self.note(what)
            action()
        self.cluster.tick(now)
        self.metrics.tick(now)

    # --- operators

    def _look_behind(self) -> bool:
        """Have a pass judged only by its writes where it could not see the present."""
        behind = self.behind()
        self._faulted = self._faulted or behind
        return behind

    def catch_up(self) -> None:
        """End the lag of the memory of the children: its watches tell what has changed meanwhile."""
        self.behind = lambda: False
        self._wake(REF)

    def _boot(self, name: str) -> Operator:
        now = self.clock.now()
        self.cluster.forget_seen()
        copies = MemoryCopies(self.cluster, self.operator_clock, self.memory_namespace)
        reconciler = Reconciler(
            self.cluster, self.metrics, self.operator_clock, runtime_image=IMAGE, copies=copies
        )
        return Operator(name=name, reconciler=reconciler, due=now, unheeding_until=now)

    def _wake(self, ref: ObjectRef) -> None:
        if ref.name != REF.name:
            return
        for operator in self.operators:
            operator.woken = True
            operator.due = min(operator.due, max(self.clock.now(), operator.unheeding_until))

    async def _guarded(self, operator: Operator) -> None:
        """Do one pass as a worker does."""
        operator.woken = False
        self._faulted = False
        now = self.clock.now()
        try:
            after = await operator.reconciler.reconcile(REF)
        except ConflictError:
            self._pause(operator, 0.5, 0.5)
        except OperatorError as error:
            self.note(f"{operator.name}: {error}")
            self._pause(operator, operator.backoff, min(operator.backoff, 5.0))
            operator.backoff = min(operator.backoff * 2, 60.0)
        except Crash:
            self.crashes += 1
            away = self.restart_after()
            self.note(
                f"{operator.name} dies at call {self.calls}, back in {away.total_seconds():g} s"
            )
            reborn = self._boot(operator.name)
            reborn.due = reborn.unheeding_until = now + away
            self.operators[self.operators.index(operator)] = reborn
        else:
            operator.backoff = 0.5
            operator.due = now + (after if after is not None else timedelta(days=1))
            operator.unheeding_until = now
            self.passes += 1
            if len(self.operators) == 1 and not self._faulted:
                self.monitor.pass_ended(settled=after != timedelta(0))
            if operator.woken:
                operator.due = now

    def _pause(self, operator: Operator, seconds: float, unheeding: float) -> None:
        now = self.clock.now()
        operator.due = now + timedelta(seconds=seconds)
        operator.unheeding_until = now + timedelta(seconds=unheeding)

    # --- calls

    def _before(self, call: Call) -> None:
        self.calls += 1
        self._meet(call, "before")

    def _meet(self, call: Call, when: str) -> None:
        self._faulted, unharmed = True, self._faulted
        self.fault(call, when)
        self._faulted = unharmed

    def _after(self, call: Call) -> None:
        if call.method in ("apply_status", "apply", "delete", "record_event", "scale"):
            self.monitor.written(call)
        self._meet(call, "after")

    def note(self, what: str) -> None:
        """Remember what happened."""
        self.trace.append(f"{self.clock.now():%H:%M:%S.%f}"[:-4] + f"  {what}")

    @contextmanager
    def explained(self, how_to_rerun: str) -> Iterator[None]:
        """Tell the story where something is wrong."""
        try:
            yield
        except (AssertionError, Exception) as error:
            story = "\n".join([*self.trace[-40:], *self.monitor.story[-60:]])
            msg = f"{error}\n\n{how_to_rerun}\n\n{story}"
            raise AssertionError(msg) from error
