"""Waiting for what the watches bring: with an end, and with an explanation when it does not come."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from canarium_demo.errors import DemoError
from canarium_demo.observer import Observer
from canarium_demo.world import World

SPEC = {
    "model": {"uri": "configmap://digits-v1/model.onnx"},
    "traffic": {"gateway": {"name": "public"}},
}


def body(message: str) -> dict[str, Any]:
    status = {"observedGeneration": 1, "message": message}
    return {"metadata": {"generation": 1}, "spec": SPEC, "status": status}


class FakeWatcher:
    """Brings what the test puts into a collection's queue."""

    def __init__(self) -> None:
        self.queues: dict[str, asyncio.Queue[dict[str, Any]]] = {}

    def queue(self, plural: str) -> asyncio.Queue[dict[str, Any]]:
        return self.queues.setdefault(plural, asyncio.Queue())

    async def objects(self, path: str, **_selector: str) -> AsyncIterator[dict[str, Any]]:
        while True:
            yield await self.queue(path.rpartition("/")[2]).get()


@pytest.fixture
def watcher() -> FakeWatcher:
    return FakeWatcher()


@pytest.fixture
def observer(watcher: FakeWatcher) -> Observer:
    return Observer(watcher, "canarium-demo", World(name="digits"))  # type: ignore[arg-type]


async def test_a_wait_ends_as_soon_as_the_world_is_as_wanted(
    watcher: FakeWatcher, observer: Observer
) -> None:
    """Changes wake it; it does not poll."""
    async with observer.watching():
        watcher.queue("modeldeployments").put_nowait(body("loading"))
        later = asyncio.get_running_loop().call_later
        later(0.05, watcher.queue("modeldeployments").put_nowait, body("it serves"))
        await observer.wait_for("it serves", lambda w: "serves" in w.status.message, seconds=5)
    assert observer.world.status.message == "it serves"


async def test_a_wait_in_vain_says_where_things_stand(
    watcher: FakeWatcher, observer: Observer
) -> None:
    """The status in words, and the latest events."""
    event = {
        "metadata": {"uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "reason": "FirstDeployment",
        "message": "bringing up v1",
    }
    async with observer.watching():
        watcher.queue("modeldeployments").put_nowait(body("0 of 2 pods are ready"))
        watcher.queue("events").put_nowait(event)
        with pytest.raises(DemoError) as caught:
            await observer.wait_for("v1 serves", lambda _: False, seconds=0.1)
    text = str(caught.value)
    assert "Waited 0 s in vain until v1 serves." in text
    assert "status.message: 0 of 2 pods are ready" in text
    assert "FirstDeployment  bringing up v1" in text


async def test_a_broken_watch_ends_the_wait_at_once(
    watcher: FakeWatcher, observer: Observer
) -> None:
    """An object that cannot be read is a mistake of ours, not something to wait out."""
    async with observer.watching():
        watcher.queue("modeldeployments").put_nowait({"metadata": {"generation": 1}})
        with pytest.raises(KeyError):
            await observer.wait_for("v1 serves", lambda _: False, seconds=5)
