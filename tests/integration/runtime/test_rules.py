"""Rules for the values of requests, over HTTP: what clients are told at each level, and what is counted."""

import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from canarium_runtime import loader
from canarium_runtime.app import create_app
from canarium_runtime.errors import LoadError
from canarium_runtime.rest.endpoints import Predictor
from canarium_runtime.testing import linear_model, make_models

INFER = "/v2/models/fraud/infer"


@asynccontextmanager
async def server(**validation: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A model that sums two floats, with rules."""
    text = json.dumps(validation) if validation else ""
    models = make_models(model_name="fraud", validation=text)
    transport = httpx.ASGITransport(create_app(models.config, Predictor(models)))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client
    models.primary.close()


def ages(level: str) -> dict[str, Any]:
    features = [{"name": "age", "min": 0, "max": 120}, {"name": "income", "default": "7"}]
    return {"level": level, "inputs": [{"name": "x", "features": features}]}


def v2(*values: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": list(values)}]}


async def violations(client: httpx.AsyncClient) -> list[str]:
    text = (await client.get("/metrics")).text
    lines = [
        line for line in text.splitlines() if line.startswith("ml_validation_violations_total{")
    ]
    return [line for line in lines if not line.endswith(" 0.0")]


@pytest.mark.parametrize(
    ("path", "body"), [(INFER, v2(150, 1)), ("/predict", {"instances": [[150, 1]]})]
)
async def test_strict_rules_refuse_with_the_field(path: str, body: Any) -> None:
    """World: an age of 150; event: a request; world: 422 that names the value, and one violation counted."""
    async with server(**ages("strict")) as client:
        response = await client.post(path, json=body)
        assert response.status_code == 422
        document = response.json()
        assert document["code"] == "invalid_input"
        assert document["field"] == "inputs.x[0][0]"
        assert document["expected"] == "at least 0 and at most 120 for feature 'age'"
        (line,) = await violations(client)
        assert 'kind="range"' in line
        assert 'outcome="refused"' in line


async def test_warnings_are_in_the_answers_of_both_protocols() -> None:
    """World: an age of 150, the level warning; event: requests; world: the model's own answer, and the warning."""
    async with server(**ages("warning")) as client:
        first = (await client.post(INFER, json=v2(150, 1))).json()
        second = (await client.post("/predict", json={"instances": [[150, 1]]})).json()
        quiet = (await client.post(INFER, json=v2(50, 1))).json()
    warning = (
        "inputs.x[0][0]: expected at least 0 and at most 120 for feature 'age', got a number 150.0"
    )
    assert first["parameters"] == {"warnings": [warning]}
    assert first["outputs"][0]["data"] == [151]
    assert second["warnings"] == [warning]
    assert second["outputs"] == {"y": [151]}
    assert "parameters" not in quiet


async def test_permissive_rules_convert_clamp_and_say_so() -> None:
    """World: an age of "150" and no income; event: a request; world: the answer to 120 and 7, and three warnings."""
    async with server(**ages("permissive")) as client:
        document = (await client.post(INFER, json=v2("150", None))).json()
    assert document["outputs"][0]["data"] == [127]
    assert document["parameters"]["warnings"] == [
        'inputs.x[0][0]: a string "150" was taken as a number 150.0',
        "inputs.x[0][1]: a number nan became a number 7.0 for feature 'income'",
        "inputs.x[0][0]: a number 150.0 became a number 120.0 for feature 'age'",
    ]


@pytest.mark.parametrize(
    ("validation", "status"), [({}, 422), ({"allowNan": True}, 500)], ids=["refused", "a value"]
)
async def test_nan_in_binary_data_is_refused_unless_it_is_a_value(
    validation: dict[str, Any], status: int
) -> None:
    """World: NaN, which only binary data has; event: a request; world: refused without rules. The model of this
    test fails on NaN, which shows that it got it where it is allowed.
    """
    data = np.array([1, np.nan], np.float32).tobytes()
    tensor = {
        "name": "x",
        "shape": [1, 2],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 8},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    async with server(**validation) as client:
        response = await client.post(INFER, content=head + data, headers=headers)
    assert response.status_code == status
    if status == 422:
        assert response.json()["field"] == "inputs.x[0][1]"
        assert "allowNan" in response.json()["error"]


async def test_rules_that_do_not_fit_the_model_keep_it_from_being_served(tmp_path: Path) -> None:
    """World: rules for an input that the model does not have; event: it is loaded; world: a permanent failure."""
    path = linear_model(tmp_path / "m.onnx")
    validation = json.dumps({"inputs": [{"name": "z"}]})
    models = make_models(serving=False, model_uri=path.as_uri(), validation=validation)
    with pytest.raises(LoadError, match="the model has no input 'z'") as caught:
        await loader.load(models.config, models.primary, threading.Event())
    assert caught.value.failure.reason == "InvalidConfig"
    assert caught.value.failure.permanent
    assert not models.primary.ready


async def test_rules_are_for_the_first_model_of_a_server() -> None:
    """World: rules for the model that is named first; event: another is configured beside it; world: it has none."""
    more = [{"name": "other", "uri": "file:///other.onnx"}]
    models = make_models(validation=json.dumps(ages("strict")), models=more)
    other = models.get("other")
    assert models.primary.config.validation
    assert other.config.validation == ""
    await models.close()
