"""Clients of the soak test. Each knows what it must be answered; what is not so is counted by its kind."""

import asyncio
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

HOST = "127.0.0.1"
TIMEOUT_SECONDS = 30
MOST = 2**24
"""Numbers below it are exact in float32."""
_HOT = 50
"""So many numbers come again and again: hits of a cache."""
_MOST_ROWS = 40
"""More than fit into one batch."""
_INFER = "/v2/models/m/infer"


class FaultError(Exception):
    """Something that must not happen; the kind and what was seen."""

    def __init__(self, kind: str, seen: str) -> None:
        super().__init__(f"{kind}: {seen}")
        self.kind = kind


@dataclass
class Tally:
    """What all clients saw."""

    right: Counter[str] = field(default_factory=Counter)
    """Right answers, by client."""
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    """The first few faults in words."""

    def blame(self, client: str, fault: FaultError) -> None:
        """Count a fault."""
        self.faults[fault.kind] += 1
        if len(self.examples) < 20:
            self.examples.append(f"{client}: {fault}")


@dataclass(frozen=True)
class Question:
    """A request and its only right answer."""

    data: bytes
    status: int
    numbers: tuple[int, ...] = ()
    id: str = ""


class Questions:
    """Makes requests: each number n is sent as (n mod 10, n div 10), and the model gives n again.

    Args:
        seed: of the choices.
        binary: whether the server reads binary tensors.
    """

    def __init__(self, seed: int, binary: bool) -> None:
        self._random = random.Random(seed)
        self._numbers = count(_HOT + seed * 1_000_003)
        kinds = [self._v2, self._predict, self._wrong]
        self._kinds = [*kinds, self._binary] if binary else kinds
        self._weights = [6, 6, 1, 6][: len(self._kinds)]

    def next(self) -> Question:
        """Make a request of some kind."""
        (make,) = self._random.choices(self._kinds, self._weights)
        if self._random.random() < 0.2:
            numbers = [self._random.randrange(_HOT)]
        else:
            rows = self._random.choice((1, 1, 1, 2, 5, _MOST_ROWS))
            numbers = [next(self._numbers) % MOST for _ in range(rows)]
        return make(numbers, f"q{self._random.getrandbits(60):x}")

    def _v2(self, numbers: list[int], id_: str) -> Question:
        data = [value for n in numbers for value in (n % 10, n // 10)]
        tensor = {"name": "x", "shape": [len(numbers), 2], "datatype": "FP32", "data": data}
        body = json.dumps({"id": id_, "inputs": [tensor]}).encode()
        return Question(_http(_INFER, body), 200, tuple(numbers), id_)

    def _predict(self, numbers: list[int], id_: str) -> Question:
        rows = [[n % 10, n // 10] for n in numbers]
        body = json.dumps({"id": id_, "instances": rows}).encode()
        return Question(_http("/predict", body), 200, tuple(numbers), id_)

    def _binary(self, numbers: list[int], id_: str) -> Question:
        values = [value for n in numbers for value in (n % 10, n // 10)]
        data = struct.pack(f"<{len(values)}f", *values)
        tensor = {
            "name": "x",
            "shape": [len(numbers), 2],
            "datatype": "FP32",
            "parameters": {"binary_data_size": len(data)},
        }
        head = json.dumps({"id": id_, "inputs": [tensor]}).encode()
        extra = f"inference-header-content-length: {len(head)}\r\n"
        return Question(_http(_INFER, head + data, extra), 200, tuple(numbers), id_)

    def _wrong(self, numbers: list[int], id_: str) -> Question:
        body = json.dumps({"id": id_, "instances": [["x", None] for _ in numbers]}).encode()
        return Question(_http("/predict", body), 422)


def _http(path: str, body: bytes, extra: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: soak\r\ncontent-type: application/json\r\n{extra}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Connection:
    """A kept connection. Bytes that nobody asked for are a doubled answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect."""
        return cls(*await asyncio.open_connection(HOST, port))

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def expect(self, question: Question) -> None:
        """Read one answer and compare it."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                head = await self.reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await self.reader.readexactly(length)
        except TimeoutError as error:
            raise FaultError("lost", f"no answer within {TIMEOUT_SECONDS} s") from error
        except (asyncio.IncompleteReadError, OSError) as error:
            raise FaultError("lost", f"the connection ended: {error}") from error
        except (ValueError, IndexError) as error:
            raise FaultError("garbled", repr(head[:80])) from error
        compare(question, status, body)

    def close(self, abruptly: bool = False) -> None:
        """Close; abruptly: with a reset."""
        if abruptly:
            linger = struct.pack("ii", 1, 0)
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.close()


def compare(question: Question, status: int, body: bytes) -> None:
    """Raise what is wrong with an answer."""
    if status != question.status:
        raise FaultError(f"status {status}", f"not {question.status}: {body[:120]!r}")
    if status != 200:
        return
    answer = json.loads(body)
    outputs = answer["outputs"]
    got = outputs[0]["data"] if isinstance(outputs, list) else [row[0] for row in outputs["y"]]
    if answer.get("id") != question.id or got != list(question.numbers):
        kind = "swapped" if got != list(question.numbers) else "wrong id"
        raise FaultError(
            kind,
            f"{got[:3]} with {answer.get('id')}, not {question.numbers[:3]} with {question.id}",
        )


Ask = Callable[[Connection, Questions, random.Random], Awaitable[int]]
"""One turn of a client on its connection; how many answers it got. 0: the connection was given up on purpose."""


async def steady(connection: Connection, questions: Questions, chance: random.Random) -> int:
    """Ask and wait."""
    question = questions.next()
    await connection.send(question.data)
    await connection.expect(question)
    return 1


async def pipelining(connection: Connection, questions: Questions, chance: random.Random) -> int:
    """Ask several times at once; answers must come in order."""
    asked = [questions.next() for _ in range(chance.randint(2, 6))]
    await connection.send(b"".join(question.data for question in asked))
    for question in asked:
        await connection.expect(question)
    return len(asked)


async def slow(connection: Connection, questions: Questions, chance: random.Random) -> int:
    """Send in pieces, with pauses."""
    question = questions.next()
    data = question.data
    cuts = sorted(chance.sample(range(1, len(data)), 3))
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        await connection.send(data[begin:end])
        await asyncio.sleep(0.05)  # this is what a slow sender does
    await connection.expect(question)
    return 1


async def leave_in_body(connection: Connection, questions: Questions, chance: random.Random) -> int:
    """Vanish before all is sent."""
    data = questions.next().data
    await connection.send(data[: chance.randrange(1, len(data))])
    connection.close(abruptly=chance.random() < 0.5)
    return 0


async def leave_waiting(connection: Connection, questions: Questions, chance: random.Random) -> int:
    """Vanish before the answer."""
    await connection.send(questions.next().data)
    if chance.random() < 0.5:
        await asyncio.sleep(0.002)  # while it is computed, not before it is read
    connection.close(abruptly=chance.random() < 0.5)
    return 0


async def client(
    name: str, turn: Ask, port: int, questions: Questions, tally: Tally, until: asyncio.Event
) -> None:
    """Take turns until told to end, with a new connection after a fault or a farewell."""
    chance = random.Random(name)
    connection: Connection | None = None
    while not until.is_set():
        try:
            connection = connection or await Connection.open(port)
            answers = await turn(connection, questions, chance)
            tally.right[name.partition("-")[0]] += answers
            if not answers:
                tally.right["left"] += 1
                connection = None
                await asyncio.sleep(0.01)
        except FaultError as fault:
            tally.blame(name, fault)
            _drop(connection)
            connection = None
        except OSError as error:
            tally.blame(name, FaultError("lost", f"the connection failed: {error}"))
            _drop(connection)
            connection = None
            await asyncio.sleep(0.1)
    if connection is not None:
        with suppress(TimeoutError):  # what comes now was not asked for
            extra = await asyncio.wait_for(connection.reader.read(1), 0.3)
            if extra:
                tally.blame(name, FaultError("doubled", repr(extra)))
        connection.close()


def _drop(connection: Connection | None) -> None:
    if connection is not None:
        connection.close(abruptly=True)
