"""The record of a server's answers: made only while fetched, bounded, and readable at the other end."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from canarium_api.metric_names import PredictionStatus
from canarium_runtime.backends.base import Array
from canarium_runtime.shadow import answers, endpoint, wire
from canarium_runtime.shadow.answers import AnswerLog
from canarium_runtime.shadow.records import Page, Tensor

OK = PredictionStatus.SUCCESS
DATATYPES = {"y": "FP32", "label": "BYTES", "n": "INT64"}


def recording(share: float = 1.0) -> AnswerLog:
    log = AnswerLog()
    log.renew(0.0, share)
    return log


def note(log: AnswerLog, request_id: str, *outputs: tuple[str, Array], body: bytes = b"{}") -> None:
    if log.wants(request_id):
        log.record(request_id, body, OK, 0.01, outputs, DATATYPES)


def everything(log: AnswerLog) -> Page:
    return log.page(0, log.incarnation, max_answers=10**6, max_bytes=10**9)


def ids(page: Page) -> list[str]:
    return [a.id for a in page.answers]


def test_a_server_that_nobody_asks_does_not_record() -> None:
    """Recording is off from the start, and off again with nothing kept when the lease is over."""
    log = AnswerLog()
    assert not log.recording
    log.renew(100.0, 1.0)
    note(log, "a")
    assert log.expire(100.0 + answers.LEASE_SECONDS - 1) == 1
    assert log.recording
    assert log.expire(100.0 + answers.LEASE_SECONDS) == 0
    assert not log.recording
    assert ids(everything(log)) == []


def test_each_fetch_goes_on_where_the_one_before_ended() -> None:
    """The first fetch only says where later ones begin; then every answer comes once."""
    log = recording()
    note(log, "before")
    first = log.page(None, "", max_answers=10, max_bytes=10**6)
    assert (ids(first), first.missed) == ([], 0)
    for name in "abc":
        note(log, name)
    page = log.page(first.next, first.incarnation, max_answers=2, max_bytes=10**6)
    assert (ids(page), page.more) == (["a", "b"], True)
    page = log.page(page.next, page.incarnation, max_answers=2, max_bytes=10**6)
    assert (ids(page), page.more, page.missed) == (["c"], False, 0)


def test_a_page_ends_at_its_bound_of_bytes_and_never_is_empty_for_it() -> None:
    """An answer larger than a page is a page of its own."""
    log = recording()
    for name in "abc":
        note(log, name, ("y", np.zeros(1000, np.float32)))
    page = log.page(0, log.incarnation, max_answers=10, max_bytes=10)
    assert (ids(page), page.more) == (["a"], True)


def test_answers_of_a_new_process_are_all_news() -> None:
    """Numbers of another incarnation mean nothing: nothing is skipped, nothing is called missed."""
    log = recording()
    note(log, "a")
    page = log.page(500, "another process", max_answers=10, max_bytes=10**6)
    assert (ids(page), page.missed) == (["a"], 0)


@pytest.mark.parametrize("number", [-5, 0, 10**9])
def test_a_number_out_of_range_is_no_mistake(number: int) -> None:
    """It means the oldest or the newest."""
    log = recording()
    note(log, "a")
    page = log.page(number, log.incarnation, max_answers=10, max_bytes=10**6)
    assert ids(page) == (["a"] if number <= 0 else [])


def test_the_oldest_leave_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """By count and by bytes; a fetch learns how many it missed."""
    monkeypatch.setattr(answers, "CAPACITY", 2)
    log = recording()
    for name in "abc":
        note(log, name)
    page = log.page(0, log.incarnation, max_answers=10, max_bytes=10**6)
    assert (ids(page), page.missed) == (["b", "c"], 1)
    monkeypatch.setattr(answers, "CAPACITY_BYTES", 3000)
    note(log, "d", ("y", np.zeros(500, np.float32)))
    assert ids(everything(log)) == ["d"]


def test_both_sides_record_the_same_share_of_the_requests() -> None:
    """The id alone decides, so two servers choose alike; all are counted as offered."""
    logs = [recording(share=0.25), recording(share=0.25)]
    for log in logs:
        for number in range(2000):
            note(log, f"request-{number}")
    one, other = (ids(everything(log)) for log in logs)
    assert one == other
    assert 400 < len(one) < 600
    assert logs[0].counts.offered == 2000


def test_more_than_the_limit_a_second_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """And counted; the next second is new."""
    monkeypatch.setattr(answers, "ANSWERS_PER_SECOND", 2)
    now = 5.0
    monkeypatch.setattr(answers.time, "monotonic", lambda: now)
    log = recording()
    for name in "abcd":
        note(log, name)
    now = 6.0
    note(log, "e")
    assert (ids(everything(log)), log.counts.limited) == (["a", "b", "e"], 2)


def test_a_request_without_an_id_is_counted_only() -> None:
    """There is nothing to pair it by."""
    log = recording()
    note(log, "")
    assert (ids(everything(log)), log.counts.unidentified) == ([], 1)


def test_what_cannot_be_recorded_harms_nobody() -> None:
    """Strings that are no UTF-8 are counted, and nothing is raised."""
    log = recording()
    note(log, "a", ("label", np.array(["\ud800"], object)))
    note(log, "b")
    assert (ids(everything(log)), log.counts.broken) == (["b"], 1)


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        pytest.param("FP32", np.array([[1.5, math.nan], [math.inf, -0.0]], np.float32), id="nan"),
        pytest.param("FP16", np.array([0.1], np.float16), id="half"),
        pytest.param("INT64", np.array([2**63 - 1, -1]), id="integers"),
        pytest.param("BOOL", np.array([[True], [False]]), id="booleans"),
        pytest.param("FP64", np.array(3.25), id="no axes"),
        pytest.param("FP32", np.zeros((0, 3), np.float32), id="no rows"),
        pytest.param("FP32", np.arange(12, dtype=np.float32).reshape(3, 4).T, id="transposed"),
        pytest.param("BYTES", np.array([["ä", ""], ["x", "\n"]], object), id="strings"),
    ],
)
def test_outputs_survive_the_wire(datatype: str, array: Array) -> None:
    """Elements, shape and datatype are the same at the other end."""
    log = recording()
    log.record("a", b"body", OK, 0.25, [("y", array), ("z", array)], {"y": datatype, "z": datatype})
    page = wire.decode(wire.encode(everything(log)))
    assert page.answers == everything(log).answers
    for tensor in page.answers[0].outputs:
        assert (tensor.datatype, tensor.shape) == (datatype, array.shape)
        np.testing.assert_array_equal(array, wire.array_of(tensor))


def test_a_failure_survives_the_wire() -> None:
    """A request that was refused before its body was read has neither."""
    log = recording()
    log.record("a", None, PredictionStatus.REJECTED, 0.0)
    answer = wire.decode(wire.encode(everything(log))).answers[0]
    assert (answer.body, answer.status, answer.outputs) == (None, PredictionStatus.REJECTED, [])


def test_large_outputs_are_recorded_as_a_digest_and_the_largest_not_at_all() -> None:
    """Equal elements give equal digests."""
    log = recording()
    large, largest = np.zeros(50_000, np.float32), np.zeros(500_000, np.float32)
    changed = large.copy()
    changed[7] = 1
    note(log, "a", ("y", large))
    note(log, "b", ("y", large.copy()))
    note(log, "c", ("y", changed))
    note(log, "d", ("y", largest))
    note(log, "e", ("label", np.full(10_000, "x", object)))
    tensors = [a.outputs[0] for a in everything(log).answers]
    assert [t.data for t in tensors] == [None] * 5
    assert tensors[0].digest == tensors[1].digest != tensors[2].digest
    assert [t.digest for t in tensors[3:]] == [None, None]
    assert tensors[0].digest is not None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="no end of line"),
        pytest.param(b"{}\n", id="no fields"),
        pytest.param(b"[1]\n", id="a list"),
        pytest.param(b"\xff\n", id="no text"),
    ],
)
def test_what_is_no_page_is_refused(content: bytes) -> None:
    """With an error of our own."""
    with pytest.raises(wire.WireError):
        wire.decode(content)


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(Tensor("y", "FP32", (2,), b"1234"), id="too few bytes"),
        pytest.param(Tensor("y", "FP99", (1,), b"1234"), id="unknown datatype"),
        pytest.param(Tensor("y", "BYTES", (2,), b'["a"]'), id="too few strings"),
        pytest.param(Tensor("y", "BYTES", (1,), b"{"), id="no JSON"),
        pytest.param(Tensor("y", "BYTES", (1,), b'[{"a": 1}]'), id="no strings"),
        pytest.param(Tensor("y", "BYTES", (1,), b'"a"'), id="no array"),
        pytest.param(Tensor("y", "FP32", (0, 2**62, 2**62), b""), id="a size that overflows"),
    ],
)
def test_elements_that_do_not_fit_are_refused(tensor: Tensor) -> None:
    """Nothing unchecked reaches the comparison."""
    log = recording()
    note(log, "a")
    page = everything(log)
    page.answers[0].outputs.append(tensor)
    with pytest.raises(wire.WireError):
        wire.decode(wire.encode(page))


def test_bytes_after_the_elements_are_refused() -> None:
    """They would be somebody's elements."""
    log = recording()
    note(log, "a", ("y", np.ones(1, np.float32)))
    with pytest.raises(wire.WireError, match="expected 4 bytes"):
        wire.decode(wire.encode(everything(log)) + b"1")


async def call(
    app: endpoint.AnswersEndpoint,
    query: str = "share=1",
    *,
    path: str = endpoint.PATH,
    method: str = "GET",
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "headers": list(headers),
        "query_string": query.encode(),
    }
    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        pytest.param("share=1", 200, id="the first fetch"),
        pytest.param("", 200, id="all of the requests unless told otherwise"),
        pytest.param("share=0.5&since=3&incarnation=x", 200, id="a later one"),
        pytest.param("share=0", 400, id="none"),
        pytest.param("share=2", 400, id="more than all"),
        pytest.param("share=nan", 400, id="not a number"),
        pytest.param("share=much", 400, id="a word"),
        pytest.param("since=-1", 400, id="a number below 0"),
        pytest.param("since=99999999999999999999", 400, id="a number too large"),
        pytest.param("&".join("share=1" for _ in range(50)), 400, id="too many fields"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(query: str, status: int) -> None:
    """And turns nothing on."""
    log = AnswerLog()
    app = endpoint.AnswersEndpoint(log, None)
    assert (await call(app, query))[0] == status
    assert log.recording is (status == 200)
    app.close()
    assert not log.recording


async def test_only_one_path_and_one_method_exist() -> None:
    """All others are refused in words."""
    app = endpoint.AnswersEndpoint(AnswerLog(), None)
    assert (await call(app, path="/metrics"))[0] == 404
    assert (await call(app, method="POST"))[0] == 405


async def test_answers_are_for_those_who_know_the_token(tmp_path: Path) -> None:
    """Where a token is asked for: none, a wrong one, an unreadable file and an empty one let nobody in."""
    file = tmp_path / "token"
    log = AnswerLog()
    app = endpoint.AnswersEndpoint(log, str(file))
    right = [(b"authorization", b"Bearer secret")]
    assert (await call(app, headers=right))[0] == 401
    file.write_text("\n")
    assert (await call(app, headers=[(b"authorization", b"Bearer ")]))[0] == 401
    file.write_text("secret\n")
    assert (await call(app))[0] == 401
    assert (await call(app, headers=[(b"authorization", b"Bearer other")]))[0] == 401
    assert not log.recording
    assert (await call(app, headers=right))[0] == 200
    assert log.recording
    app.close()
