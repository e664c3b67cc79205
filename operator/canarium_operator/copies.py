"""Copies of memories in a namespace of their own, so that they outlive also the namespaces of the ModelDeployments.

The memory itself (`core.memory`) comes first; its copy is written after it, each time that it is applied, and read
where a ModelDeployment finds no memory of its name. What cannot be copied now is tried again in the next pass: nothing
waits for it. A copy that was not written for long belongs to nobody any more, since living objects are repaired every
half hour, and is deleted.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from canarium_operator.core.manifests import Manifest
from canarium_operator.core.memory import copy_name, is_memory, is_old, make_copy, restored
from canarium_operator.core.naming import ObjectRef
from canarium_operator.errors import ClusterError
from canarium_operator.ports import Clock, Cluster

log = logging.getLogger(__name__)

TIDY_INTERVAL: Final = timedelta(hours=6)
"""Also from the start until the first time: by then every living object was repaired once."""
MAX_WITHOUT: Final = 10_000
"""Objects of which is known that no copy is there; beyond that all are looked for again."""


class MemoryCopies:
    """Writes and reads the copies.

    Args:
        cluster: where they are.
        clock: the time.
        namespace: for the copies; empty: there are none, and nothing is ever asked.
    """

    def __init__(self, cluster: Cluster, clock: Clock, namespace: str) -> None:
        self._cluster = cluster
        self._clock = clock
        self._namespace = namespace
        self._without: set[str] = set()
        """uids."""
        self._unkept: dict[str, Manifest] = {}
        """What could not be copied, by `namespace/name`; at most one for each object."""

    async def recall(self, ref: ObjectRef, children: Sequence[Manifest]) -> Sequence[Manifest]:
        """Add the memory to the children, where they have none and a copy is there.

        Raises:
            ClusterError: it is not known whether there is one; nothing may be decided then.
        """
        if not self._namespace:
            return children
        if str(ref) in self._unkept:
            await self.keep(ref, self._unkept[str(ref)])
        if ref.uid in self._without or any(map(is_memory, children)):
            return children
        meta = {"namespace": self._namespace, "name": copy_name(ref)}
        found = await self._cluster.reread({"kind": "ConfigMap", "metadata": meta})
        memory = restored(found, ref) if found is not None else None
        if memory is not None:
            return [*children, memory]
        if len(self._without) >= MAX_WITHOUT:
            self._without.clear()
        self._without.add(ref.uid)
        return children

    async def keep(self, ref: ObjectRef, applied: Manifest) -> None:
        """Copy what was applied, if it is a memory."""
        if not self._namespace or not is_memory(applied):
            return
        try:
            await self._cluster.apply(make_copy(applied, self._namespace, self._clock.now()))
        except ClusterError as error:
            log.warning("%s: its memory is not copied yet: %s", ref, error)
            self._unkept[str(ref)] = applied
        else:
            self._unkept.pop(str(ref), None)

    def forget(self, ref: ObjectRef) -> None:
        """Give up what was still to be copied of an object that is gone."""
        self._unkept.pop(str(ref), None)

    async def run(self) -> None:
        """Delete old copies now and then, until cancelled."""
        while self._namespace:
            await asyncio.sleep(TIDY_INTERVAL.total_seconds())
            try:
                await self.tidy()
            except ClusterError as error:
                log.warning("old copies of memories stay for now: %s", error)
            except Exception:
                # A mistake here must not stop the rollouts, which run in the same process.
                log.exception("old copies of memories stay for now")

    async def tidy(self) -> None:
        """Delete the copies that were not written for long.

        Raises:
            ClusterError: they cannot be listed, or one cannot be deleted.
        """
        now = self._clock.now()
        for copy in await self._cluster.copies(self._namespace):
            if is_old(copy, now):
                await self._cluster.delete(copy)
                log.info("deleted %s, a memory that nobody has", copy["metadata"]["name"])
