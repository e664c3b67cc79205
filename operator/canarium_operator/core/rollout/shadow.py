"""A shadow: its checks, and whether the gateway can copy requests at all.

The answers of both versions are compared by the comparer (`canarium_runtime.shadow`); here its counts become checks
like any other.
"""

from typing import Any, Final

from canarium_api import metric_names as names
from canarium_api.analysis import MetricSpec, ProportionSpec
from canarium_api.conditions import Reason
from canarium_api.metric_names import ShadowMismatch, ShadowOutcome
from canarium_api.shadow import (
    FLIP_RATE,
    MISMATCH_RATE,
    PSI,
    RANK_CORRELATION,
    SHADOW_CHECKS,
)
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import mirroring
from canarium_operator.core.rollout.inputs import (
    RESYNC,
    Decision,
    RolloutInput,
    current_step,
)
from canarium_operator.core.rollout.queries import has_limit, templates
from canarium_operator.core.rollout.strategy import StepKind

_LIMITS: Final[dict[str, dict[str, float]]] = {
    MISMATCH_RATE: {"max": 0.01},
    FLIP_RATE: {"max": 0.05},
    PSI: {"max": 0.25},
    RANK_CORRELATION: {"min": 0.9},
}
_DEFAULTS: Final = (
    MetricSpec(name=FLIP_RATE),
    MetricSpec(name=PSI),
    MetricSpec(name=MISMATCH_RATE, dry_run=True),
)


def with_checks(spec: ModelDeploymentSpec) -> ModelDeploymentSpec:
    """Fill in the queries and limits of a shadow's built-in checks, and the checks themselves where none is named."""
    rollout = spec.rollout
    if rollout.shadow is None:
        return spec
    metrics = list(rollout.analysis.metrics)
    known = {metric.name for metric in metrics}
    if known.isdisjoint(SHADOW_CHECKS):
        asked = rollout.shadow.metrics
        metrics += [m for m in _DEFAULTS if asked is None or m.name in asked]
    analysis = rollout.analysis.model_copy(update={"metrics": [_filled(m) for m in metrics]})
    changed = rollout.model_copy(update={"analysis": analysis})
    return spec.model_copy(update={"rollout": changed})


def _filled(metric: MetricSpec) -> MetricSpec:
    if metric.name not in SHADOW_CHECKS or templates(metric):
        return metric
    changes: dict[str, Any] = dict(_queries(metric.name))
    if not has_limit(metric):
        changes |= _LIMITS[metric.name]
    return metric.model_copy(update=changes)


def _queries(name: str) -> dict[str, Any]:
    if name == PSI:
        return {"query": f"max({names.SHADOW_PSI}{_selector()})"}
    if name == RANK_CORRELATION:
        return {"query": f"min({names.SHADOW_RANK_CORRELATION}{_selector()})"}
    pairs = [ShadowOutcome.COMPARED]
    events = names.SHADOW_MISMATCHES_TOTAL + _selector(
        f'{names.KIND_LABEL}="{ShadowMismatch.FLIP}"'
    )
    if name == MISMATCH_RATE:
        pairs = list(names.SHADOW_JUDGED_OUTCOMES)
        events = names.SHADOW_MISMATCHED_PAIRS_TOTAL + _selector()
    trials = names.SHADOW_PAIRS_TOTAL + _selector(f'{names.OUTCOME_LABEL}=~"{"|".join(pairs)}"')
    return {"proportion": ProportionSpec(events=_counted(events), trials=_counted(trials))}


def _selector(*more: str) -> str:
    identity = [f'{names.DEPLOYMENT_LABEL}="{{{{deployment}}}}"']
    identity.append(f'{names.REVISION_LABEL}="{{{{revision}}}}"')
    return "{" + ",".join([*identity, *more]) + "}"


def _counted(series: str) -> str:
    return f"sum(increase({series}[{{{{window}}}}]))"


def stalled(given: RolloutInput) -> str | None:
    """Say that the gateway cannot copy requests, where a shadow is under way or would be next."""
    message = mirroring.unsupported(given.spec, given.observed.gateway_class)
    if message is None or given.status.canary is None:
        return message
    return message if current_step(given).kind is StepKind.SHADOW else None


def refused(given: RolloutInput) -> Decision | None:
    """Keep a shadow from starting, or from going on, where the gateway cannot copy requests."""
    message = stalled(given)
    if message is None:
        return None
    return Decision(
        status=given.status,
        requeue_after=RESYNC,
        blocked_on=Reason.MIRROR_UNSUPPORTED,
        waiting=message,
    )
