"""Another model of the same server that stands in for one."""

from collections.abc import Callable
from typing import Any, Protocol

from canarium_runtime.backends.base import ModelSpec
from canarium_runtime.batching.batcher import Done
from canarium_runtime.batching.merge import Outputs
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.fallback.sources import Cancel
from canarium_runtime.parking import Resume
from canarium_runtime.validation import ValidatedInputs


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
