"""`RuntimeConfig`: what the operator writes into a revision's ConfigMap and the runtime reads from its environment."""

from datetime import timedelta
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from canarium_api.audit_config import AuditSettings, AuditSink
from canarium_api.duration import Duration, format_duration
from canarium_api.environment import AS_JSON
from canarium_api.input_rules import ValidationSpec
from canarium_api.model_types import (
    Accelerator,
    ExecutionProvider,
    ModelFormat,
    Precision,
    TensorDeclaration,
)
from canarium_api.padding import PaddingSpec
from canarium_api.patterns import FALLBACK_URL_PATTERN, MAX_PORT, port_of
from canarium_api.security_config import SecuritySettings

PREFIX = "CANARIUM_"
HTTP_PORT = 8080
ANSWERS_PORT = 8081
"""Where pods offer their answers to the comparer of a shadow rollout; not a port of the Service that clients reach."""
GRPC_PORT = 8001
"""Where pods answer by gRPC, when they do: the port that clients of the protocol know from Triton."""
TERMINATION_LOG = "/dev/termination-log"
"""Where the runtime leaves the reason when it cannot serve; the kubelet copies it to the pod's status."""

MAX_MEMORY_TTL: Final = timedelta(minutes=5)
"""An answer in a process' own memory cannot be taken back by anybody, so none stays longer."""
CACHE_SCHEMES: Final = {
    "cache_redis_url": ("redis://", "rediss://", "unix://"),
    "cache_database_url": ("sqlite:///", "postgresql://"),
}
SecretUrl = Annotated[
    SecretStr, PlainSerializer(lambda url: url.get_secret_value(), return_type=str)
]
"""May hold a password: shows in no repr and no message, only in `to_env`."""


class ModelEntry(BaseModel):
    """One more model of a server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=63)
    version: str = "1"
    uri: str = Field(min_length=1)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    format: ModelFormat = ModelFormat.ONNX
    inputs: tuple[TensorDeclaration, ...] = ()
    outputs: tuple[TensorDeclaration, ...] = ()


class FallbackEntry(BaseModel):
    """Who answers when the model does not; exactly one of `model`, `url` and `outputs`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    """Name of another model of the same server."""
    version: str | None = None
    """Its version. Default: the first that `models` lists."""
    url: str | None = Field(default=None, max_length=2048, pattern=FALLBACK_URL_PATTERN)
    """V2 infer URL of another server."""
    timeout: Duration = timedelta(seconds=5)
    """Longest wait for that server."""
    outputs: dict[str, Any] | None = None
    """A fixed answer: one row of each output by name."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(v is not None for v in (self.model, self.url, self.outputs)) != 1:
            msg = "a fallback is exactly one of model, url and outputs"
            raise ValueError(msg)
        port = 0 if self.url is None else port_of(self.url)
        if port > MAX_PORT:
            msg = f"url: port is {port}: expected at most {MAX_PORT}"
            raise ValueError(msg)
        return self


def _processes(value: Any) -> Any:
    return 0 if value == "auto" else value


class RuntimeConfig(SecuritySettings, AuditSettings):
    """Settings of one inference server. Everything has a default but the model's URI."""

    env_prefix: ClassVar[str] = PREFIX

    model_uri: str = Field(min_length=1)
    """`https://`, `http://` (with a digest), `file:///path`; volumes are mounted by the operator and read as files."""
    model_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Expected digest of the artefact; anything else is refused."""
    model_name: str = "model"
    """Name in V2 URLs."""
    model_version: str = "1"
    """Version in V2 URLs, answers and metrics."""
    model_format: ModelFormat = ModelFormat.ONNX
    """Format of the artefact."""
    model_inputs: Annotated[tuple[TensorDeclaration, ...], AS_JSON] = ()
    """Inputs of a model that does not declare them itself: a JSON array of `{"name", "datatype", "shape"}`."""
    model_outputs: Annotated[tuple[TensorDeclaration, ...], AS_JSON] = ()
    """Outputs, likewise."""
    model_padding: Annotated[tuple[PaddingSpec, ...], AS_JSON] = Field(default=(), max_length=16)
    """Inputs that may differ in length within one run: a JSON array of `{"input", "axis", "value", "multiple",
    "outputs"}`."""
    model_entrypoint: str = "model:Model"
    """`module:Class` of a Python model."""
    allow_code: bool = False
    """Whether Python code of the artefact may run."""
    accelerator: Accelerator = Accelerator.AUTO
    """`auto`: a GPU where one can be seen, else the CPU; `gpu`: a GPU, or the server leaves; `none`: the CPU."""
    execution_provider: ExecutionProvider = ExecutionProvider.AUTO
    """ONNX models: `auto`, `cpu`, `cuda`, `tensorrt` or `openvino`."""
    precision: Precision | None = None
    """`fp16` or `bf16`: arithmetic in 16 bits. Default: the model's own datatypes."""
    compile_model: bool = False
    """Run torch models through `torch.compile`."""
    gpu_memory_bytes: int | None = Field(default=None, ge=1)
    """Most GPU memory that ONNX Runtime's arena takes. Default: no limit."""
    deployment: str = "local/model"
    """`namespace/name` of the ModelDeployment: metric label."""
    revision: str = "local"
    """Revision: metric label."""
    models: Annotated[tuple[ModelEntry, ...], AS_JSON] = Field(default=(), max_length=256)
    """More models that the server offers beside its own, as a JSON array of `{name, version, uri, sha256, format,
    inputs, outputs}`."""
    model_memory_bytes: int = Field(default=0, ge=0)
    """Most memory of all models together, estimated by their size: others than the server's own are then loaded when
    somebody asks for them, and the least recently used make room. 0: no bound, all are loaded at the start."""
    fallbacks: Annotated[tuple[FallbackEntry, ...], AS_JSON] = Field(default=(), max_length=8)
    """Who answers when the model fails or takes too long, in that order, as a JSON array of
    `{"model": NAME}`, `{"url": V2 INFER URL}` or `{"outputs": {NAME: ROW}}`."""
    backend_timeout: Duration | None = None
    """How long a request may wait for the model before the fallbacks are tried. Default: as long as it has."""
    breaker_failures: int = Field(default=5, ge=0, le=1000)
    """With fallbacks: after so many failures of the model in a row it is left alone for a while; 0: never."""
    model_control: bool = False
    """Clients may load and unload models (`/v2/repository/models/NAME/load`)."""
    max_batch_size: int = Field(default=32, ge=1, le=4096)
    """Most rows in one run of the model."""
    max_delay: Duration = timedelta(milliseconds=100)
    """Longest time that a request is held back for a fuller batch while the model is busy."""
    preferred_batch_sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], AS_JSON] = Field(
        default=(), max_length=16
    )
    """Numbers of rows that the model runs best, rising, as a JSON array: of what waits, a run takes the largest of them
    that is full. Default: whatever waits."""
    allow_high_priority: bool | None = None
    """Whether requests may ask for high priority, which passes others. Default: where all clients must authenticate."""
    queue_size: int = Field(default=512, ge=1)
    """Most requests waiting; above it 429."""
    request_timeout: Duration = timedelta(seconds=30)
    """From arrival to answer; above it 504."""
    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    """Largest request body in bytes; above it 413."""
    validation: str = ""
    """Rules for the values of requests: `spec.serving.validation` as JSON. Default: NaN and infinities are refused, and
    more than 100000 rows."""
    hot_lane: bool = True
    """Predictions are answered by the connection itself. `false`: by FastAPI's routes, at several times the cost, where
    middleware or a debugger must see each request."""
    drain_timeout: Duration = timedelta(seconds=30)
    """How long requests under way may finish after SIGTERM."""
    drain_delay: Duration = timedelta(seconds=0)
    """How long the server keeps accepting after SIGTERM, while endpoints and gateways learn that it leaves."""
    warmup_requests: int = Field(default=3, ge=0, le=1000)
    """Synthetic requests before ready."""
    warmup_samples: Annotated[tuple[dict[str, Any], ...], AS_JSON] = ()
    """Requests of your own before ready: a JSON array of bodies for `/predict` or the V2 infer endpoint."""
    warmup_uri: str | None = None
    """File with more of them, one JSON body a line: `https://`, `http://` (with a digest) or `file:///path`."""
    warmup_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Expected digest of that file."""
    workers: int = Field(default=1, ge=1, le=64)
    """Batches that run at the same time."""
    processes: Annotated[int, BeforeValidator(_processes)] = Field(default=1, ge=0, le=64)
    """Serving processes that share the port, each with the model; 0 or `auto`: one for each CPU of the limit."""
    intra_op_threads: int = Field(default=0, ge=0)
    """Threads for one run of the model; 0: from the CPU limit of the cgroup."""
    host: str = "0.0.0.0"  # noqa: S104 - a pod's address is not known beforehand
    """Address to listen on."""
    port: int = Field(default=HTTP_PORT, ge=1, le=65535)
    """Port of the REST API and of /metrics."""
    answers_port: int | None = Field(default=None, ge=1, le=65535)
    """Port where the comparer of a shadow rollout fetches answers; keep clients away from it. Default: not offered."""
    answers_token_file: str | None = None
    """File with the bearer token that the comparer must send. Default: none is asked for."""
    grpc_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of the Open Inference Protocol V2 over gRPC, which needs the extra `grpc` to be installed. Default: not
    offered."""
    max_streams: int = Field(default=16, ge=1, le=1024)
    """Most answers in pieces (server-sent events, gRPC streams) of a model that yields, at the same time: each has a
    thread. Above it 429."""
    stream_idle_timeout: Duration = timedelta(minutes=10)
    """How long a WebSocket or a gRPC stream may be without a message."""
    download_dir: str = "/tmp/models"  # noqa: S108 - an emptyDir of the pod
    """Where fetched artefacts go."""
    download_timeout: Duration = timedelta(minutes=10)
    """For one whole download."""
    max_model_bytes: int = Field(default=16 * 1024**3, ge=1)
    """Largest artefact that is fetched."""
    cache_memory_bytes: int = Field(default=0, ge=0)
    """Most memory for answers that are kept in this process; 0: none are. Only for models that answer equal inputs
    equally."""
    cache_memory_ttl: Duration = MAX_MEMORY_TTL
    """How long they are kept; at most 5m."""
    cache_redis_url: SecretUrl | None = None
    """Redis for answers: `redis://USER:PASSWORD@HOST:PORT/NUMBER`, `rediss://` with TLS, or `unix://PATH`. Default:
    none."""
    cache_redis_ttl: Duration = timedelta(hours=1)
    """How long it keeps them."""
    cache_database_url: SecretUrl | None = None
    """Database for answers: `sqlite:////PATH`, or `postgresql://USER:PASSWORD@HOST:PORT/NAME`. Default: none."""
    cache_database_ttl: Duration = timedelta(days=1)
    """How long it keeps them."""
    cache_database_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """Most that the table of answers holds, those of all servers together."""
    cache_timeout: Duration = timedelta(milliseconds=50)
    """Longest time that a request waits for Redis, and again for the database, before it goes on without."""
    tracing_endpoint: str | None = Field(default=None, pattern=r"^https?://[^\s/@]+(/\S*)?$")
    """Collector of traces, by OTLP over HTTP: `http://HOST:4318`, or the whole URL. Default: nothing is traced."""
    tracing_ratio: float = Field(default=0.01, ge=0, le=1)
    """Part of the requests without a `traceparent` that is traced; with one, its own flag decides."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """Least severity that is logged."""

    @property
    def validation_spec(self) -> ValidationSpec:
        """`validation`, read."""
        return (
            ValidationSpec.model_validate_json(self.validation)
            if self.validation
            else ValidationSpec()
        )

    @field_validator("validation")
    @classmethod
    def _validation_is_readable(cls, value: str) -> str:
        if value:
            try:
                ValidationSpec.model_validate_json(value)
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                where = ".".join(map(str, first["loc"]))
                raise ValueError(f"{where + ': ' if where else ''}{first['msg']}") from None
        return value

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.answers_port == self.port:
            msg = f"{PREFIX}ANSWERS_PORT must differ from {PREFIX}PORT, which clients reach: {self.port}"
            raise ValueError(msg)
        for name, port in (("PORT", self.port), ("ANSWERS_PORT", self.answers_port)):
            if self.grpc_port is not None and self.grpc_port == port:
                msg = f"{PREFIX}GRPC_PORT must differ from {PREFIX}{name}: {port}"
                raise ValueError(msg)
        return self

    def key_of(self, entry: FallbackEntry) -> tuple[str, str]:
        """Name and version of the model that a fallback names: never the server's own.

        Raises:
            ValueError: `models` does not list it.
        """
        for listed in self.models:
            if listed.name == entry.model and entry.version in (None, listed.version):
                return listed.name, listed.version
        wanted = entry.model if entry.version is None else f"{entry.model} {entry.version}"
        msg = f"{PREFIX}FALLBACKS names a model that {PREFIX}MODELS does not list: {wanted}"
        raise ValueError(msg)

    @model_validator(mode="after")
    def _batch_sizes_rise(self) -> Self:
        sizes = self.preferred_batch_sizes
        if list(sizes) != sorted(set(sizes)) or (sizes and sizes[-1] > self.max_batch_size):
            msg = f"{PREFIX}PREFERRED_BATCH_SIZES must rise, up to {PREFIX}MAX_BATCH_SIZE ({self.max_batch_size})"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _fallbacks_are_here(self) -> Self:
        for entry in self.fallbacks:
            if entry.model is not None:
                self.key_of(entry)
        return self

    @model_validator(mode="after")
    def _fallbacks_have_time(self) -> Self:
        for entry in self.fallbacks:
            if entry.timeout <= timedelta(0):
                msg = f"{PREFIX}FALLBACKS: timeout must be above 0: write a duration such as 2s"
                raise ValueError(msg)
        if self.backend_timeout is not None and self.backend_timeout <= timedelta(0):
            msg = f"{PREFIX}BACKEND_TIMEOUT must be above 0: write a duration such as 200ms"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _models_differ(self) -> Self:
        named = [(self.model_name, self.model_version), *((m.name, m.version) for m in self.models)]
        twice = {pair for pair in named if named.count(pair) > 1}
        if twice:
            listed = ", ".join(f"{name} {version}" for name, version in sorted(twice))
            msg = f"{PREFIX}MODELS names a model and version twice, or that of {PREFIX}MODEL_NAME: {listed}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _cache_fits(self) -> Self:
        for name in ("cache_memory_ttl", "cache_redis_ttl", "cache_database_ttl", "cache_timeout"):
            if getattr(self, name) <= timedelta(0):
                msg = f"{PREFIX}{name.upper()} must be above 0: write a duration such as 30s"
                raise ValueError(msg)
        if self.cache_memory_ttl > MAX_MEMORY_TTL:
            msg = f"{PREFIX}CACHE_MEMORY_TTL must be at most {format_duration(MAX_MEMORY_TTL)}: lower it"
            raise ValueError(msg)
        for name, schemes in CACHE_SCHEMES.items():
            url = getattr(self, name)
            if url is not None and not url.get_secret_value().startswith(schemes):
                msg = f"{PREFIX}{name.upper()} must begin with {' or '.join(schemes)}"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _one_process_where_each_has_its_own(self) -> Self:
        alone = {
            "ANSWERS_PORT": (self.answers_port, "records its own answers"),
            "MODEL_CONTROL": (self.model_control, "has its own models"),
            "AUDIT_SINK=Kafka": (
                self.audit_sink is AuditSink.KAFKA,
                "has its own chain of records",
            ),
        }
        for name, (wanted, why) in alone.items():
            if self.processes != 1 and wanted:
                msg = (
                    f"{PREFIX}{name} works with one process only, as each {why}: "
                    f"set {PREFIX}PROCESSES to 1, or leave {PREFIX}{name} out"
                )
                raise ValueError(msg)
        return self


class LoadFailure(BaseModel):
    """Why a server cannot serve its model: written as JSON to the termination log, read by the operator."""

    model_config = ConfigDict(frozen=True)

    reason: str
    """CamelCase: DigestMismatch, ModelUnreadable, ModelUnsupported, DownloadFailed, InvalidConfig, WarmupFailed,
    CodeNotAllowed, AcceleratorUnavailable, ProcessDied."""
    message: str
    """One sentence for people, with the remedy."""
    permanent: bool = False
    """True: trying again with the same revision cannot help."""
