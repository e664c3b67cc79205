"""Pages of answers as bytes: one line of JSON, then the outputs' elements one after another.

The line names each output's size, and the sizes in their order say where its elements are. JSON alone would double the
bytes and lose NaN; a format with a schema would be one more dependency for two programs that are installed together.
"""

import math
from typing import Annotated

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canarium_api.metric_names import PredictionStatus
from canarium_runtime.backends.base import DTYPES, Array
from canarium_runtime.shadow.records import Answer, Counts, Page, Tensor

MEDIA_TYPE = "application/vnd.canarium.answers"
_MAX_DIMENSIONS = 32


class WireError(Exception):
    """The bytes are no page."""


class _Tensor(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str
    datatype: str
    shape: list[Annotated[int, Field(ge=0)]] = Field(max_length=_MAX_DIMENSIONS)
    size: int | None = Field(ge=0)
    digest: str | None = None


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    id: str
    body: int | None
    status: PredictionStatus
    seconds: float = Field(ge=0, allow_inf_nan=False)
    outputs: list[_Tensor]


class _Counts(BaseModel):
    model_config = ConfigDict(extra="ignore")

    offered: int = 0
    limited: int = 0
    unidentified: int = 0
    broken: int = 0


class _Head(BaseModel):
    model_config = ConfigDict(extra="ignore")

    incarnation: str
    next: int = Field(ge=0)
    missed: int = Field(ge=0)
    more: bool
    counts: _Counts
    answers: list[_Answer]


def encode(page: Page) -> bytes:
    """Write a page."""
    blobs: list[bytes] = []
    answers = []
    for answer in page.answers:
        outputs = []
        for tensor in answer.outputs:
            if tensor.data is not None:
                blobs.append(tensor.data)
            outputs.append(
                {
                    "name": tensor.name,
                    "datatype": tensor.datatype,
                    "shape": tensor.shape,
                    "size": None if tensor.data is None else len(tensor.data),
                    "digest": tensor.digest,
                }
            )
        answers.append(
            {
                "id": answer.id,
                "body": answer.body,
                "status": answer.status.value,
                "seconds": answer.seconds,
                "outputs": outputs,
            }
        )
    head = {
        "incarnation": page.incarnation,
        "next": page.next,
        "missed": page.missed,
        "more": page.more,
        "counts": page.counts,
        "answers": answers,
    }
    return b"".join([orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE), *blobs])


def decode(content: bytes) -> Page:
    """Read a page.

    Raises:
        WireError: it is not one, or an output's elements do not fit its shape.
    """
    line, newline, blobs = content.partition(b"\n")
    if not newline:
        msg = "the first line does not end"
        raise WireError(msg)
    try:
        head = _Head.model_validate_json(line)
    except ValidationError as error:
        msg = f"the first line is not a page: {error.errors(include_input=False)[0]['msg']}"
        raise WireError(msg) from error
    answers = []
    position = 0
    for answer in head.answers:
        tensors = []
        for tensor in answer.outputs:
            data = None
            if tensor.size is not None:
                data = blobs[position : position + tensor.size]
                position += tensor.size
            tensors.append(_checked(tensor, data))
        answers.append(Answer(answer.id, answer.body, answer.status, answer.seconds, tensors))
    if position != len(blobs):
        msg = f"expected {position} bytes of elements, got {len(blobs)}"
        raise WireError(msg)
    return Page(
        incarnation=head.incarnation,
        next=head.next,
        missed=head.missed,
        more=head.more,
        counts=Counts(**head.counts.model_dump()),
        answers=answers,
    )


def _checked(tensor: _Tensor, data: bytes | None) -> Tensor:
    result = Tensor(tensor.name, tensor.datatype, tuple(tensor.shape), data, tensor.digest)
    if data is not None:
        array_of(result)
    return result


def array_of(tensor: Tensor) -> Array:
    """Make the array of an output whose elements were recorded; strings become an array of objects.

    Raises:
        WireError: the elements do not fit datatype and shape.
    """
    dtype = DTYPES.get(tensor.datatype)
    if dtype is None or tensor.data is None:
        msg = f"output {tensor.name!r}: no elements of a known datatype"
        raise WireError(msg)
    try:
        if tensor.datatype == "BYTES":
            strings = orjson.loads(tensor.data)
            if type(strings) is not list or not all(type(s) is str for s in strings):
                msg = f"output {tensor.name!r}: expected an array of strings"
                raise WireError(msg)
            return np.array(strings, dtype).reshape(tensor.shape)
        if len(tensor.data) != math.prod(tensor.shape) * dtype.itemsize:
            msg = f"output {tensor.name!r}: {len(tensor.data)} bytes for shape {tensor.shape}"
            raise WireError(msg)
        little = dtype.newbyteorder("<")
        return np.frombuffer(tensor.data, little).reshape(tensor.shape)
    except ValueError as error:
        msg = f"output {tensor.name!r} cannot be read: {error}"
        raise WireError(msg) from error
