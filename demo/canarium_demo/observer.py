"""Feeds the world from the watches, and lets the story wait for what it wants to see."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from canarium_api import GROUP, PLURAL, VERSION
from canarium_demo.errors import DemoError
from canarium_demo.kubernetes import Manifest, Watcher
from canarium_demo.world import World

OPERATOR_NAMESPACE: Final = "canarium-system"
OPERATOR: Final = "canarium-operator"
OPERATOR_SELECTOR: Final = f"app.kubernetes.io/name={OPERATOR}"
_EVENTS_SHOWN: Final = 8


class Observer:
    """Watches one ModelDeployment, its route, its Events, and the operator.

    Args:
        watcher: the API server.
        namespace: of the ModelDeployment.
        world: what is seen goes there.
    """

    def __init__(self, watcher: Watcher, namespace: str, world: World) -> None:
        self.world = world
        self._watcher = watcher
        self._namespace = namespace
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Watch in the background."""
        name, world = f"metadata.name={self.world.name}", self.world
        space = f"namespaces/{self._namespace}"
        about = f"involvedObject.name={world.name},involvedObject.kind=ModelDeployment"
        route = f"/apis/gateway.networking.k8s.io/v1/{space}/httproutes"
        pods = f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods"
        follow = self._follow
        tasks = [
            follow(world.see_object, f"/apis/{GROUP}/{VERSION}/{space}/{PLURAL}", field=name),
            follow(world.see_route, route, field=name),
            follow(world.see_event, f"/api/v1/{space}/events", field=about),
            follow(world.see_operator, pods, label=OPERATOR_SELECTOR),
        ]
        self._tasks = [asyncio.create_task(task) for task in tasks]
        for running in self._tasks:
            running.add_done_callback(lambda _: self._changed.set())
        try:
            yield
        finally:
            for running in self._tasks:
                running.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for(self, what: str, seen: Callable[[World], bool], *, seconds: float) -> None:
        """Wait until the world is as wanted.

        Args:
            what: completes "waited in vain until ...".
            seen: looks at the world; may raise DemoError where waiting on makes no sense.
            seconds: how long at most.
        """
        deadline = time.monotonic() + seconds
        while not seen(self.world):
            for task in self._tasks:
                if task.done():
                    task.result()  # a watch never ends but by an error of ours
            left = deadline - time.monotonic()
            if left <= 0:
                raise DemoError(
                    f"Waited {seconds:.0f} s in vain until {what}.", describe(self.world)
                )
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    async def _follow(
        self, see: Callable[[Manifest], None], path: str, *, field: str = "", label: str = ""
    ) -> None:
        selector = {"fieldSelector": field} if field else {"labelSelector": label}
        async for body in self._watcher.objects(path, **selector):
            see(body)
            self._changed.set()


def describe(world: World) -> str:
    """Say where a rollout stands, for an error's details."""
    status = world.status
    lines = [
        f"generation {world.generation} (observed {status.observed_generation}), phase {status.phase}",
        f"status.message: {status.message or '(none)'}",
        "latest events:",
        *(f"  {e.at:%H:%M:%S}  {e.reason}  {e.message}" for e in world.events[-_EVENTS_SHOWN:]),
    ]
    return "\n".join(lines)
