"""What the two protocols' bodies have in common: decoders give inputs that fit the model, encoders write answers.

Structure is checked by the codecs (MALFORMED, 400), fit to the model in validation (INVALID, 422).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from canarium_runtime.backends.base import ModelSpec
from canarium_runtime.batching.merge import Outputs
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.rest.wishes import Wishes
from canarium_runtime.service import Marks
from canarium_runtime.validation import Converter, ValidatedInputs, malformed

_MAX_ID = 256
WRITE_ARRAYS = orjson.OPT_SERIALIZE_NUMPY
AS_LISTS = frozenset({"BYTES", "BF16"})
"""Datatypes whose arrays orjson does not write."""


@dataclass(slots=True)
class Call:
    """A decoded request."""

    inputs: ValidatedInputs
    id: str | None = None
    """The client's id for the request."""
    binary: Collection[str] = ()
    """Outputs that the client wants as binary data."""
    wishes: Wishes | None = None
    """About its turn; None: none in its body."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What an answer says about its origin."""

    model_name: str
    model_version: str
    revision: str


class Codec(Protocol):
    """One protocol's bodies, for one model."""

    def decode(self, body: bytes, json_bytes: int | None) -> Call:
        """Read a request.

        Args:
            body: all of it.
            json_bytes: how much of it is JSON, where binary data follows; None: all.

        Raises:
            ServingError: MALFORMED, INVALID or UNSUPPORTED_ENCODING; its `client_id` is set where the body had one.
        """
        ...

    def decode_together(self, bodies: Sequence[bytes]) -> Sequence[Call | None]:
        """Read requests without binary data that came together, as far as that is quicker than one by one.

        Returns:
            For each what `decode` gives for it; None: ask `decode`. Empty: ask it for all of them.
        """
        return ()

    def encode(
        self, call: Call, outputs: Outputs, request_id: str, marks: Marks | None = None
    ) -> tuple[bytes, int | None]:
        """Write an answer.

        Args:
            call: the request.
            outputs: its part of a run.
            request_id: what it says where the client gave no id of its own.
            marks: what is out of the ordinary with this answer.

        Returns:
            The body, and how much of it is JSON where binary data follows.
        """
        ...


class MakeCodec(Protocol):
    """A codec's class."""

    def __call__(
        self, spec: ModelSpec, identity: Identity, converter: Converter | None = None
    ) -> Codec:
        """Make the codec for one model."""
        ...


def load_object(body: bytes) -> dict[str, Any]:
    """Parse JSON that must be an object.

    Raises:
        ServingError: MALFORMED.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ServingError(
            ErrorKind.MALFORMED, f"the body is not valid JSON: {error}", field=""
        ) from error
    if type(document) is not dict:
        raise malformed("body", "an object", document)
    return document


def read_id(document: dict[str, Any]) -> str | None:
    """Give the client's id of a request.

    Raises:
        ServingError: MALFORMED.
    """
    value = document.get("id")
    if value is not None and not is_id(value):
        raise malformed("id", f"a string of at most {_MAX_ID} characters", value)
    return value


def is_id(value: Any) -> bool:
    """Whether a value can be the id of a request."""
    return type(value) is str and len(value) <= _MAX_ID
