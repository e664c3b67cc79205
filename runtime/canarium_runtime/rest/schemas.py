"""The bodies as pydantic types, for the OpenAPI document only: predictions are decoded without them, for speed."""

from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, RootModel
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
    parameters: dict[str, Any] | None = None
    """`priority`: 1 high, 2 normal, 3 low, 0 the default. `timeout`: how many microseconds the client waits."""


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


class V1Response(_Schema):
    """Answer of KServe's protocol V1."""

    predictions: Any
    """One for each row."""


class V1Models(_Schema):
    """Models that are ready."""

    models: list[str]


class ServerMetadata(_Schema):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(_Schema):
    """An input or output."""

    name: str
    datatype: Datatype
    shape: list[int]
    """-1: any size."""


class ModelMetadata(_Schema):
    """A model, as it declares itself."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(_Schema):
    """Whether a model is ready."""

    name: str
    ready: bool


class ConfigTensor(_Schema):
    """An input or output in a model's configuration."""

    name: str
    data_type: str
    dims: list[int]
    """Without the axis of the rows, where the model is batched."""


class ModelConfig(_Schema):
    """How a model is served."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    """0: requests are not batched."""
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    model_transaction_policy: dict[str, bool]
    """`decoupled`: a request may have several answers."""


class Duration(_Schema):
    """How often, and how long all together."""

    count: int
    ns: int


class InferStatistics(_Schema):
    """Requests and runs by what became of them."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchStatistics(_Schema):
    """Runs with the same number of rows."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(_Schema):
    """What a model did since the server began."""

    name: str
    version: str
    last_inference: int
    """Milliseconds since 1970; 0: none yet."""
    inference_count: int
    """Rows."""
    execution_count: int
    """Runs of the model."""
    inference_stats: InferStatistics
    batch_stats: list[BatchStatistics]


class Statistics(_Schema):
    """What models did."""

    model_stats: list[ModelStatistics]


class IndexRequest(_Schema):
    """Which models are listed."""

    ready: bool = False
    """Only those that are ready."""


class ListedModel(_Schema):
    """A model in the list."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class Index(RootModel[list[ListedModel]]):
    """All models."""


class RepositoryRequest(_Schema):
    """Nothing but the form that clients expect: models are configured by the ModelDeployment."""

    parameters: dict[str, Any] | None = None


class Nothing(_Schema):
    """An empty object."""


_MODELS: tuple[type[BaseModel], ...] = (
    InferRequest,
    InferResponse,
    PredictRequest,
    PredictResponse,
    V1Response,
    V1Models,
    ServerMetadata,
    ModelMetadata,
    ModelReady,
    ModelConfig,
    Statistics,
    IndexRequest,
    Index,
    RepositoryRequest,
    Nothing,
    ErrorResponse,
)
_REFUSALS = {
    400: "Not JSON, or not the protocol's shape.",
    401: "No credentials, or wrong ones; see WWW-Authenticate.",
    403: "Good credentials that do not allow this.",
    404: "No such model or version.",
    405: "Not possible here.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body's encoding is not read here.",
    422: "The inputs do not fit the model.",
    429: "Too much waits, or this client asks too often; see Retry-After.",
    500: "The model failed on this input.",
    503: "Loading, warming up or stopping; see Retry-After.",
    504: "No answer in time.",
}
_OF_BODIES = (400, 408, 413, 415)
_OF_PREDICTIONS = (401, 403, 404, *_OF_BODIES, 422, 429, 500, 503, 504)


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


def answers(model: type[BaseModel], *refusals: int) -> dict[str, Any]:
    """Describe a route's answer, and the statuses with which it refuses."""
    return {
        "responses": {
            200: {"description": "Answer.", "content": reference(model)},
            **{
                status: {"description": _REFUSALS[status], "content": reference(ErrorResponse)}
                for status in refusals
            },
        },
        "response_class": Response,
    }


def takes(
    request: type[BaseModel], answer: type[BaseModel], *refusals: int, required: bool = True
) -> dict[str, Any]:
    """Describe a route that reads a body."""
    body = {"required": required, "content": reference(request)}
    statuses = sorted({*_OF_BODIES, *refusals})
    return {"openapi_extra": {"requestBody": body}, **answers(answer, *statuses)}


def predicts(request: type[BaseModel], answer: type[BaseModel]) -> dict[str, Any]:
    """Describe a route that predicts."""
    return takes(request, answer, *_OF_PREDICTIONS)


def streams(request: type[BaseModel]) -> dict[str, Any]:
    """Describe a route that answers by server-sent events."""
    described = takes(request, Nothing, *_OF_PREDICTIONS)
    described["responses"][200] = {
        "description": "Events: each piece of the answer, then `end`, or `error`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
    return described
