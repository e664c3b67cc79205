"""KServe's protocol V1, over ASGI and by the hot lane."""

import httpx
import numpy as np
import pytest
from tests.integration.runtime.doors import MODEL, world

from canarium_runtime.testing import FakeBackend, model_spec, tensor

TWO = model_spec(
    [tensor("x", "FP32", None, 2)], [tensor("y", "FP32", None), tensor("s", "BYTES", None)]
)
PATH = f"/v1/models/{MODEL}:predict"


@pytest.mark.parametrize("hot", [True, False])
async def test_a_prediction_for_each_row(hot: bool) -> None:
    """One output gives its values, several give objects; NaN is null in both."""
    async with world(FakeBackend(), hot=hot) as w, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(w.url + PATH, json={"instances": [[1, 2], [3, 4]]})
        assert (answer.status_code, answer.json()) == (200, {"predictions": [3.0, 7.0]})
        wrong = await client.post(w.url + PATH, json={"instances": [[1, 2, 3]]})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_input")
        other = await client.post(w.url + "/v1/models/other:predict", json={"instances": [[1, 2]]})
        assert other.status_code == 404
    two = FakeBackend(
        TWO,
        lambda inputs: [
            np.where(inputs["x"][:, 0] > 2, np.nan, inputs["x"].sum(axis=1)).astype("f4"),
            np.array(["a", "b"], object),
        ],
    )
    async with world(two, hot=hot) as w, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(w.url + PATH, json={"instances": [[1, 2], [3, 4]]})
        assert answer.json() == {"predictions": [{"y": 3.0, "s": "a"}, {"y": None, "s": "b"}]}


async def test_readiness() -> None:
    """Names of ready models; 503 with the reason while loading."""
    async with world(FakeBackend()) as w, httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(w.url + "/v1/models")).json() == {"models": [MODEL]}
        ready = await client.get(w.url + f"/v1/models/{MODEL}")
        assert (ready.status_code, ready.json()) == (200, {"name": MODEL, "ready": True})
    async with (
        world(FakeBackend(), serving=False) as w,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        assert (await client.get(w.url + "/v1/models")).json() == {"models": []}
        ready = await client.get(w.url + f"/v1/models/{MODEL}")
        assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
