"""`RouterConfig`: what the operator tells the router of a sticky A/B test, besides the split itself."""

from datetime import timedelta
from typing import ClassVar, Final

from pydantic import Field

from canarium_api.duration import Duration
from canarium_api.environment import EnvironmentModel

PREFIX: Final = "CANARIUM_ROUTER_"
PROXY_PORT: Final = 8080
ADMIN_PORT: Final = 8081


class RouterConfig(EnvironmentModel):
    """Settings of one router. Everything has a default."""

    env_prefix: ClassVar[str] = PREFIX

    deployment: str = Field(default="local/model", pattern=r"^[^/\s]+/[^/\s]+$")
    """`namespace/name` of the ModelDeployment: its Services are the only places that requests go to."""
    upstream: str = "http://{name}-{revision}.{namespace}.svc:80"
    """Where a revision is; `{namespace}`, `{name}` and `{revision}` are replaced."""
    timeout: Duration = Field(default=timedelta(seconds=30), gt=timedelta(0))
    """Longest wait for a server; a server answers by itself before it, with its own explanation."""
    max_body_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Bytes; largest body that a server takes. Bodies pass through and are not kept."""
    max_connections: int = Field(default=500, ge=1, le=20_000)
    """To both versions together; also most requests under way."""
    drain_delay: Duration = timedelta(seconds=5)
    """How long it goes on accepting after it was told to stop."""
    drain_timeout: Duration = timedelta(seconds=30)
    """How long requests under way have after that."""
    host: str = "0.0.0.0"  # noqa: S104 - a pod's address is not known beforehand
    """Address to listen on."""
    port: int = Field(default=PROXY_PORT, ge=0, le=65535)
    """Port of requests."""
    admin_port: int = Field(default=ADMIN_PORT, ge=0, le=65535)
    """Port of /metrics and /health."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """Least severity that is logged."""
