"""Defaults that depend on other fields, filled in before a spec is checked and carried out."""

from typing import Final

from canarium_api.rollout import DEFAULT_STEPS, CanarySpec
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import ratio
from canarium_operator.core.rollout.strategy import Strategy, strategy_of

MOST_MORE: Final = 2
"""How many times `minReplicas` the default steps may ask of stable: small weights are dear without a gateway."""


def filled_in(spec: ModelDeploymentSpec) -> ModelDeploymentSpec:
    """Leave out of the default steps those that need too many pods, where there is no gateway.

    With 3 to 20 pods, 25, 50 and 100 are left: 10 % would need 9 pods of stable. Steps count as the default by their
    weights: the API server writes them into an object whose `canary` names none.
    """
    rollout = spec.rollout
    if spec.traffic.gateway is not None or strategy_of(rollout) is not Strategy.CANARY:
        return spec
    canary = rollout.canary or CanarySpec()
    if [step.weight for step in canary.steps] != [step.weight for step in DEFAULT_STEPS]:
        return spec
    fewest = spec.autoscaling.min_replicas
    most = min(MOST_MORE * fewest, spec.autoscaling.max_replicas)
    steps = [
        step
        for step in canary.steps
        if step.weight == 100 or ratio.least_stable(step.weight, fewest, most) is not None
    ]
    changed = rollout.model_copy(update={"canary": canary.model_copy(update={"steps": steps})})
    return spec.model_copy(update={"rollout": changed})
