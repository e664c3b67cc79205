"""Several models in one server: who is loaded when, who makes room, and who waits."""

import asyncio
import json
from typing import Any

import pytest
from tests.unit.runtime.several import World

from canarium_api.runtime_config import ModelEntry, RuntimeConfig
from canarium_runtime import management
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.lifecycle import ModelState
from canarium_runtime.models import Models


async def test_without_a_bound_all_are_loaded_at_the_start() -> None:
    """The server is ready with its own model; the others follow."""
    w = World("a", "b")
    await w.models.start()
    assert w.models.primary.ready
    await w.until(lambda: set(w.states().values()) == {"Ready"})
    assert sorted(w.loads) == ["a", "b", "main"]
    await w.models.close()


async def test_a_broken_model_is_its_own_matter() -> None:
    """It says why; the others answer."""
    w = World("a", "b", broken="a")
    await w.models.start()
    await w.until(lambda: w.states() == {"main": "Ready", "a": "Failed", "b": "Ready"})
    with pytest.raises(ServingError, match="not a model"):
        w.models.get("a").admit()
    w.broken = ""
    await w.models.load("a")
    assert w.states()["a"] == "Ready"
    await w.models.close()


async def test_with_a_bound_a_model_is_loaded_when_somebody_asks() -> None:
    """The request waits for it, and a second one does not load it twice."""
    w = World("a", model_memory_bytes=5000)
    await w.models.start()
    assert w.states() == {"main": "Ready", "a": "Unloaded"}
    w.gate.clear()
    asked = [asyncio.create_task(w.ask("a")) for _ in range(2)]
    await w.until(lambda: w.loads == ["main", "a"])
    w.gate.set()
    await asyncio.gather(*asked)
    assert w.loads == ["main", "a"]
    await w.models.close()


async def test_the_least_recently_used_makes_room() -> None:
    """Room for three of four: the one that nobody used for the longest time goes, and comes back when asked for."""
    w = World("a", "b", "c", model_memory_bytes=3000)
    await w.models.start()
    for name in ("a", "b", "a", "c"):
        await w.ask(name)
    await w.until(
        lambda: w.states() == {"main": "Ready", "a": "Ready", "b": "Unloaded", "c": "Ready"}
    )
    assert w.backends["b"].closed
    await w.ask("b")
    await w.until(lambda: w.states()["a"] == "Unloaded")
    await w.models.close()


async def test_a_model_in_use_does_not_make_room() -> None:
    """One whose requests are under way stays, although it was used before the other."""
    w = World("a", "b", "c", model_memory_bytes=3000)
    await w.models.start()
    await w.ask("a")
    held = w.models.get("a").admit()
    await w.ask("b")
    await w.ask("c")
    await w.until(
        lambda: w.states() == {"main": "Ready", "a": "Ready", "b": "Unloaded", "c": "Ready"}
    )
    held.close()
    await w.models.close()


async def test_who_waits_for_a_model_that_fails_is_told_why() -> None:
    """Not left to the timeout."""
    w = World("a", broken="a", model_memory_bytes=5000)
    await w.models.start()
    with pytest.raises(ServingError, match="not a model") as caught:
        await w.ask("a")
    assert caught.value.kind is ErrorKind.NOT_READY
    await w.models.close()


async def test_who_waits_has_a_deadline() -> None:
    """A model that does not come in time is a 504."""
    w = World("a", model_memory_bytes=5000, request_timeout="10ms")
    await w.models.start()
    w.gate.clear()
    with pytest.raises(ServingError) as caught:
        await w.ask("a")
    assert caught.value.kind is ErrorKind.DEADLINE
    await w.models.close()


async def test_unloading_waits_for_requests_under_way() -> None:
    """New ones are refused, the old one is answered, then the memory is free."""
    w = World("a")
    await w.models.start()
    await w.until(lambda: w.states()["a"] == "Ready")
    held = w.models.get("a").admit()
    leaving = asyncio.create_task(w.models.unload("a"))
    await w.until(lambda: w.states()["a"] == "Unloaded")
    assert not w.backends["a"].closed
    with pytest.raises(ServingError, match="unloaded by request"):
        w.models.get("a").admit()
    held.close()
    await leaving
    assert w.backends["a"].closed
    await w.models.load("a")
    assert w.states()["a"] == "Ready"
    await w.models.close()


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("q", None, "no model 'q' here; there is 'main', 'a'"),
        ("a", "9", "model 'a' has no version '9' here; there is '1'"),
    ],
)
async def test_a_model_that_is_not_here_is_named(
    name: str, version: str | None, message: str
) -> None:
    """With those that are."""
    w = World("a")
    with pytest.raises(ServingError, match=message) as caught:
        w.models.get(name, version)
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert w.models.get("a", "1").lifecycle.state is ModelState.LOADING
    await w.models.close()


def test_a_model_that_is_listed_twice_is_a_wrong_setting() -> None:
    """The message names the setting and the model."""
    with pytest.raises(
        ValueError, match=r"CANARIUM_MODELS names a model and version twice.*main 1"
    ):
        RuntimeConfig(
            model_uri="file:///m.onnx",
            model_name="main",
            models=(ModelEntry(name="main", uri="file:///a"),),
        )


def test_models_travel_by_the_environment() -> None:
    """What the operator writes is what the server reads."""
    config = RuntimeConfig(
        model_uri="file:///m.onnx",
        models=(ModelEntry(name="a", version="2", uri="file:///a.onnx"),),
    )
    assert RuntimeConfig.from_env(config.to_env()) == config
    assert "CANARIUM_MODELS" not in RuntimeConfig(model_uri="file:///m.onnx").to_env()


async def test_a_models_own_declarations_are_not_those_of_the_first() -> None:
    """Tensors are each model's own, and requests for the warm-up are the first one's alone."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [-1]}
    more = {"name": "b", "uri": "file:///b.ts", "format": "torch", "inputs": [tensor]}
    config = RuntimeConfig.from_env(
        {
            "CANARIUM_MODEL_URI": "file:///a.onnx",
            "CANARIUM_MODELS": json.dumps([more]),
            "CANARIUM_WARMUP_SAMPLES": json.dumps([{"instances": [[1]]}]),
            "CANARIUM_WARMUP_URI": "file:///w.jsonl",
        }
    )
    own = Models(config).get("b").config
    assert [t.name for t in own.model_inputs] == ["x"]
    assert (own.model_format, own.warmup_samples, own.warmup_uri) == ("torch", (), None)


@pytest.mark.parametrize("move", [management.load, management.unload])
async def test_clients_load_and_unload_only_where_the_settings_let_them(move: Any) -> None:
    """Otherwise anybody who can ask could take a model away from all others."""
    w = World("a")
    await w.models.start()
    await w.until(lambda: w.states()["a"] == "Ready")
    with pytest.raises(ServingError, match="CANARIUM_MODEL_CONTROL") as caught:
        await move(w.models, "a", ())
    assert caught.value.kind is ErrorKind.METHOD_NOT_ALLOWED
    assert w.states()["a"] == "Ready"
    await w.models.close()
    allowed = World("a", model_control=True)
    await allowed.models.start()
    await move(allowed.models, "a", ())
    assert allowed.states()["a"] == ("Ready" if move is management.load else "Unloaded")
    await allowed.models.close()
