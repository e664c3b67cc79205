"""`Evidence`: what a sequential test keeps in the status."""

from canarium_api.base import ApiModel


class Evidence(ApiModel):
    """What a sequential test carries from step to step; see docs/explanation/evidence.md."""

    carried: float = 0.0
    """Weighted evidence of the steps that have ended."""
    rest: float = 1.0
    """Weight that is left for steps to come."""
    log: float = 0.0
    """Natural logarithm of the evidence of the present step: above 0 speaks against the canary."""
