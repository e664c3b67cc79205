"""Servers and the comparer in one process: what is recorded of requests, and rounds against pods that do anything."""

import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.types import Receive, Scope, Send

from canarium_api.metric_names import ShadowDropped, ShadowMismatch, ShadowOutcome, ShadowSide
from canarium_api.shadow_config import ShadowConfig
from canarium_runtime.app import create_app
from canarium_runtime.rest import http as rest_http
from canarium_runtime.rest.endpoints import Predictor
from canarium_runtime.service import InferenceService
from canarium_runtime.shadow import answers, comparer, puller, targets
from canarium_runtime.shadow.__main__ import StatusApp
from canarium_runtime.shadow.answers import AnswerLog
from canarium_runtime.shadow.comparer import Comparer, next_share
from canarium_runtime.shadow.endpoint import AnswersEndpoint
from canarium_runtime.shadow.records import Answer
from canarium_runtime.testing import FakeBackend, make_models

INFER = "/v2/models/model/infer"
V2_ROW = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
ROW = {"instances": [[1, 2]]}
STABLE, SHADOW = ShadowSide.STABLE, ShadowSide.SHADOW


class Pod:
    """A server, and the port where it offers its answers."""

    def __init__(self, backend: FakeBackend | None = None) -> None:
        models = make_models(backend or FakeBackend())
        self.service: InferenceService = models.primary
        self.endpoint = AnswersEndpoint(self.service.answers, None)
        app = create_app(self.service.config, Predictor(models))
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://server"
        )

    async def post(self, body: Any = ROW, path: str = "/predict", **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, json=body, headers=names)

    def recorded(self) -> list[Answer]:
        log = self.service.answers
        page = log.page(0, log.incarnation, max_answers=1000, max_bytes=10**9)
        return list(page.answers)

    async def close(self) -> None:
        await self.client.aclose()
        self.endpoint.close()
        self.service.close()


class Network(httpx.AsyncBaseTransport):
    """Ports of the loopback with an ASGI application, an answer or an error behind each."""

    def __init__(self) -> None:
        self.apps: dict[int, Any] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        app = self.apps.get(request.url.port or 80)
        if app is None:
            raise httpx.ConnectError("refused", request=request)
        return await httpx.ASGITransport(app).handle_async_request(request)


class World:
    """Two pods, a comparer, and a gateway that mirrors."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.file = directory / "targets.json"
        self.stable, self.shadow = Pod(), Pod()
        self.network = Network()
        self.network.apps = {1001: self.stable.endpoint, 2001: self.shadow.endpoint}
        self.write(stable=[1001], shadow=[2001])
        self.client = httpx.AsyncClient(transport=self.network)
        # Rounds follow one another at once here, which looks like a thousand requests a second.
        settings = {"answers_per_second": 10_000, **settings}
        config = ShadowConfig(
            targets_file=str(self.file), deployment="ns/name", revision="r2", **settings
        )
        self.comparer = Comparer(config, self.client)
        self.report = self.comparer.report

    def write(self, **ports: list[int]) -> None:
        sides = {s: [f"http://127.0.0.1:{p}" for p in several] for s, several in ports.items()}
        self.file.write_text(json.dumps(sides))

    async def send(self, number: int, body: Any = ROW) -> httpx.Response:
        await self.shadow.post(body, x_request_id=f"r{number}")
        return await self.stable.post(body, x_request_id=f"r{number}")


@pytest.fixture
async def worlds(tmp_path: Path) -> AsyncIterator[Callable[..., World]]:
    made: list[World] = []

    def make(**settings: Any) -> World:
        made.append(World(tmp_path, **settings))
        return made[-1]

    yield make
    for world in made:
        for pod in (world.stable, world.shadow):
            await pod.close()
        await world.client.aclose()


@pytest.fixture
async def pod() -> AsyncIterator[Pod]:
    pod = Pod()
    pod.service.answers.renew(0.0, 1.0)
    yield pod
    await pod.close()


@pytest.mark.parametrize(
    ("path", "body", "header", "recorded"),
    [
        pytest.param("/predict", ROW, "h", "h", id="the header"),
        pytest.param(INFER, {"id": "b", **V2_ROW}, "h", "h", id="the header before the body"),
        pytest.param(INFER, {"id": "b", **V2_ROW}, None, "b", id="the body without a header"),
        pytest.param("/predict", {"id": "b", **ROW}, None, "b", id="in both protocols"),
        pytest.param("/predict", ROW, None, None, id="neither: nothing to pair by"),
        pytest.param("/predict", ROW, "not visible", None, id="a header that is no id"),
    ],
)
async def test_the_id_that_both_copies_carry_is_recorded(
    pod: Pod, path: str, body: Any, header: str | None, recorded: str | None
) -> None:
    """Never one that the server made up: the other side would have made up another."""
    headers = {"x_request_id": header} if header else {}
    assert (await pod.post(body, path, **headers)).status_code == 200
    assert [a.id for a in pod.recorded()] == ([recorded] if recorded else [])
    assert pod.service.answers.counts.unidentified == (not recorded)


@pytest.mark.parametrize(
    ("body", "status", "recorded", "has_body"),
    [
        pytest.param(ROW, 200, "success", True, id="answered"),
        pytest.param({"instances": [["x", 1]]}, 422, "invalid", True, id="does not fit"),
        pytest.param({"instances": [[1e30, 1e30]]}, 200, "success", True, id="large numbers"),
        pytest.param({}, 400, "invalid", True, id="no shape"),
    ],
)
async def test_every_end_of_a_request_is_recorded(
    pod: Pod, body: Any, status: int, recorded: str, has_body: bool
) -> None:
    """Refusals too: that the shadow refuses what stable takes is a difference."""
    assert (await pod.post(body, x_request_id="a")).status_code == status
    (answer,) = pod.recorded()
    assert (answer.status, answer.body is not None) == (recorded, has_body)
    assert answer.seconds > 0
    assert [t.name for t in answer.outputs] == (["y"] if status == 200 else [])


async def test_a_request_that_is_refused_at_the_door_is_recorded_without_a_body(pod: Pod) -> None:
    """A server that stops reads no bodies."""
    pod.service.terminate()
    pod.service.stop()
    assert (await pod.post(x_request_id="a")).status_code == 503
    (answer,) = pod.recorded()
    assert (answer.status, answer.body) == ("rejected", None)


async def test_without_a_comparer_nothing_is_recorded() -> None:
    """Not even counted."""
    pod = Pod()
    await pod.post(x_request_id="a")
    assert (pod.recorded(), pod.service.answers.counts.offered) == ([], 0)
    await pod.close()


async def test_answers_are_not_among_the_routes_of_clients(pod: Pod) -> None:
    """What the gateway sends to the server's port finds nothing there."""
    response = await pod.client.get("/canarium/v1/answers")
    assert response.status_code == 404


async def test_a_round_compares_what_both_sides_answered(worlds: Callable[..., World]) -> None:
    """The first round turns recording on; then each request is a pair, with its latency on both sides."""
    w = worlds()
    await w.send(0)
    assert await w.comparer.round() == ""
    for number in range(1, 11):
        await w.send(number)
    assert await w.comparer.round() == ""
    assert w.report.pairs[ShadowOutcome.COMPARED] == 10
    assert w.report.mismatched_pairs == 0
    assert w.report.answers == {STABLE: 10, SHADOW: 10}
    assert all(seconds > 0 for seconds in w.report.latency_seconds.values())
    assert w.report.outputs["y"].rows == 10


async def test_a_difference_is_counted_by_its_kind(worlds: Callable[..., World]) -> None:
    """Another answer, a refusal of the shadow alone, and one of both."""
    w = worlds(absolute_tolerance=0.5, relative_tolerance=0)
    w.shadow.service._backend._compute = lambda inputs: [  # type: ignore[union-attr]
        np.where(inputs["x"].sum(axis=1) > 10, 0, inputs["x"].sum(axis=1) + 0.25).astype(np.float32)
    ]
    await w.comparer.round()
    await w.send(1)
    await w.send(2, {"instances": [[10, 20]]})
    await w.send(3, {"instances": [["x", 1]]})
    w.shadow.service.terminate()
    w.shadow.service.stop()
    await w.send(4)
    await w.comparer.round()
    assert {o: n for o, n in w.report.pairs.items() if n} == {
        ShadowOutcome.COMPARED: 2,
        ShadowOutcome.BOTH_FAILED: 1,
        ShadowOutcome.SHADOW_FAILED: 1,
    }
    assert {k: n for k, n in w.report.mismatches.items() if n} == {
        ShadowMismatch.EXACT: 2,
        ShadowMismatch.TOLERANCE: 1,
        ShadowMismatch.STATUS: 1,
    }
    assert w.report.mismatched_pairs == 2
    assert w.report.outputs["y"].max_absolute == 30


async def test_a_pod_that_is_gone_stops_nothing(worlds: Callable[..., World]) -> None:
    """It is counted, said in words, and the others are compared; when it is back it is found again."""
    w = worlds()
    w.write(stable=[1001, 1002], shadow=[2001])
    await w.comparer.round()
    await w.send(1)
    assert await w.comparer.round() == ""
    assert (w.report.pull_failures[STABLE], w.report.targets[STABLE]) == (2, 1)
    assert w.report.pairs[ShadowOutcome.COMPARED] == 1
    del w.network.apps[2001]
    assert await w.comparer.round() == (
        "no pods of shadow were reached: http://127.0.0.1:2001: ConnectError"
    )
    w.network.apps[2001] = w.shadow.endpoint
    await w.send(2)
    assert await w.comparer.round() == ""
    assert w.report.pairs[ShadowOutcome.COMPARED] == 2


async def test_pods_that_come_and_go_are_read_from_the_file(worlds: Callable[..., World]) -> None:
    """A new pod is asked from the next round on."""
    w = worlds()
    w.write(stable=[1001], shadow=[])
    assert "no pods of shadow" in await w.comparer.round()
    w.write(stable=[1001], shadow=[2001])
    await w.comparer.round()
    await w.send(1)
    await w.comparer.round()
    assert w.report.pairs[ShadowOutcome.COMPARED] == 1


async def test_a_pod_that_restarted_under_its_address_is_counted_anew(
    worlds: Callable[..., World],
) -> None:
    """Its counts begin at 0 again, and ours do not go back."""
    w = worlds()
    await w.comparer.round()
    await w.send(1)
    await w.stable.post()  # without an id
    await w.comparer.round()
    assert w.report.dropped[STABLE, ShadowDropped.UNIDENTIFIED] == 1
    await w.stable.close()
    w.stable = Pod()
    w.network.apps[1001] = w.stable.endpoint
    await w.comparer.round()
    await w.send(2)
    await w.comparer.round()
    assert w.report.pairs[ShadowOutcome.COMPARED] == 2
    assert w.report.dropped[STABLE, ShadowDropped.UNIDENTIFIED] == 1


async def test_a_comparer_that_comes_late_learns_what_it_missed(
    worlds: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pods keep the latest answers only; the others are counted as overwritten."""
    monkeypatch.setattr(answers, "CAPACITY", 5)
    w = worlds()
    await w.comparer.round()
    for number in range(8):
        await w.send(number)
    await w.comparer.round()
    assert w.report.pairs[ShadowOutcome.COMPARED] == 5
    assert w.report.dropped[STABLE, ShadowDropped.OVERWRITTEN] == 3


async def test_more_than_one_page_is_fetched_in_a_round(worlds: Callable[..., World]) -> None:
    """Up to the bound of pages, each of at most 256 answers."""
    w = worlds()
    await w.comparer.round()
    for number in range(600):
        for pod in (w.stable, w.shadow):
            log = pod.service.answers
            log.record(f"r{number}", b"", answers.PredictionStatus.SUCCESS, 0.1)
    await w.comparer.round()
    assert w.report.answers == {STABLE: 600, SHADOW: 600}


def says(status: int, body: bytes) -> Callable[[Scope, Receive, Send], Any]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await rest_http.send_answer(send, rest_http.Answer(status, body))

    return app


@pytest.mark.parametrize(
    ("app", "problem"),
    [
        pytest.param(says(200, b"<html>"), "sent no page of answers", id="another server"),
        pytest.param(says(401, b"{}"), "answered 401", id="a token that is not ours"),
        pytest.param(says(200, b"x" * 2000), "more than 1000 bytes", id="endless"),
        pytest.param(None, "ConnectError", id="nobody"),
    ],
)
async def test_a_pod_that_answers_nonsense_is_a_failed_fetch(
    worlds: Callable[..., World], app: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that a pod says ends the comparer."""
    w = worlds()
    monkeypatch.setattr(puller, "MAX_PAGE_BYTES", 1000)
    w.network.apps[2001] = app
    assert problem in await w.comparer.round()
    assert w.report.pull_failures == {STABLE: 0, SHADOW: 1}


async def test_a_pod_that_hangs_costs_one_timeout(
    worlds: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slowly it sends."""
    w = worlds()
    monkeypatch.setattr(puller, "TIMEOUT_SECONDS", 0.01)

    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await comparer.asyncio.Event().wait()

    w.network.apps[2001] = hangs
    assert "TimeoutError" in await w.comparer.round()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(None, "cannot be read: No such file", id="no file"),
        pytest.param("{", "Invalid JSON", id="no JSON"),
        pytest.param('{"stable": ["https://a"]}', "stable.0: String should match", id="no address"),
        pytest.param('{"stable": ["http://u:p@a:1"]}', "stable.0", id="a password"),
    ],
)
async def test_a_targets_file_that_cannot_be_used_is_said(
    worlds: Callable[..., World], content: str | None, problem: str
) -> None:
    """With the place and the reason; the rounds go on."""
    w = worlds()
    if content is None:
        w.file.unlink()
    else:
        w.file.write_text(content)
    with pytest.raises(targets.TargetsError, match=problem):
        await w.comparer.round()


async def test_a_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the name of a headless Service stands for its pods; one that is unknown stands for none."""

    async def addresses(url: str) -> list[str]:
        known = {"http://stable:8081": ["http://10.0.0.2:8081", "http://10.0.0.1:8081"]}
        return known.get(url, [])

    monkeypatch.setattr(targets, "_addresses", addresses)
    wanted = targets.Targets(stable=["http://stable:8081"], shadow=["http://unknown:8081"])
    assert await targets.resolve(wanted) == [
        (STABLE, "http://10.0.0.1:8081"),
        (STABLE, "http://10.0.0.2:8081"),
    ]


async def test_addresses_resolve_to_themselves() -> None:
    """Of both families."""
    wanted = targets.Targets(stable=["http://127.0.0.1:1", "http://[::1]:2"])
    assert {url for _, url in await targets.resolve(wanted)} == set(wanted.stable)


@pytest.mark.parametrize(
    ("share", "rate", "wanted", "expected"),
    [
        (1.0, 0.0, 200, 1.0),
        (1.0, 150.0, 200, 1.0),
        (1.0, 1000.0, 200, 0.2),
        (0.2, 1100.0, 200, 0.2),
        (0.2, 4000.0, 200, 0.05),
        (0.2, 500.0, 200, 0.4),
        (0.9, 100.0, 200, 1.0),
        (1.0, 210.0, 200, 1.0),
    ],
)
def test_the_share_follows_the_traffic(
    share: float, rate: float, wanted: float, expected: float
) -> None:
    """And is left alone while it is nearly right."""
    assert next_share(share, rate, wanted) == pytest.approx(expected)


async def test_the_share_reaches_the_pods(worlds: Callable[..., World]) -> None:
    """Much traffic: from the next round on, fewer requests are recorded, the same on both sides."""
    w = worlds(answers_per_second=0.001)
    await w.comparer.round()
    for number in range(50):
        await w.send(number)
    await w.comparer.round()
    assert w.report.sample_share < 0.01
    await w.comparer.round()
    for number in range(50, 100):
        await w.send(number)
    before = dict(w.report.answers)
    await w.comparer.round()
    assert w.report.answers[STABLE] - before[STABLE] == w.report.answers[SHADOW] - before[SHADOW]
    assert w.report.answers[STABLE] - before[STABLE] < 10


async def test_the_status_pages_say_how_it_stands(worlds: Callable[..., World]) -> None:
    """Alive but not ready before the first round; metrics carry the identity, and 0 from the start."""
    w = worlds()
    app = StatusApp(w.comparer)
    assert [app.answer(p).status for p in ("/health/live", "/health/ready", "/health", "/x")] == [
        200,
        503,
        503,
        404,
    ]
    assert b"no round was finished yet" in app.answer("/health").body
    text = app.answer("/metrics").body.decode()
    for line in (
        'ml_shadow_pairs_total{deployment="ns/name",outcome="compared",revision="r2"} 0.0',
        'ml_shadow_mismatches_total{deployment="ns/name",kind="flip",revision="r2"} 0.0',
        'ml_shadow_mismatched_pairs_total{deployment="ns/name",revision="r2"} 0.0',
        'ml_shadow_sample_share{deployment="ns/name",revision="r2"} 1.0',
    ):
        assert line in text
    assert "ml_shadow_psi{" not in text


async def test_outputs_have_gauges_when_there_is_evidence(worlds: Callable[..., World]) -> None:
    """After 200 rows: nothing moved, and the ranking held."""
    w = worlds()
    await w.comparer.round()
    for number in range(4):
        rows = [[number * 64 + i, i % 7] for i in range(64)]
        await w.send(number, {"instances": rows})
    await w.comparer.round()
    text = w.report.render().decode()
    assert 'ml_shadow_psi{deployment="ns/name",output="y",revision="r2"} 0.0' in text
    assert 'ml_shadow_rank_correlation{deployment="ns/name",output="y",revision="r2"} 1' in text


async def test_outputs_beyond_the_bound_are_judged_and_not_told_apart(
    worlds: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels of metrics are bounded, whatever names a model's outputs have."""
    monkeypatch.setattr("canarium_runtime.shadow.report.MAX_OUTPUTS", 0)
    w = worlds()
    await w.comparer.round()
    await w.send(1)
    await w.comparer.round()
    assert (w.report.outputs, w.report.pairs[ShadowOutcome.COMPARED]) == ({}, 1)


async def test_the_loop_says_a_problem_once_and_goes_on(
    worlds: Callable[..., World], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No file, then a good one: two changes in the log, and ready."""
    w = worlds(pull_interval="1s")
    content = w.file.read_text()
    w.file.unlink()
    rounds = 0

    class DoneError(Exception):
        pass

    async def sleep(_: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            w.file.write_text(content)
        if rounds == 4:
            raise DoneError

    monkeypatch.setattr(comparer.asyncio, "sleep", sleep)
    with caplog.at_level(logging.INFO), pytest.raises(DoneError):
        await w.comparer.run()
    problems = [r.problem for r in caplog.records if r.message == "state changed"]
    assert [bool(p) for p in problems] == [True, False]
    assert w.comparer.ready


async def test_recording_ends_when_nobody_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer of the last fetch frees what was kept."""
    monkeypatch.setattr(answers, "LEASE_SECONDS", 0.01)
    log = AnswerLog()
    app = AnswersEndpoint(log, None)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as client:
        assert (await client.get("/canarium/v1/answers")).status_code == 200
    assert log.recording
    log.record("a", b"", answers.PredictionStatus.SUCCESS, 0.1)
    ended = comparer.asyncio.Event()
    monkeypatch.setattr("canarium_runtime.shadow.endpoint._log.info", lambda *_: ended.set())
    await ended.wait()
    assert not log.recording
    assert log.page(0, log.incarnation, max_answers=1, max_bytes=1).answers == []
