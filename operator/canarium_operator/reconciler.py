"""One pass over one ModelDeployment: observe, measure, decide, record, act, announce. No decision is taken here.

The status is written before anything is done for it, and everything that is done follows from the status and
is idempotent. The operator may therefore die between any two lines: the next pass does what is left.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from canarium_api import API_VERSION, KIND
from canarium_api.status import ModelDeploymentStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import naming, validation
from canarium_operator.core.diff import Apply, Change, Delete, Scale, diff
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observing import observe
from canarium_operator.core.plan import make_plan
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.analysis import Query, QueryFailure, Reading
from canarium_operator.core.rollout.engine import advance
from canarium_operator.core.rollout.inputs import Decision, RolloutInput
from canarium_operator.core.rollout.steps import due_queries
from canarium_operator.core.status import present, present_unreadable
from canarium_operator.errors import ForbiddenError, MetricSourceError, RejectedError
from canarium_operator.ports import Clock, Cluster, EventRecord, Manifest, MetricSource

log = logging.getLogger(__name__)

REJECTION_RETRY: Final = timedelta(seconds=60)
"""An object that the API server refused is tried again this often: a quota may have been raised meanwhile."""
MAX_QUERIES_AT_ONCE: Final = 8

Report = Callable[[ObjectRef, ModelDeploymentStatus | None], None]
"""Told of each status after it is written; None: the object is gone."""


@dataclass(frozen=True, kw_only=True)
class _Memory:
    """What this process knows of an object and may lose: only when to repair, and what was refused."""

    uid: str = ""
    """Of the object that this is about: another one of the same name starts afresh."""
    applied_all_at: datetime | None = None
    announced_epoch: int = -1
    rejection: tuple[int, str] | None = None
    """(generation, what the API server said)."""


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
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock
        self._runtime_image = runtime_image
        self._resync = resync
        self._report = report
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
            self._report(ref, None)
            return None
        ref = replace(ref, uid=body["metadata"]["uid"])
        memory = self._memories.get(key, _Memory())
        if memory.uid != ref.uid:
            memory = _Memory(uid=ref.uid)
        # Before anything new is decided: whoever wrote the latest transition may have died before it was announced.
        before = ModelDeploymentStatus.from_manifest(body.get("status") or {})
        memory = await self._announce(ref, before, memory)
        children = await self._cluster.children(ref)
        given = self._assemble(ref, body, children, memory)
        if isinstance(given, ModelDeploymentStatus):
            await self._record(ref, body, given)
            self._memories[key] = await self._announce(ref, given, memory)
            return self._resync
        given = replace(given, readings=await self._measure(due_queries(given)))
        decision = advance(given)
        status = present(given, decision)
        for note in given.observed.notes:
            log.warning("%s: %s", ref, note)
        await self._record(ref, body, status)
        self._memories[key] = memory
        full = memory.applied_all_at is None or given.now >= memory.applied_all_at + self._resync
        plan = make_plan(ref, given.spec, status, given.observed, given.wanted)
        changes = diff(plan, desired_children(plan), children, full=full)
        try:
            await self._act(changes)
        except (RejectedError, ForbiddenError) as error:
            rejection = (given.generation, str(error))
            known = memory.rejection
            memory = await self._announce(ref, status, replace(memory, rejection=rejection))
            self._memories[key] = memory
            # The next pass puts it into the status; after that, it is tried again at leisure.
            return timedelta(0) if known != rejection else REJECTION_RETRY
        memory = replace(memory, rejection=None)
        if full:
            memory = replace(memory, applied_all_at=given.now)
        self._memories[key] = memory = await self._announce(ref, status, memory)
        return self._until_next(decision, memory, had_rejection=given.rejection is not None)

    def _assemble(
        self, ref: ObjectRef, body: Manifest, children: Iterable[Manifest], memory: _Memory
    ) -> RolloutInput | ModelDeploymentStatus:
        """Bring together what the decision depends on; a spec that cannot even be read gives its status at once."""
        status = ModelDeploymentStatus.from_manifest(body.get("status") or {})
        generation = body["metadata"]["generation"]
        now = self._clock.now()
        spec = validation.parse_spec(body.get("spec"))
        if not isinstance(spec, ModelDeploymentSpec):
            return present_unreadable(status, generation, "; ".join(map(str, spec)), now)
        problems = validation.validate(spec)
        rejection = memory.rejection
        return RolloutInput(
            ref=ref,
            generation=generation,
            spec=spec,
            wanted=None if problems else revision_of(spec, self._runtime_image),
            status=status,
            observed=observe(list(children), spec),
            now=now,
            retry=(body["metadata"].get("annotations") or {}).get(naming.RETRY_ANNOTATION),
            problem="; ".join(str(problem) for problem in problems) or None,
            rejection=rejection[1]
            if rejection is not None and rejection[0] == generation
            else None,
        )

    async def _measure(self, queries: frozenset[Query]) -> dict[Query, Reading]:
        """Ask Prometheus; a failure is an answer too."""
        slots = asyncio.Semaphore(MAX_QUERIES_AT_ONCE)

        async def ask(query: Query) -> tuple[Query, Reading]:
            async with slots:
                try:
                    return query, await self._metrics.query(query.promql, query.at)
                except MetricSourceError as error:
                    return query, QueryFailure(message=str(error))

        ordered = sorted(queries, key=lambda query: (query.promql, query.at))
        return dict(await asyncio.gather(*(ask(query) for query in ordered)))

    async def _record(self, ref: ObjectRef, body: Manifest, status: ModelDeploymentStatus) -> None:
        """Write the status, if it changed, on condition that nobody wrote since it was read."""
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

    async def _announce(
        self, ref: ObjectRef, status: ModelDeploymentStatus, memory: _Memory
    ) -> _Memory:
        """Post the Event of the latest transition, once: its name carries the epoch, so a second try is refused."""
        transition = status.last_transition
        if transition is None or transition.epoch <= memory.announced_epoch:
            return memory
        event = EventRecord(
            epoch=transition.epoch,
            reason=transition.reason,
            message=transition.message,
            warning=transition.warning,
            at=transition.at,
        )
        try:
            await self._cluster.record_event(ref, event)
        except (RejectedError, ForbiddenError) as error:
            # A namespace that is going away takes no Events; that must not keep traffic from moving.
            log.warning("%s: %s not announced: %s", ref, transition.reason, error)
        log.info("%s: %s: %s", ref, transition.reason, transition.message)
        return replace(memory, announced_epoch=transition.epoch)

    async def _act(self, changes: Iterable[Change]) -> None:
        """Carry the changes out in their order: what is new first, then the route, deletions last.

        A refused object does not keep the others from being carried out: traffic must come back from a bad
        canary even when a quota refuses something else. The first refusal is raised at the end.
        """
        refused: RejectedError | ForbiddenError | None = None
        for change in changes:
            try:
                match change:
                    case Apply(manifest=manifest):
                        await self._cluster.apply(manifest)
                    case Scale(manifest=manifest, replicas=replicas):
                        await self._cluster.scale(manifest, replicas)
                    case Delete(manifest=manifest):
                        await self._cluster.delete(manifest)
            except (RejectedError, ForbiddenError) as error:
                refused = refused or error
        if refused is not None:
            raise refused

    def _until_next(self, decision: Decision, memory: _Memory, *, had_rejection: bool) -> timedelta:
        if had_rejection:
            return timedelta(0)
        assert memory.applied_all_at is not None  # noqa: S101 - set by the first pass
        repair = memory.applied_all_at + self._resync - self._clock.now()
        return max(timedelta(0), min(decision.requeue_after, repair))
