"""The bodies as pydantic types, for the OpenAPI document only: predictions are decoded without them, for speed."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
]


class _Schema(BaseModel):
    # For the document alone: it is not built before somebody asks for it.
    model_config = ConfigDict(
        use_attribute_docstrings=True, protected_namespaces=(), defer_build=True
    )


class InferTensor(_Schema):
    """One tensor."""

    name: str
    shape: list[int]
    datatype: Datatype
    data: list[Any]
    """Elements in row-major order, flat or nested as `shape` says."""


class OutputName(_Schema):
    """A wanted output."""

    name: str


class InferRequest(_Schema):
    """Open Inference Protocol V2 inference request."""

    id: str | None = None
    inputs: list[InferTensor]
    outputs: list[OutputName] | None = None
    """Default: all."""


class InferResponse(_Schema):
    """Open Inference Protocol V2 inference response."""

    model_name: str
    model_version: str
    id: str
    outputs: list[InferTensor]


class PredictRequest(_Schema):
    """Exactly one of `inputs` and `instances`."""

    id: str | None = None
    inputs: dict[str, list[Any]] | None = None
    """Nested arrays by name of input; the first axis counts rows."""
    instances: list[Any] | None = None
    """One entry a row: the row's value for a model with one input, else an object by name of input."""


class PredictResponse(_Schema):
    """Outputs by name, each with one entry a row."""

    outputs: dict[str, Any]
    model_name: str
    model_version: str
    revision: str
    id: str


class ErrorResponse(_Schema):
    """Why a request was not answered."""

    error: str
    """One sentence."""
    code: str
    request_id: str
    field: str | None = Field(default=None, examples=["inputs[0].data[3]"])
    expected: str | None = None
    got: str | None = None


_MODELS = (InferRequest, InferResponse, PredictRequest, PredictResponse, ErrorResponse)


def components() -> dict[str, Any]:
    """Schemas for the OpenAPI document's components."""
    _, document = models_json_schema(
        [(m, "validation") for m in _MODELS], ref_template="#/components/schemas/{model}"
    )
    definitions: dict[str, Any] = document["$defs"]
    return definitions


def reference(model: type[BaseModel]) -> dict[str, Any]:
    """Content of a body that is this model."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
