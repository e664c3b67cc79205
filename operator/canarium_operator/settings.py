"""Settings of the operator: environment variables, each `CANARIUM_` and its name in capitals."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from canarium_api.duration import Duration

PREFIX = "CANARIUM_"


class OperatorSettings(BaseModel):
    """What an administrator may set. Every setting has a default that suits a cluster."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    prometheus_url: str = Field(
        default="http://prometheus.monitoring:9090", pattern=r"^https?://.+"
    )
    """Prometheus-compatible API that the gates query. May carry `user:password@`; it is never logged."""
    prometheus_timeout: Duration = timedelta(seconds=10)
    """For one query."""
    runtime_image: str = Field(default="canarium.dev/canarium-runtime:dev", min_length=1)
    """Image of the inference server, unless a ModelDeployment names its own."""
    watch_namespaces: str = ""
    """Namespaces to look after, comma-separated; empty: all."""
    kube_timeout: Duration = timedelta(seconds=15)
    """For one call of the Kubernetes API."""
    max_concurrent: int = Field(default=16, ge=1, le=1000)
    """Most ModelDeployments that are reconciled at the same moment."""
    resync: Duration = timedelta(minutes=30)
    """How often all children of an object at rest are applied anew. What others change is seen by a watch and repaired
    at once, or after a minute where it is changed again and again; this is for what no watch told."""
    memory_namespace: str = ""
    """Namespace in which a copy of what is remembered of each ModelDeployment is kept, so that it outlives that one's
    namespace; most often the operator's own. Empty: no copies."""
    metrics_port: int = Field(default=8080, ge=0, le=65535)
    """Port of /metrics; 0: any free one."""
    health_port: int = Field(default=8081, ge=1, le=65535)
    """Port of /healthz."""
    decision_log: str | None = Field(default=None, min_length=1)
    """File to which every decision is written with all that it rests on, for `canarium plan --replay`. At 64 MiB it is
    put aside as FILE.1 and begun anew. Default: nothing is recorded."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """Least severity that is logged."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read from environment variables; raises pydantic.ValidationError naming the field."""
        fields = {
            name: environ[PREFIX + name.upper()]
            for name in cls.model_fields
            if PREFIX + name.upper() in environ
        }
        return cls.model_validate(fields)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces to look after; empty: all."""
        return tuple(name.strip() for name in self.watch_namespaces.split(",") if name.strip())
