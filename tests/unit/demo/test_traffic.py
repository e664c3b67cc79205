"""The client: what it makes of answers, good and bad, from a gateway played by the test."""

import asyncio
import json
from collections.abc import AsyncIterator

import numpy as np
import pytest

from canarium_demo.errors import DemoError
from canarium_demo.models import Digits
from canarium_demo.tally import UNANSWERED, Tally
from canarium_demo.traffic import Traffic, samples_of

SEVEN = json.dumps({"outputs": {"label": [7]}}).encode()


class Gateway:
    """Gives one answer to every request, and notes what came."""

    def __init__(self) -> None:
        self.status, self.body, self.revision = 200, SEVEN, "aaaa"
        self.hosts: set[str] = set()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        headers = dict(line.split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
        await reader.readexactly(int(headers["content-length"]))
        self.hosts.add(headers["host"])
        if self.status != UNANSWERED:
            revision = f"x-canarium-revision: {self.revision}\r\n" if self.revision else ""
            writer.write(
                f"HTTP/1.1 {self.status} X\r\ncontent-length: {len(self.body)}\r\n{revision}"
                "connection: close\r\n\r\n".encode()
                + self.body
            )
            await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield made


def traffic(gateway: Gateway, tally: Tally, label: int = 7) -> Traffic:
    pixels = np.zeros((1, 64), np.float32)
    labels = np.array([label])
    data = Digits(train=pixels, train_labels=labels, held_out=pixels, held_out_labels=labels)
    return Traffic(gateway.url, "digits.example.com", samples_of(data), tally)


HANDFUL = 5


async def a_moment(gateway: Gateway, label: int = 7) -> Tally:
    """Let requests flow until a handful is answered, however busy the machine is."""
    tally = Tally()
    async with traffic(gateway, tally, label).flowing(), asyncio.timeout(60):
        while tally.requests <= HANDFUL:  # noqa: ASYNC110 - a tally is counted by threads and sets no event
            await asyncio.sleep(0.01)
    return tally


async def test_good_answers_are_counted_with_who_gave_them(gateway: Gateway) -> None:
    """The Host header chooses the route; the digit is compared with the truth."""
    tally = await a_moment(gateway)
    assert tally.requests > HANDFUL
    assert tally.failed == 0
    assert tally.accuracy("aaaa") == 1.0
    assert gateway.hosts == {"digits.example.com"}


async def test_a_wrong_digit_is_an_answer_but_not_a_right_one(gateway: Gateway) -> None:
    """Accuracy is for the models, failures are for the platform."""
    tally = await a_moment(gateway, label=3)
    assert tally.failed == 0
    assert tally.accuracy("aaaa") == 0.0


@pytest.mark.parametrize(
    ("status", "revision", "body"),
    [(500, "aaaa", b"{}"), (502, "", b"Bad Gateway"), (UNANSWERED, "", b"")],
)
async def test_failures_keep_their_status_and_who_gave_them(
    gateway: Gateway, status: int, revision: str, body: bytes
) -> None:
    """Whose fault it was is read from these two."""
    gateway.status, gateway.revision, gateway.body = status, revision, body
    tally = await a_moment(gateway)
    assert set(tally.by_status) == {(revision, status)}


async def test_a_good_status_with_something_else_inside_is_no_answer(gateway: Gateway) -> None:
    """Such as a page of whoever else listens there."""
    gateway.body, gateway.revision = b"<html>", ""
    tally = await a_moment(gateway)
    assert set(tally.by_status) == {("", UNANSWERED)}


async def test_the_first_good_answer_is_awaited_with_an_end(gateway: Gateway) -> None:
    """The message quotes the latest answer."""
    gateway.status, gateway.body = 404, b"404 page not found"
    tally = Tally()
    with pytest.raises(DemoError, match=r"within 0 s; the latest: 404 404 page not found"):
        await traffic(gateway, tally).wait_until_served(0.1)
    assert tally.requests == 0
