"""`spec.rollout.shadow`: copies of users' requests go to the new version before any user gets its answers."""

from datetime import timedelta
from typing import Final

from pydantic import Field

from canarium_api.base import ApiModel
from canarium_api.duration import Duration

MISMATCH_RATE: Final = "shadow-mismatch-rate"
FLIP_RATE: Final = "shadow-flip-rate"
PSI: Final = "shadow-psi"
RANK_CORRELATION: Final = "shadow-rank-correlation"
SHADOW_CHECKS: Final = (MISMATCH_RATE, FLIP_RATE, PSI, RANK_CORRELATION)
"""Names of the built-in checks that compare the answers of shadow and stable."""


class ShadowTolerance(ApiModel):
    """When two numbers count as the same: they differ by at most absolute + relative * |stable's number|."""

    absolute: float = Field(default=1e-6, ge=0)
    """Largest absolute difference."""
    relative: float = Field(default=1e-3, ge=0)
    """Largest difference relative to stable's number."""


class ShadowSpec(ApiModel):
    """A step before all others: the gateway sends copies of stable's requests to the new version, whose answers nobody
    gets and which are compared with stable's.

    The gateway must be able to mirror requests; the GatewayClass says whether it does.
    """

    percent: int = Field(default=100, ge=1, le=100)
    """Percent of the requests that are copied. The new version is given pods for this share."""
    pause: Duration = timedelta(minutes=10)
    """Least time of the step."""
    approval: bool = False
    """The step ends only when somebody has approved it, besides pause and checks."""
    metrics: list[str] | None = Field(default=None, max_length=20)
    """Names of the checks that the step is gated on. Default: all. The built-in checks of the shadow belong to this
    step alone: `shadow-mismatch-rate` (share of pairs in which a client would have got something else),
    `shadow-flip-rate` (another class), `shadow-psi` (another distribution of outputs), `shadow-rank-correlation`.
    Where `analysis.metrics` names none of them, flips at most 5 % and a PSI of at most 0.25 are asked for, and
    mismatches are shown without deciding anything."""
    tolerance: ShadowTolerance = ShadowTolerance()
    """When two numbers count as the same."""
