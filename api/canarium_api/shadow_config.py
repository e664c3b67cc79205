"""`ShadowConfig` and `Targets`: what the operator tells the comparer of a shadow rollout.

The comparer (`python -m canarium_runtime.shadow`) reads `ShadowConfig` from its environment once, and `Targets` from a
file again and again, since pods come and go.
"""

from datetime import timedelta
from typing import Annotated, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from canarium_api.duration import Duration
from canarium_api.environment import EnvironmentModel

PREFIX: Final = "CANARIUM_SHADOW_"
METRICS_PORT: Final = 8080
TARGETS_FILE: Final = "/etc/canarium/shadow/targets.json"

BaseUrl = Annotated[
    str,
    StringConstraints(
        max_length=300, pattern=r"^http://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):\d{1,5}$"
    ),
]
"""`http://HOST:PORT`, nothing behind it."""


class ShadowConfig(EnvironmentModel):
    """Settings of one comparer. Everything has a default."""

    env_prefix: ClassVar[str] = PREFIX

    deployment: str = "local/model"
    """`namespace/name` of the ModelDeployment: metric label."""
    revision: str = "shadow"
    """Revision of the shadow: metric label."""
    targets_file: str = TARGETS_FILE
    """Where the addresses of the pods are; read again before each round."""
    token_file: str | None = None
    """File with the bearer token for the pods. Default: none is sent."""
    absolute_tolerance: float = Field(default=1e-6, ge=0)
    """Largest absolute difference of two numbers that count as the same."""
    relative_tolerance: float = Field(default=1e-3, ge=0)
    """Largest difference relative to stable's number; added to the absolute one."""
    window: Duration = Field(default=timedelta(seconds=30), gt=timedelta(0))
    """How long the answer of one side waits for the other's."""
    pull_interval: Duration = Field(
        default=timedelta(seconds=1), gt=timedelta(0), le=timedelta(seconds=5)
    )
    """Between two rounds of fetching, at most 5s: pods stop recording ten seconds after the last one."""
    answers_per_second: float = Field(default=200, gt=0, le=10_000)
    """Most answers a second of one side that are compared; of more, a share is chosen by request id."""
    host: str = "0.0.0.0"  # noqa: S104 - a pod's address is not known beforehand
    """Address to listen on."""
    port: int = Field(default=METRICS_PORT, ge=1, le=65535)
    """Port of /metrics and /health."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """Least severity that is logged."""


class Targets(BaseModel):
    """Content of the targets file: where the pods of both sides offer their answers.

    A host may be an address or a name. A name stands for all addresses that it resolves to, so that the name of a
    headless Service stands for its pods.
    """

    model_config = ConfigDict(frozen=True)

    stable: list[BaseUrl] = Field(default=[], max_length=200)
    shadow: list[BaseUrl] = Field(default=[], max_length=200)
