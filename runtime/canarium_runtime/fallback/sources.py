"""Where an answer comes from when the model does not give one: another model, another server, a fixed answer.

Each kind takes validated inputs and gives outputs of the same names, so that a client sees the same shape of answer,
with a mark that says who gave it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import orjson

from canarium_api.runtime_config import FallbackEntry
from canarium_runtime.backends.base import DTYPES, Array, ModelSpec
from canarium_runtime.batching.batcher import Done
from canarium_runtime.batching.merge import Outputs, Run
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.validation import ValidatedInputs

if TYPE_CHECKING:
    import httpx  # loaded where another server is asked

Cancel = Callable[[], None]
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_CONNECTIONS = 64


class Fallback(Protocol):
    """Another way to an answer."""

    @property
    def name(self) -> str:
        """How answers and metrics call it."""
        ...

    def start(self, inputs: ValidatedInputs, deadline: float, done: Done) -> Cancel:
        """Begin to get an answer.

        Args:
            inputs: made for the model that failed.
            deadline: instant of `time.monotonic()`.
            done: called once with the outputs in the order of `inputs.outputs`, or a ServingError. Never called after
                the returned function was.

        Returns:
            Gives it up.

        Raises:
            ServingError: it cannot even begin; then `done` is not called.
        """
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


def _nothing() -> None:
    """Give up what is over already."""


class FixedAnswer:
    """The same outputs for each row.

    Args:
        outputs: one row of each output, by name.
        spec: gives the outputs of the model that it stands in for, once that is loaded.
    """

    name = "default"

    def __init__(self, outputs: Mapping[str, Any], spec: Callable[[], ModelSpec]) -> None:
        self._outputs = outputs
        self._spec = spec

    def start(self, inputs: ValidatedInputs, deadline: float, done: Done) -> Cancel:
        """See `Fallback`."""
        datatypes = self._spec().output_datatypes
        arrays: list[Array] = []
        for name in inputs.outputs:
            if name not in self._outputs:
                text = f"the default answer has no output {name!r}"
                raise ServingError(ErrorKind.MODEL_FAILED, text)
            row = np.array(self._outputs[name], DTYPES[datatypes[name]])
            arrays.append(np.broadcast_to(row, (inputs.rows, *row.shape)).copy())
        done(Outputs(Run(arrays)))
        return _nothing

    async def close(self) -> None:
        """See `Fallback`."""


class OtherServer:
    """The same model, or one like it, elsewhere: a V2 infer URL.

    Args:
        url: such as `https://other-region/v2/models/fraud/infer`.
        timeout_seconds: longest wait for it.
        spec: gives the tensors of the model that it stands in for, once that is loaded.
        transport: replaces the network in tests.
    """

    def __init__(
        self,
        url: str,
        timeout_seconds: float,
        spec: Callable[[], ModelSpec],
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        import httpx

        self._failures = (TimeoutError, httpx.HTTPError, ValueError, KeyError, TypeError)
        self.name = _host(url)
        self._url = url
        self._timeout_seconds = timeout_seconds
        self._spec = spec
        limits = httpx.Limits(max_connections=_CONNECTIONS)
        self._client = httpx.AsyncClient(transport=transport, limits=limits)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, inputs: ValidatedInputs, deadline: float, done: Done) -> Cancel:
        """See `Fallback`."""
        task = asyncio.create_task(self._ask(inputs, deadline, done))
        self._tasks.add(task)  # a task that nobody holds may be collected
        task.add_done_callback(self._tasks.discard)

        def cancel() -> None:
            task.cancel()

        return cancel

    async def _ask(self, inputs: ValidatedInputs, deadline: float, done: Done) -> None:
        seconds = min(self._timeout_seconds, deadline - time.monotonic())
        outcome: Outputs | ServingError
        try:
            async with asyncio.timeout(seconds):
                response = await self._client.post(
                    self._url,
                    content=self._body(inputs),
                    headers={"content-type": "application/json"},
                )
            outcome = self._read(response, inputs)
        except self._failures as error:
            text = f"{self.name} gave no answer"
            outcome = ServingError(ErrorKind.MODEL_FAILED, text)
            outcome.__cause__ = error
        done(outcome)

    def _body(self, inputs: ValidatedInputs) -> bytes:
        datatypes = {t.name: t.datatype for t in self._spec().inputs}
        tensors = [
            {
                "name": name,
                "shape": array.shape,
                "datatype": datatypes[name],
                "data": array.ravel().tolist(),
            }
            for name, array in inputs.arrays.items()
        ]
        return orjson.dumps({"inputs": tensors, "outputs": [{"name": n} for n in inputs.outputs]})

    def _read(self, response: "httpx.Response", inputs: ValidatedInputs) -> Outputs:
        """Read a V2 answer.

        Raises:
            ValueError, KeyError, TypeError: it is none, or not for these outputs.
        """
        if response.status_code != HTTPStatus.OK or len(response.content) > _MAX_ANSWER_BYTES:
            msg = f"status {response.status_code}, {len(response.content)} bytes"
            raise ValueError(msg)
        given = {o["name"]: o for o in orjson.loads(response.content)["outputs"]}
        datatypes = self._spec().output_datatypes
        arrays = [
            np.array(given[name]["data"], DTYPES[datatypes[name]]).reshape(given[name]["shape"])
            for name in inputs.outputs
        ]
        return Outputs(Run(arrays))

    async def close(self) -> None:
        """See `Fallback`."""
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()


class OtherModel:
    """Another model of this server.

    Args:
        name: of the model, with its version behind a colon where that is given.
        submit: queues inputs for it.
        cancel: gives queued ones up.
    """

    def __init__(
        self,
        name: str,
        submit: Callable[[ValidatedInputs, float, Done], Any],
        cancel: Callable[[Any], None],
    ) -> None:
        self.name = name
        self._submit = submit
        self._cancel = cancel

    def start(self, inputs: ValidatedInputs, deadline: float, done: Done) -> Cancel:
        """See `Fallback`."""
        ticket = self._submit(inputs, deadline, done)
        return lambda: self._cancel(ticket)

    async def close(self) -> None:
        """See `Fallback`."""


def name_of(entry: FallbackEntry) -> str:
    """How answers and metrics call a fallback of the settings."""
    if entry.model is not None:
        return f"{entry.model}:{entry.version}" if entry.version else entry.model
    return _host(entry.url) if entry.url is not None else FixedAnswer.name


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
