"""One pass over one ModelDeployment: observe, measure, decide, record, act, announce. No decision is taken here.

The status is written before anything is done for it, and everything that is done follows from the status and
is idempotent. The operator may therefore die between any two lines: the next pass does what is left.
"""

import asyncio
import logging
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from canarium_api import API_VERSION, KIND
from canarium_api.conditions import ConditionType, Reason
from canarium_api.status import ModelDeploymentStatus, Transition
from canarium_operator.copies import MemoryCopies
from canarium_operator.core import manifests
from canarium_operator.core.assembling import assemble
from canarium_operator.core.deciding import decide
from canarium_operator.core.diff import Apply, Change, Delete, Scale, diff
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.notifications import messages
from canarium_operator.core.outcomes.texts import announcements
from canarium_operator.core.plan import Plan, make_plan
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.resources.front import is_front
from canarium_operator.core.rollout.answers import GateAnswer
from canarium_operator.core.rollout.checks import due_queries
from canarium_operator.core.rollout.contract import Probe, due_probes
from canarium_operator.core.rollout.inputs import (
    Decision,
    ProbeFailure,
    RolloutInput,
    SignatureAnswer,
)
from canarium_operator.core.rollout.queries import Query, QueryFailure, Reading
from canarium_operator.core.rollout.state import WITHOUT_EVENT
from canarium_operator.core.rollout.webhooks import due_gates, question
from canarium_operator.errors import (
    ClusterError,
    ForbiddenError,
    MetricSourceError,
    ProbeError,
    RejectedError,
)
from canarium_operator.messenger import Messenger
from canarium_operator.ports import Clock, Cluster, EventRecord, Manifest, MetricSource
from canarium_operator.replay.decisions import DecisionLog, entry_of
from canarium_operator.scribe import Scribe
from canarium_operator.surroundings import FRESH_FOR, Surroundings, look_around

log = logging.getLogger(__name__)

REJECTION_RETRY: Final = timedelta(seconds=60)
"""An object that the API server refused is tried again this often: a quota may have been raised meanwhile."""
ANNOUNCE_RETRY: Final = timedelta(seconds=10)
"""An Event that could not be posted is tried again after this."""
FIRST_REPAIR_WITHIN: Final = timedelta(minutes=5)
"""After a start, all children are applied anew within this time, since our stamps do not tell of what others changed
meanwhile. All at once, those of a thousand objects would hold up the rollouts that are under way."""
NEWS_INTERVAL: Final = timedelta(seconds=5)
"""Counts and messages that change while pods come up are written this often at most; transitions are never put off."""
MAX_UNANNOUNCED: Final = 20
MAX_TOLD_OUTCOMES: Final = 40
MAX_QUERIES_AT_ONCE: Final = 8

Report = Callable[[ObjectRef, ModelDeploymentStatus | None], None]
"""Told of each status after it is written; None: the object is gone."""


@dataclass(frozen=True, kw_only=True)
class _Memory:
    """What this process knows of an object and may lose: when to repair, what was refused, what is still to be told."""

    uid: str = ""
    """Of the object that this is about: another one of the same name starts afresh."""
    applied_all_at: datetime | None = None
    rejection: tuple[int, str] | None = None
    """(generation, what the API server said)."""
    heard_epoch: int = -1
    """Latest transition that was or will be announced."""
    unannounced: tuple[Transition, ...] = ()
    """Oldest first; at most MAX_UNANNOUNCED, the oldest are given up."""
    surroundings: Surroundings = field(default_factory=Surroundings)
    wrote_at: datetime | None = None
    """When the status was written last."""
    unposted: bool = False
    """A notification could not be posted yet."""
    told_outcomes: tuple[tuple[int, str], ...] = ()
    """(epoch, reason) of outcomes in git that have been announced; the oldest are forgotten."""


class Reconciler:
    """The shell around the pure core."""

    def __init__(
        self,
        cluster: Cluster,
        metrics: MetricSource,
        clock: Clock,
        *,
        runtime_image: str,
        resync: timedelta = timedelta(minutes=5),
        report: Report = lambda _ref, _status: None,
        messenger: Messenger | None = None,
        scribe: Scribe | None = None,
        decisions: DecisionLog | None = None,
        copies: MemoryCopies | None = None,
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock
        self._runtime_image = runtime_image
        self._resync = resync
        self._report = report
        self._messenger = messenger
        self._scribe = scribe
        self._decisions = decisions
        self._copies = copies or MemoryCopies(cluster, clock, "")
        self._memories: dict[tuple[str, str], _Memory] = {}

    async def reconcile(self, ref: ObjectRef) -> timedelta | None:
        """Do one pass.

        Returns:
            How long until the next pass is due; None when the object is gone or being deleted.

        Raises:
            ClusterError: the pass could not be finished; nothing is lost, the next one goes on.
        """
        key = (ref.namespace, ref.name)
        body = await self._cluster.get(ref)
        if body is None or body["metadata"].get("deletionTimestamp"):
            # Its children are garbage-collected through their owner references.
            self._memories.pop(key, None)
            if self._scribe is not None:
                self._scribe.forget(ref)
            self._copies.forget(ref)
            self._report(ref, None)
            return None
        ref = replace(ref, uid=body["metadata"]["uid"])
        memory = self._memories.get(key, _Memory())
        before = ModelDeploymentStatus.from_manifest(body.get("status") or {})
        if memory.uid != ref.uid:
            memory = _Memory(
                uid=ref.uid,
                rejection=_recorded_rejection(before),
                applied_all_at=self._presumed_repair(ref, before),
            )
        # Before anything new is decided: whoever wrote the latest transition may have died before it was announced.
        self._memories[key] = memory = await self._announce(ref, _hear(ref, before, memory))
        children = await self._copies.recall(ref, await self._cluster.children(ref))
        around = await look_around(
            self._cluster, ref, body.get("spec"), memory.surroundings, self._clock.now()
        )
        self._memories[key] = memory = replace(memory, surroundings=around)
        given = assemble(
            ref,
            body,
            children,
            now=self._clock.now(),
            runtime_image=self._runtime_image,
            templates=around.templates,
            rejection=memory.rejection,
            gateway_class=around.gateway_class,
        )
        if isinstance(given, ModelDeploymentStatus):
            await self._record(ref, body, given)
            memory = await self._announce(ref, _hear(ref, given, memory))
            self._memories[key] = memory
            return ANNOUNCE_RETRY if memory.unannounced else self._resync
        given = replace(
            given,
            readings=await self._measure(due_queries(given)),
            gate_answers=await self._ask(given),
            signatures=await self._probe(given),
            outcomes=self._scribe.news(ref) if self._scribe is not None else None,
        )
        decision, status = decide(given)
        if self._decisions is not None:
            entry = entry_of(
                given,
                body,
                children,
                runtime_image=self._runtime_image,
                templates=around.templates,
                rejection=memory.rejection,
                decided=status,
            )
            self._decisions.take(entry)
        for note in given.observed.notes:
            log.warning("%s: %s", ref, note)
        full = self._must_apply_all(memory, given.now)
        plan = make_plan(ref, given.spec, status, given.observed, given.wanted)
        desired = desired_children(plan)
        changes = diff(plan, desired, children, full=full)
        put_off = _put_off(given, status, memory)
        if put_off > timedelta(0) and not changes:
            return min(put_off, decision.requeue_after)
        wrote = await self._record(ref, body, status)
        if wrote:
            memory = replace(memory, wrote_at=given.now)
        self._memories[key] = memory = _hear(ref, status, memory)
        if self._scribe is not None:
            # Here and not before: only what is in the status may be done.
            self._scribe.take(ref, given.spec.gitops, status)
        if changes and not wrote:
            # Nothing has shown yet that what was read is the latest: somebody else may have decided meanwhile.
            current = await self._cluster.get(ref, fresh=True)
            if current is None or _version(current) != _version(body):
                return timedelta(0)
        if any(isinstance(change, Delete) for change in changes):
            # What gets traffic is never deleted, and what was read may be behind: look once more, at the real thing.
            children = await self._with_live_routing(ref, plan, children)
            changes = diff(plan, desired, children, full=full)
        rejection = await self._act(ref, changes)
        if full:
            memory = replace(memory, applied_all_at=given.now)
        if rejection is not None:
            memory = replace(memory, rejection=(given.generation, rejection))
        else:
            memory = replace(memory, rejection=None)
        self._memories[key] = memory = await self._announce(ref, memory)
        memory = replace(memory, unposted=not await self._tell(given, status))
        self._memories[key] = memory = await self._announce_outcomes(given, status, memory)
        self._memories[key] = memory
        if (given.rejection is None) != (rejection is None):
            return timedelta(0)  # the next pass puts it into the status
        return self._until_next(decision, memory)

    async def _with_live_routing(
        self, ref: ObjectRef, plan: Plan, children: Sequence[Manifest]
    ) -> Sequence[Manifest]:
        """Give the children with those that decide who gets requests as they are at this moment."""
        deciding = [child for child in children if child["kind"] == "HTTPRoute" or is_front(child)]
        kinds = {child["kind"] for child in deciding}
        meta = {"namespace": ref.namespace, "name": ref.name}
        if plan.spec.traffic.gateway is not None and "HTTPRoute" not in kinds:
            deciding.append({"kind": "HTTPRoute", "metadata": meta})
        live = await asyncio.gather(*map(self._cluster.reread, deciding))
        keys = set(map(manifests.key, deciding))
        others = [child for child in children if manifests.key(child) not in keys]
        return [*others, *(child for child in live if child is not None)]

    async def _measure(self, queries: frozenset[Query]) -> dict[Query, Reading]:
        """Ask Prometheus; a failure is an answer too."""
        slots = asyncio.Semaphore(MAX_QUERIES_AT_ONCE)

        async def ask(query: Query) -> tuple[Query, Reading]:
            async with slots:
                try:
                    return query, await self._metrics.query(query)
                except MetricSourceError as error:
                    return query, QueryFailure(message=str(error))

        ordered = sorted(queries, key=lambda query: (query.promql, query.at, query.part))
        return dict(await asyncio.gather(*(ask(query) for query in ordered)))

    async def _record(self, ref: ObjectRef, body: Manifest, status: ModelDeploymentStatus) -> bool:
        """Write the status, if it changed, on condition that nobody wrote since it was read; tells whether it did."""
        before = ModelDeploymentStatus.from_manifest(body.get("status") or {})
        if status != before:
            await self._cluster.apply_status(
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "metadata": {
                        "name": ref.name,
                        "namespace": ref.namespace,
                        "resourceVersion": body["metadata"]["resourceVersion"],
                    },
                    "status": status.to_manifest(),
                }
            )
        self._report(ref, status)
        return status != before

    async def _announce(self, ref: ObjectRef, memory: _Memory) -> _Memory:
        """Post the Events that are still to be told, each once: its name carries the epoch.

        What cannot be posted waits for a later pass: Events must not keep traffic from moving.
        """
        for transition in memory.unannounced:
            event = EventRecord(
                epoch=transition.epoch,
                reason=transition.reason,
                message=transition.message,
                warning=transition.warning,
                at=transition.at,
            )
            try:
                await self._cluster.record_event(ref, event)
            except ClusterError as error:
                log.warning("%s: %s not announced yet: %s", ref, transition.reason, error)
                break
            memory = replace(memory, unannounced=memory.unannounced[1:])
        return memory

    async def _announce_outcomes(
        self, given: RolloutInput, status: ModelDeploymentStatus, memory: _Memory
    ) -> _Memory:
        """Post the Events about outcomes in git, each once: its name carries epoch and reason."""
        for epoch, reason, message, warning, at in announcements(status, given.now):
            if (epoch, reason) in memory.told_outcomes:
                continue
            event = EventRecord(
                epoch=epoch, reason=reason, message=message, warning=warning, at=at, about=reason
            )
            try:
                await self._cluster.record_event(given.ref, event)
            except ClusterError as error:
                log.warning("%s: %s not announced yet: %s", given.ref, reason, error)
                return replace(memory, unposted=True)
            told = (*memory.told_outcomes, (epoch, reason))[-MAX_TOLD_OUTCOMES:]
            memory = replace(memory, told_outcomes=told)
        return memory

    async def _act(self, ref: ObjectRef, changes: Iterable[Change]) -> str | None:
        """Carry the changes out in their order: what is new first, then the route, deletions; at last the sizes.

        A Deployment is not resized while its HPA was refused: one with older bounds would undo it, again and again.

        What fails for one object does not keep the others from being carried out: traffic must come back from a
        bad canary even when a quota or a broken webhook is against something else.

        Returns:
            What the API server said when it refused something, or None.

        Raises:
            ClusterError: something failed that may work the next time, and nothing was refused.
        """
        refusal: str | None = None
        failure: ClusterError | None = None
        unbounded: set[str] = set()
        for change in sorted(changes, key=lambda change: isinstance(change, Scale)):
            try:
                match change:
                    case Apply(manifest=manifest):
                        await self._cluster.apply(manifest)
                        await self._copies.keep(ref, manifest)
                    case Scale(manifest=manifest, replicas=replicas):
                        if manifest["metadata"]["name"] not in unbounded:
                            await self._cluster.scale(manifest, replicas)
                    case Delete(manifest=manifest):
                        await self._cluster.delete(manifest)
            except (RejectedError, ForbiddenError) as error:
                refusal = refusal or str(error)
                if change.manifest["kind"] == "HorizontalPodAutoscaler":
                    unbounded.add(change.manifest["metadata"]["name"])
            except ClusterError as error:
                failure = failure or error
        if refusal is None and failure is not None:
            raise failure
        return refusal

    async def _probe(self, given: RolloutInput) -> dict[str, SignatureAnswer]:
        """Ask pods for the inputs and outputs of their models, once for each revision; silence is an answer too."""

        async def ask(probe: Probe) -> tuple[str, SignatureAnswer]:
            try:
                told = await self._cluster.signature(
                    given.ref, probe.revision, probe.model, tls=probe.tls
                )
            except (ClusterError, ProbeError) as error:
                return probe.revision, ProbeFailure(message=str(error))
            return probe.revision, told

        return dict(await asyncio.gather(*map(ask, due_probes(given))))

    async def _ask(self, given: RolloutInput) -> dict[str, GateAnswer]:
        """Ask the outside systems that are due."""
        gates = due_gates(given)
        if not gates or self._messenger is None:
            return {}
        return await self._messenger.ask(given.ref, gates, question(given))

    async def _tell(self, given: RolloutInput, status: ModelDeploymentStatus) -> bool:
        """Post notifications of the latest transition; gives whether all are posted."""
        if self._messenger is None or not given.spec.rollout.notifications:
            return True
        news = messages(given.ref, given.spec.rollout, status, given.now)
        return await self._messenger.tell(given.ref, news)

    def _must_apply_all(self, memory: _Memory, now: datetime) -> bool:
        """Tell whether a pass repairs everything: at the resync, and while something is refused, since what is
        current by its annotation may be what was refused.
        """
        if memory.applied_all_at is None or memory.rejection is not None:
            return True
        return now >= memory.applied_all_at + self._resync

    def _presumed_repair(self, ref: ObjectRef, status: ModelDeploymentStatus) -> datetime | None:
        """Date the latest repair of an object that an operator has seen before so that the next is due soon, not for
        all objects at once; None: of a new one, everything is applied.
        """
        if status.observed_generation < 0:
            return None
        share = zlib.crc32(ref.uid.encode()) / 2**32
        within = min(FIRST_REPAIR_WITHIN, self._resync)
        return self._clock.now() - self._resync + share * within

    def _until_next(self, decision: Decision, memory: _Memory) -> timedelta:
        assert memory.applied_all_at is not None  # noqa: S101 - set by the first pass
        waits = [
            decision.requeue_after,
            memory.applied_all_at + self._resync - self._clock.now(),
        ]
        if memory.rejection is not None:
            waits.append(REJECTION_RETRY)
        if memory.unannounced or memory.unposted:
            waits.append(ANNOUNCE_RETRY)
        if memory.surroundings.lack_a_template:
            waits.append(FRESH_FOR)
        return max(timedelta(0), min(waits))


def _put_off(given: RolloutInput, status: ModelDeploymentStatus, memory: _Memory) -> timedelta:
    """Tell for how long a status may wait that says nothing new but counts and words; nothing is done meanwhile."""
    before = given.status
    if memory.wrote_at is None or given.now < memory.wrote_at:
        return timedelta(0)
    if status == before or _facts(status) != _facts(before):
        return timedelta(0)
    if given.readings or given.signatures or given.gate_answers or given.outcomes:
        return timedelta(0)  # what was learned is not asked for again
    return memory.wrote_at + NEWS_INTERVAL - given.now


def _facts(status: ModelDeploymentStatus) -> tuple[object, ...]:
    conditions = frozenset((c.type, c.status, c.observed_generation) for c in status.conditions)
    return status.epoch, status.phase, status.observed_generation, conditions


def _version(body: Manifest) -> tuple[str, str]:
    meta = body["metadata"]
    return meta["uid"], meta["resourceVersion"]


def _hear(ref: ObjectRef, status: ModelDeploymentStatus, memory: _Memory) -> _Memory:
    """Take note of a recorded transition, so that it will be announced."""
    transition = status.last_transition
    if transition is None or transition.epoch <= memory.heard_epoch:
        return memory
    log.info("%s: %s: %s", ref, transition.reason, transition.message)
    heard = replace(memory, heard_epoch=transition.epoch)
    if transition.reason in WITHOUT_EVENT:
        return heard
    return replace(heard, unannounced=(*memory.unannounced, transition)[-MAX_UNANNOUNCED:])


def _recorded_rejection(status: ModelDeploymentStatus) -> tuple[int, str] | None:
    """Read what was refused out of the status, so that a new operator does not take silence for consent."""
    for condition in status.conditions:
        if (condition.type, condition.reason) == (
            ConditionType.STALLED,
            Reason.REJECTED_BY_CLUSTER,
        ):
            return condition.observed_generation, condition.message
    return None
