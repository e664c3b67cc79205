"""Copies of memories: written after the memory, read where there is none, tried again, and deleted in the end."""

from datetime import timedelta

import pytest

from canarium_operator.copies import MemoryCopies
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.memory import (
    KEPT_FOR,
    Memory,
    copy_name,
    make_copy,
    make_memory,
    restored,
)
from canarium_operator.core.naming import ObjectRef
from canarium_operator.errors import TransientClusterError
from canarium_operator.testing.clock import FakeClock
from canarium_operator.testing.cluster import Call, FakeCluster

HOME = "canarium-system"
REF = ObjectRef(namespace="ml", name="fraud", uid="1")
MEMORY = make_memory(REF, Memory())


def names(manifests: list[Manifest]) -> list[str]:
    return [manifest["metadata"]["name"] for manifest in manifests]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def copies(cluster: FakeCluster, clock: FakeClock) -> MemoryCopies:
    return MemoryCopies(cluster, clock, HOME)


async def test_without_a_namespace_nothing_is_asked_or_written(
    cluster: FakeCluster, clock: FakeClock
) -> None:
    """The setting's default."""
    copies = MemoryCopies(cluster, clock, "")
    await copies.keep(REF, MEMORY)
    assert await copies.recall(REF, []) == []
    await copies.run()
    assert cluster.calls == []


async def test_a_memory_that_is_gone_comes_back_from_its_copy(copies: MemoryCopies) -> None:
    """For an object of the same name and namespace, and nobody else."""
    await copies.keep(REF, MEMORY)
    again = ObjectRef(namespace="ml", name="fraud", uid="2")
    [found] = await copies.recall(again, [])
    assert (found["metadata"], found["data"]) == (MEMORY["metadata"], MEMORY["data"])
    for other in (ObjectRef(namespace="ml", name="prices"), ObjectRef(namespace="x", name="fraud")):
        assert await copies.recall(other, []) == []


async def test_a_copy_is_not_looked_for_where_there_is_a_memory_or_twice(
    copies: MemoryCopies, cluster: FakeCluster
) -> None:
    """An object at rest costs no request for it."""
    await copies.recall(REF, [MEMORY])
    assert cluster.calls == []
    for _ in range(3):
        assert await copies.recall(REF, []) == []
    assert [call.method for call in cluster.calls] == ["reread"]


async def test_only_memories_are_copied(copies: MemoryCopies, cluster: FakeCluster) -> None:
    """Of all that a pass applies."""
    await copies.keep(REF, {**MEMORY, "metadata": {**MEMORY["metadata"], "labels": {}}})
    assert cluster.calls == []


async def test_what_could_not_be_copied_is_tried_in_the_next_pass(
    copies: MemoryCopies, cluster: FakeCluster
) -> None:
    """And holds nothing up until then."""

    def fail(call: Call) -> None:
        if call.method == "apply":
            msg = "apply: 503"
            raise TransientClusterError(msg)

    cluster.before = fail
    await copies.keep(REF, MEMORY)
    await copies.recall(REF, [MEMORY])
    assert await cluster.copies(HOME) == []
    cluster.before = lambda _call: None
    await copies.recall(REF, [MEMORY])
    assert names(list(await cluster.copies(HOME))) == [copy_name(REF)]
    count = len(cluster.calls)
    await copies.recall(REF, [MEMORY])
    assert len(cluster.calls) == count


async def test_a_copy_that_nobody_writes_any_more_is_deleted(
    copies: MemoryCopies, cluster: FakeCluster, clock: FakeClock
) -> None:
    """What is written now and then stays, and what does not say when it was written, too."""
    gone = make_memory(ObjectRef(namespace="preview-7", name="fraud"), Memory())
    await copies.keep(REF, MEMORY)
    await copies.keep(REF, gone)
    undated = make_copy(
        make_memory(ObjectRef(namespace="ml", name="x"), Memory()), HOME, clock.now()
    )
    undated["metadata"]["annotations"] = {}
    cluster.store(undated)
    clock.advance(KEPT_FOR - timedelta(hours=1))
    await copies.keep(REF, MEMORY)
    clock.advance(timedelta(hours=2))
    await copies.tidy()
    left = names(list(await cluster.copies(HOME)))
    assert sorted(left) == sorted([copy_name(REF), undated["metadata"]["name"]])


def test_a_copy_of_another_object_is_not_believed() -> None:
    """Though it had the name: its labels say whose it is."""
    copy = make_copy(MEMORY, HOME, FakeClock().now())
    assert restored(copy, ObjectRef(namespace="ml", name="other")) is None
    assert restored(copy, REF) is not None
