"""Another server that stands in for a model, asked by the Open Inference Protocol V2."""

import asyncio
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

import numpy as np
import orjson

from canarium_runtime.backends.base import DTYPES, Array, ModelSpec
from canarium_runtime.batching.batcher import Done
from canarium_runtime.batching.merge import Outputs, Run
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.fallback.sources import Cancel, host_of
from canarium_runtime.validation import ValidatedInputs

if TYPE_CHECKING:
    import httpx  # loaded where another server is asked

_log = logging.getLogger(__name__)

_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_CONNECTIONS = 64


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

        self.name = host_of(url)
        self._url = url
        self.timeout_seconds: float | None = timeout_seconds
        self._spec = spec
        limits = httpx.Limits(max_connections=_CONNECTIONS)
        # The library's own timeouts would cut a longer one of the settings short.
        self._client = httpx.AsyncClient(transport=transport, limits=limits, timeout=None)  # noqa: S113 - see _ask
        self._tasks: set[asyncio.Task[None]] = set()

    def check(self, spec: ModelSpec) -> None:
        """See `Fallback`: what another server has is seen when it is asked."""

    def start(self, inputs: ValidatedInputs, deadline: float, done: Done) -> Cancel:
        """See `Fallback`."""
        task = asyncio.create_task(self._ask(inputs, deadline, done))
        self._tasks.add(task)  # a task that nobody holds may be collected
        task.add_done_callback(self._tasks.discard)

        def cancel() -> None:
            task.cancel()

        return cancel

    async def _ask(self, inputs: ValidatedInputs, deadline: float, done: Done) -> None:
        left, own = deadline - time.monotonic(), self.timeout_seconds
        outcome: Outputs | ServingError
        try:
            async with asyncio.timeout(left if own is None else min(own, left)):
                outcome = self._read(await self._fetch(self._body(inputs)), inputs)
        except TimeoutError as error:
            outcome = self._failure(ErrorKind.DEADLINE, error)
        except Exception as error:  # noqa: BLE001 - what another server says can be wrong in any way
            outcome = self._failure(ErrorKind.MODEL_FAILED, error)
        done(outcome)

    def _failure(self, kind: ErrorKind, error: Exception) -> ServingError:
        _log.debug("a fallback gave no answer", extra={"fallback": self.name, "cause": repr(error)})
        failure = ServingError(kind, f"{self.name} gave no answer")
        failure.__cause__ = error
        return failure

    async def _fetch(self, body: bytes) -> bytes:
        """Send a request.

        Raises:
            ValueError: another status than 200, or too large an answer.
            httpx.HTTPError: no answer.
        """
        headers = {"content-type": "application/json"}
        async with self._client.stream("POST", self._url, content=body, headers=headers) as got:
            if got.status_code != HTTPStatus.OK:
                msg = f"status {got.status_code}"
                raise ValueError(msg)
            answer = bytearray()
            async for piece in got.aiter_bytes():
                answer += piece
                if len(answer) > _MAX_ANSWER_BYTES:
                    msg = f"more than {_MAX_ANSWER_BYTES} bytes"
                    raise ValueError(msg)
        return bytes(answer)

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

    def _read(self, answer: bytes, inputs: ValidatedInputs) -> Outputs:
        """Read a V2 answer; raises whatever is wrong with it."""
        spec = self._spec()
        given = {o["name"]: o for o in orjson.loads(answer)["outputs"]}
        arrays: list[Array] = []
        for name in inputs.outputs:
            data, shape = given[name]["data"], given[name]["shape"]
            array = np.array(data, DTYPES[spec.output_datatypes[name]]).reshape(shape)
            if spec.batchable and array.shape[:1] != (inputs.rows,):
                msg = f"{name}: shape {list(array.shape)} for {inputs.rows} rows"
                raise ValueError(msg)
            arrays.append(array)
        return Outputs(Run(arrays))

    async def close(self) -> None:
        """See `Fallback`."""
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()
