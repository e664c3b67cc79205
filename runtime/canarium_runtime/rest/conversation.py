"""Several predictions under way for one connection, answered in the order in which they finish: the core of WebSocket
and of gRPC's streams, which differ in how messages are read and written.

    conversation = Conversation(write, limit)
    await conversation.room()              until another may begin: whoever does not read answers is not read either
    conversation.begin(exchange_of, body, message_of)
    await conversation.finished()          everything is answered, and written
    await conversation.close()             the client has gone; also the end of every other conversation
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from canarium_runtime.errors import ServingError
from canarium_runtime.rest.exchange import Exchange, Reply

Message = TypeVar("Message")
MakeExchange = Callable[[Callable[[Reply], None]], Exchange]


class Conversation(Generic[Message]):
    """See the module. Make it on the event loop.

    Args:
        write: sends one message; waits while the client does not read.
        limit: most requests that are under way or whose answers are not written.
    """

    def __init__(self, write: Callable[[Message], Awaitable[None]], limit: int) -> None:
        self._write = write
        self._limit = limit
        self._count = 0
        self._exchanges: dict[object, Exchange] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        """Bounded by `_limit`."""
        self._changed = asyncio.Event()
        self._pen = asyncio.Lock()
        self._writer = asyncio.create_task(self._write_answers())

    @property
    def busy(self) -> bool:
        """Whether anything is under way or not written."""
        return self._count > 0

    async def room(self) -> None:
        """Wait until another request may begin, or nobody listens any more."""
        await self._wait(lambda: self._count < self._limit)

    async def finished(self) -> None:
        """Wait until all is answered and written, or nobody listens any more."""
        await self._wait(lambda: self._count == 0)

    async def _wait(self, condition: Callable[[], bool]) -> None:
        while not condition() and not self._writer.done():
            self._changed.clear()
            await self._changed.wait()

    def begin(
        self,
        exchange_of: MakeExchange,
        body: bytes,
        message_of: Callable[[Reply], Message],
        timeout_seconds: float | None = None,
    ) -> None:
        """Answer a request when it is done.

        Args:
            exchange_of: makes its exchange around a callback.
            body: of the request.
            message_of: makes the message from the reply.
            timeout_seconds: as `Exchange.open` takes it.
        """
        key = object()

        def reply(made: Reply) -> None:
            self._exchanges.pop(key, None)
            self._answers.put_nowait(message_of(made))

        self._count += 1
        exchange = self._exchanges[key] = exchange_of(reply)
        if exchange.open(timeout_seconds):
            exchange.receive(body)

    def say(self, message: Message) -> None:
        """Answer without an exchange."""
        self._count += 1
        self._answers.put_nowait(message)

    def run(self, work: Awaitable[None]) -> None:
        """Let a coroutine answer a request, by any number of calls of `write`."""

        async def until_done() -> None:
            try:
                await work
            finally:
                self._done()

        self._count += 1
        task = asyncio.create_task(until_done())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def write(self, message: Message) -> None:
        """Send a message of an answer that has several."""
        async with self._pen:
            await self._write(message)

    async def close(self, error: ServingError | None = None) -> None:
        """Give up what is under way.

        Args:
            error: why; default: the client has gone.
        """
        for exchange in self._exchanges.values():
            exchange.abandon(error)
        self._exchanges.clear()
        tasks = [self._writer, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _write_answers(self) -> None:
        try:
            while True:
                message = await self._answers.get()
                await self.write(message)
                self._done()
        finally:
            self._changed.set()

    def _done(self) -> None:
        self._count -= 1
        self._changed.set()
