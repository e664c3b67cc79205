"""`ModelDeployment.spec`: what a user writes.

The CRD is generated from these types (`python -m canarium_api.crdgen`): docstrings become its descriptions and
`json_schema_extra` its CEL rules. `model.uri` is enough, and `traffic.gateway` for what comes from outside the cluster;
every default is one that a production team would keep.
"""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from canarium_api.base import ApiModel, rules
from canarium_api.cache import CacheSpec, SecretKeyRef
from canarium_api.duration import Duration
from canarium_api.fallback import FallbackSpec
from canarium_api.gitops import GitOpsSpec
from canarium_api.input_rules import ValidationSpec
from canarium_api.model_types import Accelerator as Accelerator
from canarium_api.model_types import Datatype as Datatype
from canarium_api.model_types import ExecutionProvider as ExecutionProvider
from canarium_api.model_types import ModelFormat as ModelFormat
from canarium_api.model_types import Precision as Precision
from canarium_api.model_types import TensorDeclaration as TensorDeclaration
from canarium_api.padding import PaddingSpec
from canarium_api.patterns import MODEL_URI_PATTERN, VERSION_PATTERN
from canarium_api.quantity import Quantity
from canarium_api.rollout import DEFAULT_STEPS, RolloutSpec
from canarium_api.security import AuditSpec, RateLimitSpec, SecuritySpec
from canarium_api.tracing import TracingSpec

OpaqueObject = Annotated[
    dict[str, Any],
    Field(json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""A part of a pod's own schema that is passed on as it is; the API server checks it when the Deployment is applied."""


class WarmupSpec(ApiModel):
    """Requests that the server runs through the model before it is ready."""

    model_config = rules(
        (
            "!has(self.uri) || !self.uri.startsWith('http://') || has(self.sha256)",
            "model.warmup.sha256 is required with an http:// URI, since the transport proves nothing: "
            "add the digest (sha256sum FILE) or use https://",
        ),
        (
            "!has(self.sha256) || has(self.uri)",
            "model.warmup.sha256 is the digest of the file at model.warmup.uri: set uri, or remove sha256",
        ),
    )

    requests: int = Field(default=3, ge=0, le=1000)
    """How many synthetic requests, at batch sizes 1 to `serving.maxBatchSize`."""
    samples: list[OpaqueObject] = Field(default=[], max_length=32)
    """Requests of your own, each the body of a request to `/predict` or `/v2/models/NAME/infer`, at most 64 KiB
    together. One that fails keeps the pod from becoming ready."""
    uri: str | None = Field(
        default=None, min_length=1, max_length=2048, pattern=r"^(https?://[^\s]+|file:///[^\s]+)$"
    )
    """More such requests, one JSON body a line: `https://host/path` or `file:///path` (inside the image). A zip
    artefact may hold them itself, as `warmup.jsonl`."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest of that file."""


class ModelSpec(ApiModel):
    """The artefact to serve."""

    model_config = rules(
        (
            "self.format != 'python' || self.allowCode",
            "model.format python runs the artefact's code in the pod: set model.allowCode to true if you trust its "
            "source, or use onnx or torch",
        ),
        (
            "!self.allowCode || has(self.sha256) || !self.uri.startsWith('http')",
            "model.sha256 is required where model.allowCode is true and the artefact comes from the network: "
            "add the digest (sha256sum FILE)",
        ),
        (
            "!self.uri.startsWith('http://') || has(self.sha256)",
            "model.sha256 is required with an http:// URI, since the transport proves nothing: "
            "add the digest (sha256sum FILE) or use https://",
        ),
    )

    uri: str = Field(
        min_length=1,
        max_length=2048,
        pattern=MODEL_URI_PATTERN,
    )
    """Where the model is: `https://host/path`, `pvc://claim/path` (a volume in the same namespace),
    `configmap://name/key` (binaryData, models under 1 MiB) or `file:///path` (inside the image).
    """
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest of the file. The server refuses to serve anything else. Strongly recommended: with it, the same bytes are
    the same revision wherever they are fetched from."""
    version: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$",
    )
    """Version for people, used in metrics, answers and `kubectl get`. Default: the start of the digest, or of
    a hash of the URI.
    """
    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$",
    )
    """Name of the model in URLs (`/v2/models/NAME/infer`). Default: the name of the ModelDeployment."""
    format: ModelFormat = ModelFormat.ONNX
    """File format: `onnx`; `torch` (a program of torch.export, or TorchScript); `python` (a class); `chain` (steps of
    these). The last three need a runtime image that has what they import."""
    inputs: list[TensorDeclaration] = Field(default=[], max_length=64)
    """Inputs, in order, of a model that does not declare them itself: TorchScript, or a Python class. For a program of
    torch.export: other names than its own."""
    outputs: list[TensorDeclaration] = Field(default=[], max_length=64)
    """Outputs, likewise."""
    allow_code: bool = False
    """Whether Python code of the artefact may run in the pod, which can do whatever the pod may do."""
    entrypoint: str | None = Field(
        default=None,
        max_length=256,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*:[A-Za-z_][A-Za-z0-9_]*$",
    )
    """`module:Class` of a Python model. Default: `model:Model`."""
    padding: list[PaddingSpec] = Field(default=[], max_length=16)
    """Inputs that may differ in length within one run. Default: requests of different shapes run apart."""
    warmup: WarmupSpec = WarmupSpec()
    """Warm-up before ready."""


class MoreModelSpec(ApiModel):
    """One more model that the pods of this one offer, at `/v2/models/NAME/infer`."""

    model_config = rules(
        (
            "!self.uri.startsWith('http://') || has(self.sha256)",
            "serving.models[].sha256 is required with an http:// URI, since the transport proves nothing: "
            "add the digest (sha256sum FILE) or use https://",
        ),
    )

    name: str = Field(min_length=1, max_length=63, pattern=VERSION_PATTERN)
    """Name in URLs."""
    version: str = Field(default="1", min_length=1, max_length=63, pattern=VERSION_PATTERN)
    """Version in URLs. The first that is listed of a name answers where none is asked for."""
    uri: str = Field(min_length=1, max_length=2048, pattern=MODEL_URI_PATTERN)
    """Where it is, as `model.uri`."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest of the file."""
    format: ModelFormat = ModelFormat.ONNX
    """File format, as `model.format`."""
    inputs: list[TensorDeclaration] = Field(default=[], max_length=64)
    """Inputs of a model that does not declare them itself."""
    outputs: list[TensorDeclaration] = Field(default=[], max_length=64)
    """Outputs, likewise."""


class ResourcesSpec(ApiModel):
    """Requests and limits of the serving container, as in a pod."""

    requests: dict[str, Quantity] = Field(default={"cpu": "250m", "memory": "256Mi"}, max_length=16)
    """Reserved amounts. HPA targets are percentages of these."""
    limits: dict[str, Quantity] = Field(default={"cpu": "1", "memory": "1Gi"}, max_length=16)
    """Upper bounds; GPUs (`nvidia.com/gpu`) go here. The server sizes its threads by the CPU limit."""


class ExecutionSpec(ApiModel):
    """How the model is run."""

    model_config = rules(
        (
            "self.accelerator != 'none' || !(self.provider in ['cuda', 'tensorrt'])",
            "serving.execution.provider runs on a GPU: set accelerator to auto or gpu, or choose another provider",
        ),
        (
            "self.accelerator != 'gpu' || !(self.provider in ['cpu', 'openvino'])",
            "serving.execution.provider runs on the CPU: set accelerator to auto or none, or choose another provider",
        ),
    )

    accelerator: Accelerator = Accelerator.AUTO
    """`auto`: on a GPU where `resources` has `nvidia.com/gpu` (or a MIG slice), else on the CPU. `gpu`, and `auto` with
    such a resource: a pod that finds no usable GPU does not become ready; it never falls back to the CPU."""
    provider: ExecutionProvider = ExecutionProvider.AUTO
    """ONNX models: which execution provider. The runtime image must have it."""
    precision: Precision | None = None
    """Arithmetic in 16 bits: autocast for torch, TensorRT's own for ONNX. Default: the model's own datatypes."""
    compile: bool = False
    """torch models: `torch.compile` them. The image needs a C++ compiler (on a GPU: Triton), and the warm-up takes
    longer."""
    threads: int | None = Field(default=None, ge=1, le=256)
    """Threads for one run of the model on the CPU. Default: the pod's whole CPUs, shared among its processes."""
    gpu_memory: Quantity | None = None
    """ONNX models: most GPU memory that ONNX Runtime's arena takes. Default: no limit."""


_CIDR_PATTERN = r"^[0-9a-fA-F:.]+/[0-9]{1,3}$"


class JobWorkersSpec(ApiModel):
    """The pods that answer batch jobs. A change of anything here is no new revision."""

    model_config = rules(
        (
            "self.min <= self.max",
            "serving.jobs.workers.min must not be above max: lower the one or raise the other",
        ),
    )

    min: int = Field(default=1, ge=1, le=1000)
    """Fewest workers."""
    max: int = Field(default=4, ge=1, le=1000)
    """Most workers."""
    target_queue_length: int = Field(default=8, ge=1, le=100_000)
    """Chunks of rows that wait or run for each worker; above it workers are added, below it they are removed after
    five minutes."""
    resources: ResourcesSpec | None = None
    """Resources of each worker. Default: those of the servers."""


class JobsSpec(ApiModel):
    """Batch jobs: `POST /jobs` takes rows, workers answer them, results are downloaded later. Needs a Redis of the
    user's, which keeps jobs and results until they expire.
    """

    redis: SecretKeyRef
    """URL of the Redis, `redis://` or `rediss://`, with its password."""
    webhook_secret: SecretKeyRef | None = None
    """Secret that signs completion webhooks: `whsec_` and base64. Default: jobs with a callback are refused."""
    private_networks: list[
        Annotated[str, Field(min_length=3, max_length=64, pattern=_CIDR_PATTERN)]
    ] = Field(default=[], max_length=32)
    """Networks (CIDRs) that sources and callbacks may be in although they are not public. Default: none, so that nobody
    can have the pods ask the cluster's own services."""
    max_rows: int = Field(default=1_000_000, ge=1, le=25_000_000)
    """Most rows in one job."""
    max_job_size: Quantity = "64Mi"
    """Largest source of a job, and most that its rows take in Redis."""
    max_stored_size: Quantity = "1Gi"
    """What all jobs with their results may take in Redis; above it, clients get 429."""
    result_ttl: Duration = timedelta(days=1)
    """How long a job and its results are kept after it ended."""
    timeout: Duration = timedelta(days=1)
    """From submission to end; a job that takes longer fails."""
    workers: JobWorkersSpec = JobWorkersSpec()
    """The pods that answer."""


class ServingSpec(ApiModel):
    """How each pod serves the model. A change of anything here is a new revision."""

    model_config = rules(
        (
            "!has(self.audit) || !has(self.audit.kafka) || self.processes == 1",
            "serving.audit.kafka has one chain of records in each pod: set serving.processes to 1, or use audit.file",
        ),
        (
            "!has(self.models) || self.models.all(m, self.models.exists_one(o, "
            "o.name == m.name && o.version == m.version))",
            "serving.models names a model and version twice: give one another name or version, or remove it",
        ),
        (
            "!has(self.modelMemory) || has(self.models)",
            "serving.modelMemory bounds serving.models: list models, or remove it",
        ),
        (
            "!has(self.fallbacks) || self.fallbacks.all(f, !has(f.model) || has(self.models) && "
            "self.models.exists(m, m.name == f.model && (!has(f.version) || m.version == f.version)))",
            "serving.fallbacks[].model is none of serving.models: list it there, or name one that is",
        ),
    )

    max_batch_size: int = Field(default=32, ge=1, le=4096)
    """Most rows in one run of the model."""
    max_delay: Duration = timedelta(milliseconds=100)
    """Longest time that a request is held back for a fuller batch. A request never waits while the model is idle."""
    processes: int = Field(default=1, ge=0, le=64)
    """Serving processes in each pod, each with the model in its own memory; 0: one for each whole CPU of the limit.
    More pods are the better way to more throughput; processes are for pods that have several CPUs."""
    preferred_batch_sizes: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        default=[], max_length=16
    )
    """Numbers of rows that the model runs best, rising, at most `maxBatchSize`: of what waits, a run takes the largest
    of them that is full. Default: whatever waits."""
    allow_high_priority: bool | None = None
    """Whether requests may ask for high priority, which passes others. Default: where `security` makes all clients
    authenticate."""
    queue_size: int = Field(default=512, ge=1, le=100_000)
    """Most requests that wait in one pod; above it, clients get 429 with Retry-After."""
    request_timeout: Duration = timedelta(seconds=30)
    """Longest time from arrival to answer; after it, clients get 504."""
    max_body_size: Quantity = "16Mi"
    """Largest request body; above it, clients get 413."""
    models: list[MoreModelSpec] | None = Field(default=None, min_length=1, max_length=16)
    """More models in the same pods. Default: none. The rollout, its checks and readiness are about `model`."""
    model_memory: Quantity | None = None
    """Most memory of all models together, estimated by their size: `models` are then loaded when somebody asks for
    them, and the least recently used make room. Default: no bound, all are loaded at the start."""
    fallbacks: list[FallbackSpec] | None = Field(default=None, min_length=1, max_length=8)
    """Who answers when the model fails or takes too long, in that order. Such an answer is marked, and a failure to the
    checks of a rollout. Default: nobody."""
    backend_timeout: Duration | None = None
    """How long a request may wait for the model before the fallbacks are tried. Default: `requestTimeout`, which leaves
    them no time."""
    breaker_failures: int | None = Field(default=None, ge=0, le=1000)
    """With fallbacks: after so many failures of the model in a row it is left alone for a while; 0: never. Default: 5.
    """
    cache: CacheSpec | None = None
    """Keep answers, and give equal requests the same one without running the model. Default: off."""
    validation: ValidationSpec = ValidationSpec()
    """Rules for the values of requests, besides the model's datatypes and shapes."""
    grpc: bool = False
    """Answer the Open Inference Protocol V2 by gRPC, too: port 8001 of the pods and of the Services, named `grpc`."""
    drain_timeout: Duration = timedelta(seconds=30)
    """How long a pod that is being stopped may finish the requests it has taken."""
    execution: ExecutionSpec = ExecutionSpec()
    """What the model runs on, and how."""
    jobs: JobsSpec | None = None
    """Batch jobs. Default: none are taken."""
    image: str | None = Field(default=None, min_length=1, max_length=1024)
    """Runtime image. Default: the one that the operator was installed with."""
    resources: ResourcesSpec = ResourcesSpec()
    """Resources of each pod."""
    service_account_name: str | None = Field(default=None, max_length=253)
    """Service account of the pods. Default: the namespace's `default`, without a token mounted."""
    image_pull_secrets: list[str] = Field(default=[], max_length=16)
    """Names of Secrets for pulling the runtime image."""
    node_selector: dict[str, str] = Field(default={}, max_length=32)
    """Labels that a node must have."""
    tolerations: list[OpaqueObject] = Field(default=[], max_length=32)
    """Tolerations, as in a pod: spot nodes, GPU nodes."""
    affinity: OpaqueObject | None = None
    """Affinity, as in a pod."""
    pod_labels: dict[str, str] = Field(default={}, max_length=32)
    """More labels for the pods. Labels under canarium.dev/ are the operator's own."""
    pod_annotations: dict[str, str] = Field(default={}, max_length=32)
    """More annotations for the pods."""
    security: SecuritySpec | None = None
    """Who may ask, and over which transport. Default: anyone who reaches a pod, over plain HTTP."""
    rate_limit: RateLimitSpec | None = None
    """How often each client may ask. Default: as often as it likes."""
    audit: AuditSpec | None = None
    """A record of each prediction. Default: none is made."""

    tracing: TracingSpec | None = None
    """Traces of requests. Default: none are made."""

    @property
    def speaks_tls(self) -> bool:
        """Whether the pods speak TLS."""
        return self.security is not None and self.security.tls is not None


class AutoscalingSpec(ApiModel):
    """Bounds and targets of each revision's HorizontalPodAutoscaler."""

    model_config = rules(
        (
            "self.minReplicas <= self.maxReplicas",
            "autoscaling.minReplicas must not be above autoscaling.maxReplicas: lower the one or raise the other",
        ),
        (
            "self.cpu > 0 || self.memory > 0",
            "autoscaling needs a target: set cpu or memory above 0; "
            "for a fixed size, set minReplicas and maxReplicas to the same number",
        ),
    )

    min_replicas: int = Field(default=3, ge=1, le=1000)
    """Fewest pods of the stable revision."""
    max_replicas: int = Field(default=20, ge=1, le=1000)
    """Most pods of any one revision."""
    cpu: int = Field(default=70, ge=0, le=1000)
    """Target CPU utilisation, percent of the request; 0: pods are not counted by their CPU."""
    memory: int = Field(default=80, ge=0, le=1000)
    """Target memory utilisation, percent of the request; 0: pods are not counted by their memory."""


class GatewayRef(ApiModel):
    """A Gateway of the Gateway API."""

    name: str = Field(min_length=1, max_length=253)
    """Name of the Gateway."""
    namespace: str | None = Field(default=None, min_length=1, max_length=63)
    """Its namespace. Default: the ModelDeployment's own."""
    section_name: str | None = Field(default=None, min_length=1, max_length=253)
    """One listener of it. Default: all that admit the route."""


HOSTNAME_PATTERN = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"


class TrafficSpec(ApiModel):
    """How requests reach the model."""

    model_config = rules(
        (
            "has(self.gateway) || !has(self.hostnames) || self.hostnames.size() == 0",
            "traffic.hostnames are names at a gateway: set traffic.gateway, or remove them",
        ),
    )

    gateway: GatewayRef | None = None
    """Gateway that carries the traffic and splits it by weight. Default: none; then clients in the cluster use the
    Service `NAME`, and weights are the ratio of pods.
    """
    hostnames: list[
        Annotated[str, Field(min_length=1, max_length=253, pattern=HOSTNAME_PATTERN)]
    ] = Field(default=[], max_length=16)
    """Host names of the route. Default: `NAME.NAMESPACE.models.local`, so that two models never answer for
    one another.
    """


_PODS = "self.autoscaling.minReplicas"
_MOST = "self.autoscaling.maxReplicas"
_OFFSETS = f"[{','.join(map(str, range(100)))}]"
"""From 99 pods of stable on, some number of canary pods is within half a point of any weight."""


def _reachable(weight: str) -> str:
    """CEL for `core.ratio.least_stable`: some number s of stable's pods, with the most pods c of the canary that keep
    within the weight, is within half a percentage point of it. Lists of one element name a value; CEL has no `let`.
    """
    return (
        f"{_OFFSETS}.exists(k, {_PODS} + k <= {_MOST} && [{_PODS} + k].exists(s, "
        f"[(2 * {weight} + 1) * s / (199 - 2 * {weight})].exists(q, [q < 1 ? 1 : q > {_MOST} ? {_MOST} : q].exists(c, "
        f"200 * c - 2 * {weight} * (s + c) <= s + c && 2 * {weight} * (s + c) - 200 * c <= s + c))))"
    )


_WEIGHTS = "self.rollout.canary.steps.map(step, step.weight)"
_UNREACHABLE = f"{_WEIGHTS}.filter(w, w < 100 && !({_reachable('w')}))"
_TO_99 = f"[{','.join(map(str, range(1, 100)))}]"
_NAMED = "+".join(f"({w} in bad ? '{w}% ' : '')" for w in range(1, 100))
_OFFERED = "+".join(f"({w} in good ? '{w}, ' : '')" for w in range(1, 100))
# The estimate of a rule's cost allows neither join nor string(int) here, only literals.
_RATIO_RULE = (
    f"has(self.traffic) && has(self.traffic.gateway) || !has(self.rollout.canary) || "
    f"{_WEIGHTS} == [{', '.join(str(step.weight) for step in DEFAULT_STEPS)}] || {_UNREACHABLE}.size() == 0",
    "rollout.canary.steps[].weight is one that no ratio of pods gives: choose another weight, raise "
    "autoscaling.maxReplicas, or set traffic.gateway",
    f"[{_TO_99}.filter(w, {_reachable('w')})].map(good, [{_UNREACHABLE}].map(bad, "
    f"'rollout.canary.steps[].weight: without a gateway no ratio of minReplicas to maxReplicas pods gives ' "
    f"+ {_NAMED} + ': use ' + {_OFFERED} + '100, raise autoscaling.maxReplicas, or set traffic.gateway')[0])[0]",
)


class ModelDeploymentSpec(ApiModel):
    """A model, how to serve it, how to reach it and how to replace it."""

    model_config = rules(
        _RATIO_RULE,
        (
            "!has(self.rollout.shadow) || self.serving.processes == 1",
            "rollout.shadow compares the answers of pods with one process: set serving.processes to 1, or remove "
            "rollout.shadow",
        ),
        (
            "has(self.traffic) && has(self.traffic.gateway) || !has(self.rollout.fixed)",
            "rollout.fixed needs a gateway, which splits by weight and by header: set traffic.gateway",
        ),
        (
            "!has(self.serving) || !has(self.serving.jobs) || !has(self.rollout.fixed)",
            "serving.jobs needs one stable revision, and rollout.fixed has several: remove one of the two",
        ),
        (
            "!has(self.gitops) || !has(self.rollout.fixed)",
            "gitops writes promotions and rollbacks, and rollout.fixed has none: remove one of the two",
        ),
        (
            "has(self.traffic) && has(self.traffic.gateway) || !has(self.rollout.abTest)",
            "rollout.abTest needs a gateway, since without one nothing tells users apart: set traffic.gateway, or use "
            "canary",
        ),
    )

    model: ModelSpec
    serving: ServingSpec = ServingSpec()
    autoscaling: AutoscalingSpec = AutoscalingSpec()
    traffic: TrafficSpec = TrafficSpec()
    rollout: RolloutSpec = RolloutSpec()
    gitops: GitOpsSpec | None = None
    """Write promotions and rollbacks into git. Default: git is left alone."""
