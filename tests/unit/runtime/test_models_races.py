"""Several models in one server when things happen at the same time: nothing is lost, nothing is freed in use."""

import asyncio
import threading
from typing import Any

import pytest
from tests.unit.runtime.several import World, row, shown

from canarium_api.runtime_config import FallbackEntry, ModelEntry, RuntimeConfig
from canarium_runtime.backends.base import BackendError
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.models import Models
from canarium_runtime.parking import Parking
from canarium_runtime.rest.codec import Identity
from canarium_runtime.rest.exchange import Route
from canarium_runtime.rest.v2 import V2Codec
from canarium_runtime.testing import FakeBackend, make_service, model_spec, tensor
from canarium_runtime.warmup import Report


async def loaded(w: World, name: str) -> None:
    await w.models.start()
    await w.ask(name)


async def test_who_asks_while_a_model_is_being_unloaded_gets_the_next_loading() -> None:
    """The request before is answered by the old model, the one after by the new one, which stays."""
    w = World("a", model_memory_bytes=5000)
    await loaded(w, "a")
    first = w.backends["a"]
    before = w.models.get("a").admit()
    leaving = asyncio.create_task(w.models.unload("a"))
    await w.until(lambda: w.states()["a"] == "Unloaded")
    _, after = w.send("a", 2)
    assert not after.done()
    _, answer = w.send("a", 1, before)
    async with asyncio.timeout(10):
        assert (shown(await answer), first.batch_rows) == ([1.0], [1])
        await leaving
        assert shown(await after) == [2.0]
    assert first.closed
    assert w.backends["a"] is not first
    assert (w.states()["a"], w.backends["a"].closed) == ("Ready", False)
    await w.models.close()


async def test_a_request_whose_body_is_on_its_way_is_answered_by_a_model_that_leaves() -> None:
    """It was let in, so it is under way."""
    w = World("a")
    await w.models.start()
    await w.until(lambda: w.states()["a"] == "Ready")
    held = w.models.get("a").admit()
    leaving = asyncio.create_task(w.models.unload("a"))
    await w.until(lambda: w.states()["a"] == "Unloaded")
    _, answer = w.send("a", 3, held)
    async with asyncio.timeout(10):
        assert shown(await answer) == [3.0]
        await leaving
    assert w.backends["a"].closed
    await w.models.close()


async def test_a_request_that_is_let_in_while_the_server_stops_is_answered() -> None:
    """Refusing begins with who comes from then on."""
    w = World()
    await w.models.start()
    held = w.models.primary.admit()
    w.models.terminate()
    w.models.refuse()
    _, answer = w.send("main", 3, held)
    async with asyncio.timeout(10):
        assert shown(await answer) == [3.0]
    await w.models.close()


async def test_whose_loading_failed_before_its_body_came_is_told_at_once() -> None:
    """Not left to the timeout."""
    w = World("a", broken="a", model_memory_bytes=5000)
    await w.models.start()
    w.gate.clear()
    held = w.models.get("a").admit()
    await w.until(lambda: w.loads == ["main", "a"])
    w.gate.set()
    await w.until(lambda: w.states()["a"] == "Failed")
    _, answer = w.send("a", 3, held)
    assert answer.done()
    assert shown(answer.result()) is ErrorKind.NOT_READY
    await w.models.close()


async def test_a_loading_that_failed_is_tried_again_when_somebody_asks_after_a_pause() -> None:
    """A server of models that was away for a minute does not make the model unusable for good."""
    w = World("a", broken="a", model_memory_bytes=5000)
    await w.models.start()
    with pytest.raises(ServingError, match="not a model"):
        await w.ask("a")
    w.broken = ""
    with pytest.raises(ServingError, match="not a model"):
        await w.ask("a")  # at once: it is left alone for a while
    w.models._again_at["a", "1"] = 0.0
    await w.ask("a")
    assert w.states()["a"] == "Ready"
    await w.models.close()


async def test_a_loading_that_cannot_work_is_not_tried_again() -> None:
    """But by who asks for just that."""
    w = World("a", broken="a", model_memory_bytes=5000)
    w.permanently = True
    await w.models.start()
    with pytest.raises(ServingError, match="not a model"):
        await w.ask("a")
    assert w.models._again_at["a", "1"] == float("inf")
    w.broken = ""
    await w.models.load("a")
    await w.ask("a")
    await w.models.close()


async def test_who_waits_for_a_model_when_the_server_is_told_to_stop_is_told() -> None:
    """Not when its time or that of the server is over."""
    w = World("a", model_memory_bytes=5000)
    await w.models.start()
    w.gate.clear()
    _, answer = w.send("a")
    await w.until(lambda: w.loads == ["main", "a"])
    w.models.terminate()
    w.gate.set()
    async with asyncio.timeout(10):
        assert shown(await answer) is ErrorKind.STOPPING
    await w.models.close()


async def test_closing_while_a_model_is_being_loaded_tells_who_waits() -> None:
    """And ends."""
    w = World("a", model_memory_bytes=5000)
    await w.models.start()
    w.gate.clear()
    _, answer = w.send("a")
    await w.until(lambda: w.loads == ["main", "a"])
    async with asyncio.timeout(10):
        await w.models.close()
    assert shown(await answer) is ErrorKind.STOPPING


async def test_room_that_could_not_be_made_is_made_when_a_model_is_idle() -> None:
    """Two in use, room for one: the one that was used before goes with its last answer."""
    w = World("a", "b", model_memory_bytes=2000)
    await loaded(w, "a")
    a = w.models.get("a").admit()
    await w.ask("b")
    assert w.states() == {"main": "Ready", "a": "Ready", "b": "Ready"}
    a.close()
    await w.until(lambda: w.states() == {"main": "Ready", "a": "Unloaded", "b": "Ready"})
    assert w.backends["a"].closed
    await w.models.close()


async def test_a_model_whose_size_is_known_gets_its_room_before_it_is_loaded() -> None:
    """So that both are not in memory at a time."""
    w = World("a", "b", model_memory_bytes=2000)
    await loaded(w, "a")
    await w.ask("b")
    await w.until(lambda: w.states()["a"] == "Unloaded")
    w.gate.clear()
    asked = asyncio.create_task(w.ask("a"))
    await w.until(lambda: w.loads[-1] == "a")
    assert (w.states()["a"], w.states()["b"]) == ("Loading", "Unloaded")
    w.gate.set()
    await asked
    await w.models.close()


async def test_the_first_model_is_loaded_once_however_many_ask() -> None:
    """Asking for what is being loaded from the start waits for it."""
    w = World("a")
    w.gate.clear()
    starting = asyncio.create_task(w.models.start())
    await w.until(lambda: w.loads == ["main"])
    asked = asyncio.create_task(w.models.load("main"))
    await asyncio.sleep(0)
    w.gate.set()
    await asyncio.gather(starting, asked)
    assert w.loads.count("main") == 1
    await w.models.close()


async def test_unloading_what_is_being_loaded_unloads_it() -> None:
    """Whoever gets the answer can rely on it."""
    w = World("a")
    await w.models.start()
    await w.until(lambda: w.states()["a"] == "Ready")
    await w.models.unload("a")
    w.gate.clear()
    loading = asyncio.create_task(w.models.load("a"))
    await w.until(lambda: w.states()["a"] == "Loading")
    leaving = asyncio.create_task(w.models.unload("a"))
    await asyncio.sleep(0)
    w.gate.set()
    await leaving
    assert w.states()["a"] == "Unloaded"
    assert w.backends["a"].closed
    await asyncio.gather(loading, return_exceptions=True)
    await w.models.close()


async def test_a_model_is_freed_although_whoever_asked_for_that_has_left() -> None:
    """The client of the unloading closes its connection before the last answer."""
    w = World("a")
    await w.models.start()
    await w.until(lambda: w.states()["a"] == "Ready")
    held = w.models.get("a").admit()
    leaving = asyncio.create_task(w.models.unload("a"))
    await w.until(lambda: w.states()["a"] == "Unloaded")
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    held.close()
    await w.until(lambda: w.backends["a"].closed)
    await w.models.close()


async def test_a_run_whose_client_has_gone_keeps_its_model_until_it_ends() -> None:
    """What a thread computes with is not freed under it."""
    w = World("a")
    gate = w.runs["a"] = threading.Event()
    await w.models.start()
    await w.until(lambda: w.states()["a"] == "Ready")
    backend = w.backends["a"]
    prediction, _ = w.send("a")
    await w.until(backend.started.is_set)
    prediction.cancel()
    prediction.close()
    await w.models.unload("a")
    assert not backend.closed
    gate.set()
    await w.until(lambda: backend.closed)
    await w.models.close()


async def test_closing_with_requests_behind_a_run_leaves_nobody_and_nothing_behind() -> None:
    """They are told, the run's end starts no other, and the model is freed after it."""
    w = World()
    gate = w.runs["main"] = threading.Event()
    await w.models.start()
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    _, running = w.send("main", 1)
    backend = w.backends["main"]
    await w.until(backend.started.is_set)
    _, waiting = w.send("main", 2)
    await w.models.close()
    assert [shown(await o) for o in (running, waiting)] == [ErrorKind.STOPPING] * 2
    assert not backend.closed
    gate.set()
    await w.until(lambda: backend.closed)
    assert (complaints, backend.batch_rows) == ([], [1])


async def test_closing_tells_equal_requests_that_wait_for_one_another() -> None:
    """The first of them must not go into the queue of a model that is closed."""
    w = World(cache_memory_bytes=1 << 20)
    gate = w.runs["main"] = threading.Event()

    async def load(config: Any, service: Any, stop: Any) -> None:
        cache = await service.make_cache("digest")
        backend = w.backends["main"] = FakeBackend(gate=gate)
        service.begin_warming()
        service.serve(backend, Report(), cache)

    w.models._load = load
    await w.models.start()
    outcomes = [w.send("main", 7)[1] for _ in range(3)]
    await w.until(w.backends["main"].started.is_set)
    await w.models.close()
    async with asyncio.timeout(10):
        assert [shown(await o) for o in outcomes] == [ErrorKind.STOPPING] * 3
    gate.set()


async def test_a_model_on_demand_is_loaded_to_stand_in() -> None:
    """And the request's client learns who answered."""
    w = World("small", model_memory_bytes=5000, fallbacks=(FallbackEntry(model="small"),))
    await w.models.start()
    assert w.states()["small"] == "Unloaded"
    w.backends["main"]._compute = broken
    prediction, answer = w.send("main", 4)
    async with asyncio.timeout(10):
        assert shown(await answer) == [4.0]
    assert (prediction.marks, w.loads) == ({"fallback": "small"}, ["main", "small"])
    await w.models.close()


def broken(_: Any) -> Any:

    msg = "no"
    raise BackendError(msg)


async def test_a_model_that_stands_in_is_in_use() -> None:
    """It makes no room, is unloaded only after its answer, and does not count what the other model counts."""
    w = World("small", "b", model_memory_bytes=2000, fallbacks=(FallbackEntry(model="small"),))
    gate = w.runs["small"] = threading.Event()
    await w.models.start()
    w.backends["main"]._compute = broken
    _, answer = w.send("main", 4)
    await w.until(lambda: "small" in w.backends and w.backends["small"].started.is_set())
    await w.ask("b")
    assert w.states()["small"] == "Ready"
    leaving = asyncio.create_task(w.models.unload("small"))
    await w.until(lambda: w.states()["small"] == "Unloaded")
    gate.set()
    async with asyncio.timeout(10):
        assert shown(await answer) == [4.0]
        await leaving
    assert w.models.get("small").metrics.succeeded == 0
    await w.models.close()


async def test_a_client_that_leaves_while_the_other_model_is_loaded_leaves_no_trace() -> None:
    """No place is taken, and nothing is run for it."""
    w = World("small", model_memory_bytes=5000, fallbacks=(FallbackEntry(model="small"),))
    await w.models.start()
    w.backends["main"]._compute = broken
    w.gate.clear()
    prediction, _ = w.send("main", 4)
    await w.until(lambda: w.loads == ["main", "small"])
    prediction.cancel()
    prediction.close()
    w.gate.set()
    await w.until(lambda: w.states()["small"] == "Ready")
    assert [s.busy for s in w.models] == [False, False]
    assert w.backends["small"].batch_rows == []
    await w.models.close()


async def test_a_fallback_that_cannot_be_loaded_is_told_to_the_next() -> None:
    """The client gets the model's own failure where nobody else answers."""
    w = World(
        "small",
        broken="small",
        model_memory_bytes=5000,
        fallbacks=(FallbackEntry(model="small"), FallbackEntry(outputs={"y": 9})),
    )
    await w.models.start()
    w.backends["main"]._compute = broken
    prediction, answer = w.send("main", 4)
    async with asyncio.timeout(10):
        assert shown(await answer) == [9.0]
    assert prediction.marks == {"fallback": "default"}
    await w.models.close()


async def test_another_version_of_the_servers_own_model_stands_in() -> None:
    """Without a version it is one that `models` lists, and never the model itself."""
    config = RuntimeConfig(
        model_uri="file:///m.onnx",
        model_name="m",
        model_version="2",
        models=(ModelEntry(name="m", version="1", uri="file:///old.onnx"),),
        fallbacks=(FallbackEntry(model="m"),),
    )
    models = Models(config)
    assert config.key_of(config.fallbacks[0]) == ("m", "1")
    assert models.get("m") is models.primary
    assert models.primary.fallbacks[0]._host is models.get("m", "1")  # type: ignore[attr-defined]


@pytest.mark.parametrize("version", ["2", "9"])
def test_a_fallbacks_version_must_be_listed(version: str) -> None:
    """At the start, by its setting; the model itself is no fallback."""
    with pytest.raises(ValueError, match=f"CANARIUM_FALLBACKS names .* does not list: m {version}"):
        RuntimeConfig(
            model_uri="file:///m.onnx",
            model_name="m",
            model_version="2",
            models=(ModelEntry(name="m", version="1", uri="file:///old.onnx"),),
            fallbacks=(FallbackEntry(model="m", version=version),),
        )


async def test_a_model_that_came_back_with_other_inputs_is_asked_by_them() -> None:
    """A file without a digest may have been replaced between two loadings."""
    w = World("a")
    await w.models.start()
    await w.until(lambda: w.states()["a"] == "Ready")
    route = Route(w.models.get("a"), Identity("a", "1", "r"), V2Codec)
    old = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'
    route.codec.decode(old, None)
    await w.models.unload("a")
    w.specs["a"] = model_spec([tensor("z", "FP32", None, 2)])
    await w.models.load("a")
    with pytest.raises(ServingError, match="z"):
        route.codec.decode(old, None)
    route.codec.decode(old.replace(b'"x"', b'"z"'), None)
    await w.models.close()


async def test_one_that_fails_to_go_on_keeps_nobody_waiting() -> None:
    """Nor does one that left when another went on go on after all."""
    parking = Parking("late")
    told: list[str] = []

    def fails(_: Any) -> None:
        msg = "surprise"
        raise ZeroDivisionError(msg)

    def leaves(_: Any) -> None:
        told.append("leaves")
        parking.remove(gone)

    def gone(_: Any) -> None:
        told.append("gone")

    def stays(_: Any) -> None:
        told.append("stays")

    for resume in (fails, leaves, gone, stays):
        parking.add(resume, 1e12)
    parking.release()
    assert (told, len(parking)) == (["leaves", "stays"], 0)


async def test_answers_that_are_recorded_are_given_by_a_model_that_leaves() -> None:
    """The last answer is recorded with the model's datatypes before it is freed."""
    service = make_service()
    held = service.admit()
    service.retire("unloaded by request")
    outputs = await service.predict(held, row(2))
    held.close()
    assert service.spec.output_datatypes == {"y": "FP32"}
    assert outputs.arrays[0].tolist() == [2.0]
    await service.freed()
    with pytest.raises(ServingError):
        _ = service.spec
