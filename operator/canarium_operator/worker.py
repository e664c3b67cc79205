"""One asyncio task for each ModelDeployment: the single writer of its status and children.

Watches only wake a worker, with no payload; the worker looks at the whole state each time. Wakes that come
while it works fold into one more pass. Errors back off exponentially, and a conflict is simply looked at
again.

We do not use kopf's daemons for this, since they need a finalizer on the object, which would keep a namespace
from being deleted while the operator is down (docs/adr/0003).
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from canarium_operator.core.naming import ObjectRef
from canarium_operator.errors import ConflictError, OperatorError, TransientClusterError

log = logging.getLogger(__name__)

FIRST_BACKOFF = 0.5
MAX_BACKOFF = 60.0
"""Seconds."""
MAX_UNHEEDING = 5.0
"""Seconds after an error in which wakes are not heeded, so that a busy watch cannot undo the backoff."""

Reconcile = Callable[[ObjectRef], Awaitable[timedelta | None]]
"""One pass; gives the time until the next, or None when the object is gone."""


class Workers:
    """All workers of this process."""

    def __init__(self, reconcile: Reconcile, max_concurrent: int) -> None:
        self._reconcile = reconcile
        self._slots = asyncio.Semaphore(max_concurrent)
        self._wakes: dict[tuple[str, str], asyncio.Event] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    def wake(self, ref: ObjectRef) -> None:
        """Have an object looked at soon; starts its worker when it has none."""
        key = (ref.namespace, ref.name)
        self._wakes.setdefault(key, asyncio.Event()).set()
        if key not in self._tasks:
            task = asyncio.create_task(self._work(ref, self._wakes[key]), name=f"worker {ref}")
            self._tasks[key] = task

    def __len__(self) -> int:
        return len(self._tasks)

    async def close(self) -> None:
        """End all workers; a pass under way is cut off, which is safe at any point."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, ref: ObjectRef, wake: asyncio.Event) -> None:
        key = (ref.namespace, ref.name)
        backoff = FIRST_BACKOFF
        while True:
            wake.clear()
            unheeding = 0.0
            try:
                async with self._slots:
                    after = await self._reconcile(ref)
            except ConflictError as error:
                log.debug("%s: %s; looking again", ref, error)
                unheeding = pause = FIRST_BACKOFF
            except OperatorError as error:
                asked = error.retry_after if isinstance(error, TransientClusterError) else None
                pause = max(backoff, asked or 0.0)
                log.warning("%s: %s; trying again in %.1f s", ref, error, pause)
                unheeding = min(pause, MAX_UNHEEDING)
                backoff = min(backoff * 2, MAX_BACKOFF)
            except Exception:
                # A defect of ours must not end the worker of this object, nor spin.
                log.exception("%s: unexpected error; trying again in %.0f s", ref, MAX_BACKOFF)
                pause, unheeding = MAX_BACKOFF, MAX_UNHEEDING
            else:
                backoff = FIRST_BACKOFF
                if after is None:
                    if wake.is_set():
                        continue
                    # Nothing is awaited between this check and the removal, so no wake can be lost.
                    self._tasks.pop(key, None)
                    self._wakes.pop(key, None)
                    return
                pause = max(after.total_seconds(), 0.0)
            await asyncio.sleep(unheeding)
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the wake.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause - unheeding):
                    await wake.wait()
