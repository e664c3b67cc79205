"""Where an answer comes from when the model does not give one: another model, another server, a fixed answer.

Each kind takes validated inputs and gives outputs of the same names, so that a client sees the same shape of answer,
with a mark that says who gave it.
"""

import asyncio
import logging
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
from canarium_runtime.errors import ErrorKind, LoadError, ServingError
from canarium_runtime.parking import Resume
from canarium_runtime.validation import ValidatedInputs

if TYPE_CHECKING:
    import httpx  # loaded where another server is asked

_log = logging.getLogger(__name__)

Cancel = Callable[[], None]
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_CONNECTIONS = 64


class Fallback(Protocol):
    """Another way to an answer."""

    @property
    def name(self) -> str:
        """How answers and metrics call it."""
        ...

    @property
    def timeout_seconds(self) -> float | None:
        """How long it may take; None: as long as the request has."""
        ...

    def check(self, spec: ModelSpec) -> None:
        """See, before the model is served, whether this can stand in for it.

        Raises:
            LoadError: InvalidConfig.
        """
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
        outputs: one row of each output, by name; the whole output where the model has no rows.
        spec: gives the outputs of the model that it stands in for, once that is loaded.
    """

    name = "default"
    timeout_seconds = None

    def __init__(self, outputs: Mapping[str, Any], spec: Callable[[], ModelSpec]) -> None:
        self._outputs = outputs
        self._spec = spec

    def check(self, spec: ModelSpec) -> None:
        """See `Fallback`."""
        for output in spec.outputs:
            try:
                row = self._row(spec, output.name)
            except (ServingError, ValueError, TypeError, OverflowError) as error:
                text = f"the fixed answer of the fallbacks gives no {output.datatype} for {output.name!r}: {error}"
                raise LoadError("InvalidConfig", text, permanent=True) from error
            shape = output.shape[1:] if spec.batchable else output.shape
            fits = len(row.shape) == len(shape) and all(
                size == wanted or not isinstance(wanted, int)
                for size, wanted in zip(row.shape, shape, strict=True)
            )
            if not fits:
                what = "a row of the model's" if spec.batchable else "the model's"
                text = (
                    f"the fixed answer of the fallbacks has shape {list(row.shape)} for {output.name!r}, and {what} "
                    f"has {[d if isinstance(d, int) else -1 for d in shape]}: write the output as the model would"
                )
                raise LoadError("InvalidConfig", text, permanent=True)

    def start(self, inputs: ValidatedInputs, deadline: float, done: Done) -> Cancel:
        """See `Fallback`."""
        spec = self._spec()
        arrays: list[Array] = []
        for name in inputs.outputs:
            row = self._row(spec, name)
            if spec.batchable:
                row = np.broadcast_to(row, (inputs.rows, *row.shape)).copy()
            arrays.append(row)
        done(Outputs(Run(arrays)))
        return _nothing

    def _row(self, spec: ModelSpec, name: str) -> Array:
        if name not in self._outputs:
            text = f"the default answer has no output {name!r}"
            raise ServingError(ErrorKind.MODEL_FAILED, text)
        return np.array(self._outputs[name], DTYPES[spec.output_datatypes[name]])

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

        self.name = _host(url)
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


class Invited(Protocol):
    """A request that was let in."""

    def run(self, inputs: ValidatedInputs, done: Done) -> None:
        """Get the answer."""
        ...

    def cancel(self) -> None:
        """Give it up."""
        ...

    def close(self) -> None:
        """Leave."""
        ...


class Host(Protocol):
    """What is asked of another model."""

    @property
    def spec(self) -> ModelSpec:
        """Its specs; raises a ServingError while it is not loaded."""
        ...

    def invite(self, deadline: float) -> Invited:
        """Let a request in; begins to load the model."""
        ...

    def when_ready(self, prediction: Any, resume: Resume) -> None:
        """Go on when it is loaded."""
        ...

    def forget(self, resume: Resume) -> None:
        """Undo that."""
        ...


class OtherModel:
    """Another model of this server, which is loaded for it if need be.

    Args:
        name: of the model, with its version behind a colon where that is given.
        host: the model.
        spec: gives the tensors of the model that it stands in for.
    """

    timeout_seconds = None

    def __init__(self, name: str, host: Host, spec: Callable[[], ModelSpec]) -> None:
        self.name = name
        self._host = host
        self._spec = spec

    def check(self, spec: ModelSpec) -> None:
        """See `Fallback`: the other model may not be loaded yet."""

    def start(self, inputs: ValidatedInputs, deadline: float, done: Done) -> Cancel:
        """See `Fallback`."""
        host, guest = self._host, self._host.invite(deadline)
        open_ = True

        def end(outcome: Outputs | ServingError) -> None:
            nonlocal open_
            if open_:
                open_ = False
                guest.close()
                done(outcome)

        def resume(error: ServingError | None) -> None:
            try:
                if error is not None:
                    raise error
                _check_fits(self.name, host.spec, self._spec(), inputs)
                guest.run(inputs, end)
            except ServingError as failure:
                end(failure)

        def cancel() -> None:
            nonlocal open_
            if open_:
                open_ = False
                host.forget(resume)
                guest.cancel()
                guest.close()

        host.when_ready(guest, resume)
        return cancel

    async def close(self) -> None:
        """See `Fallback`."""


def _check_fits(name: str, other: ModelSpec, spec: ModelSpec, inputs: ValidatedInputs) -> None:
    """Raise MODEL_FAILED where another model takes other inputs, or gives other outputs."""
    datatypes, others = spec.output_datatypes, other.output_datatypes
    fits = other.inputs == spec.inputs and all(
        others.get(output) == datatypes[output] for output in inputs.outputs
    )
    if not fits:
        text = f"model {name!r} has other inputs or outputs"
        raise ServingError(ErrorKind.MODEL_FAILED, text)


def name_of(entry: FallbackEntry) -> str:
    """How answers and metrics call a fallback of the settings."""
    if entry.model is not None:
        return f"{entry.model}:{entry.version}" if entry.version else entry.model
    return _host(entry.url) if entry.url is not None else FixedAnswer.name


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
