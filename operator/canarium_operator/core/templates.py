"""AnalysisTemplates: their checks, with the arguments filled in, become those of the spec."""

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from canarium_api.analysis import (
    AnalysisTemplateSpec,
    MeanSpec,
    MetricSpec,
    ProportionSpec,
    TemplateRef,
)
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.problems import Problem

_ARGUMENT: Final = re.compile(r"\{\{\s*args\.(\w+)\s*\}\}")
MAX_METRICS: Final = 20
"""Checks in all, as many as a status holds."""

TemplateKey = tuple[bool, str]
"""(cluster-wide, name)."""


def references_of(raw: Any) -> frozenset[TemplateKey]:
    """Name the templates that a `.spec` uses; none where it cannot be read, which is for validation to say."""
    try:
        named = raw["rollout"]["analysis"]["templates"]
        refs = [TemplateRef.from_manifest(ref) for ref in named]
    except (KeyError, TypeError, ValidationError):
        return frozenset()
    return frozenset((ref.cluster_scope, ref.name) for ref in refs)


def resolve(
    spec: ModelDeploymentSpec, found: Mapping[TemplateKey, Any]
) -> ModelDeploymentSpec | list[Problem]:
    """Put the checks of templates into a spec, after its own.

    Args:
        spec: as the user wrote it.
        found: `.spec` of the templates; what does not exist is absent.

    Returns:
        The spec without references; problems where a template is missing, cannot be read, lacks an argument, or brings
        a check of a name that is taken.
    """
    analysis = spec.rollout.analysis
    if not analysis.templates:
        return spec
    metrics, problems = list(analysis.metrics), list[Problem]()
    for index, ref in enumerate(analysis.templates):
        field = f"spec.rollout.analysis.templates[{index}]"
        added = _metrics(ref, found, field)
        if isinstance(added, Problem):
            problems.append(added)
            continue
        taken = {metric.name for metric in metrics}
        for metric in added:
            if metric.name in taken:
                message = (
                    f"{ref.name} brings a check {metric.name!r}, which there is already: remove one"
                )
                problems.append(Problem(field=f"{field}.name", message=message))
        metrics += [metric for metric in added if metric.name not in taken]
    if len(metrics) > MAX_METRICS:
        message = (
            f"{len(metrics)} checks with those of the templates, at most {MAX_METRICS}: use fewer"
        )
        problems.append(Problem(field="spec.rollout.analysis.templates", message=message))
    if problems:
        return problems
    changed = analysis.model_copy(update={"metrics": metrics, "templates": []})
    rollout = spec.rollout.model_copy(update={"analysis": changed})
    return spec.model_copy(update={"rollout": rollout})


def _metrics(
    ref: TemplateRef, found: Mapping[TemplateKey, Any], field: str
) -> list[MetricSpec] | Problem:
    kind = "ClusterAnalysisTemplate" if ref.cluster_scope else "AnalysisTemplate"
    raw = found.get((ref.cluster_scope, ref.name))
    if raw is None:
        where = "" if ref.cluster_scope else " in this namespace"
        message = f"{kind} {ref.name} does not exist{where}: create it, or remove the reference"
        return Problem(field=f"{field}.name", message=message)
    try:
        template = AnalysisTemplateSpec.from_manifest(raw)
    except ValidationError as error:
        message = f"{kind} {ref.name} cannot be read: {error.errors()[0]['msg']}"
        return Problem(field=f"{field}.name", message=message)
    given = {argument.name: argument.value for argument in ref.args}
    declared = {argument.name: argument.value for argument in template.args}
    unknown = sorted(given.keys() - declared.keys())
    if unknown:
        known = ", ".join(declared) or "none"
        message = f"{ref.name} has no argument {unknown[0]!r}: it takes {known}"
        return Problem(field=f"{field}.args", message=message)
    values = {name: given.get(name, default) for name, default in declared.items()}
    missing = sorted(name for name, value in values.items() if value is None)
    if missing:
        message = f"{ref.name} needs a value for {missing[0]!r}: add it to args"
        return Problem(field=f"{field}.args", message=message)
    return [_filled(metric, values) for metric in template.metrics]


def _filled(metric: MetricSpec, values: Mapping[str, str | None]) -> MetricSpec:
    """Replace the arguments in all queries of a check."""

    def fill(text: str) -> str:
        return _ARGUMENT.sub(lambda match: values.get(match[1]) or match[0], text)

    changes: dict[str, Any] = {}
    if metric.query is not None:
        changes["query"] = fill(metric.query)
    if metric.proportion is not None:
        part = metric.proportion
        changes["proportion"] = ProportionSpec(events=fill(part.events), trials=fill(part.trials))
    if metric.mean is not None:
        mean = metric.mean
        changes["mean"] = MeanSpec(
            sum=fill(mean.sum),
            sum_of_squares=fill(mean.sum_of_squares),
            count=fill(mean.count),
        )
    return metric.model_copy(update=changes)
