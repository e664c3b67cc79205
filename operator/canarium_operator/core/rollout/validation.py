"""Checks of `spec.rollout` across its fields, each with the field and the remedy."""

import re
from collections.abc import Sequence
from typing import Final

from canarium_api import metric_names
from canarium_api.analysis import MetricSpec
from canarium_api.rollout import RolloutSpec
from canarium_api.shadow import SHADOW_CHECKS
from canarium_operator.core.problems import Problem
from canarium_operator.core.rollout import analysis, holds, promql, queries
from canarium_operator.core.rollout.queries import has_limit
from canarium_operator.core.rollout.strategy import steps_of, strategy_of

_PLACEHOLDER: Final = re.compile(r"\{\{\s*([^}]*?)\s*\}\}")
_ANALYSIS: Final = "spec.rollout.analysis.metrics"


def validate_rollout(spec: RolloutSpec) -> list[Problem]:
    """Check how a new revision takes over."""
    problems = []
    for index, metric in enumerate(spec.analysis.metrics):
        field = f"{_ANALYSIS}[{index}]"
        problems += _metric(metric, field)
        if metric.name in SHADOW_CHECKS:
            problems += _of_shadow(spec, metric, field)
    return [*problems, *_names(spec), *_goals(spec), *_freezes(spec), *_ready_step(spec)]


def _metric(metric: MetricSpec, field: str) -> list[Problem]:
    problems = []
    if metric.min is not None and metric.max is not None and metric.min > metric.max:
        problems.append(
            Problem(field=f"{field}.min", message="above max, so nothing could pass: swap them")
        )
    if metric.min_effect is not None and metric.min_effect < 0:
        message = "a worsening is a positive number: write it without the minus"
        problems.append(Problem(field=f"{field}.minEffect", message=message))
    templates = queries.templates(metric)
    if not templates:
        return problems + _builtin(metric, field)
    if metric.query is not None:
        problems += _query(metric, field)
    part = "proportion." if metric.proportion is not None else "mean." if metric.mean else ""
    for name, template in templates.items():
        camel = re.sub(r"_(.)", lambda m: m[1].upper(), name)
        problems += _template(metric, template, f"{field}.{part}{camel}")
    return problems


def _of_shadow(spec: RolloutSpec, metric: MetricSpec, field: str) -> list[Problem]:
    """Refuse a check of a shadow where there is none, and limits that compare what is a comparison already."""
    if spec.shadow is None:
        message = f"{metric.name} compares the answers of a shadow: add rollout.shadow, or remove the check"
        return [Problem(field=f"{field}.name", message=message)]
    against = {"minEffect": metric.min_effect, "maxIncrease": metric.max_increase}
    against["maxRatio"] = metric.max_ratio
    message = f"{metric.name} compares with stable already: use max or min"
    return [
        Problem(field=f"{field}.{name}", message=message)
        for name, limit in against.items()
        if limit is not None
    ]


def _query(metric: MetricSpec, field: str) -> list[Problem]:
    """Check a query that gives one number: it can be held against limits, not against chance."""
    if metric.min_effect is not None:
        message = "one number does not say how sure it is: give counts (proportion, or mean), or use maxIncrease"
        return [Problem(field=f"{field}.minEffect", message=message)]
    if not has_limit(metric) and not metric.dry_run:
        message = "without a limit everything passes: add max, min, maxIncrease or maxRatio"
        return [Problem(field=f"{field}.query", message=message)]
    return []


def _template(metric: MetricSpec, template: str, field: str) -> list[Problem]:
    names = _PLACEHOLDER.findall(template)
    unknown = sorted(set(names) - set(promql.PLACEHOLDERS))
    if unknown:
        known = ", ".join("{{" + name + "}}" for name in promql.PLACEHOLDERS)
        message = f"unknown placeholder {unknown[0]!r}: use {known}"
        return [Problem(field=field, message=message)]
    if analysis.is_relative(metric) and "revision" not in names:
        message = (
            "a comparison with stable needs {{revision}} in the query, or both sides are one series"
        )
        return [Problem(field=field, message=message)]
    return []


def _builtin(metric: MetricSpec, field: str) -> list[Problem]:
    """Refuse a latency limit that no histogram of the server could ever exceed."""
    top = metric_names.DURATION_BUCKETS[-1]
    if promql.LATENCY.match(metric.name) and metric.max is not None and metric.max >= top:
        message = (
            f"above the server's largest bucket, so nothing could fail: set less than {top:g}s"
        )
        return [Problem(field=f"{field}.max", message=message)]
    return []


def _names(spec: RolloutSpec) -> list[Problem]:
    """Refuse a step that is gated on a check which there is not."""
    lists: list[tuple[str, Sequence[str] | None]] = []
    if spec.canary is not None:
        lists += [(f"canary.steps[{n}]", s.metrics) for n, s in enumerate(spec.canary.steps)]
    if spec.blue_green is not None:
        lists.append(("blueGreen.beforeSwitch", spec.blue_green.before_switch.metrics))
        lists.append(("blueGreen.afterSwitch", spec.blue_green.after_switch.metrics))
    if spec.shadow is not None:
        lists.append(("shadow", spec.shadow.metrics))
    known = [metric.name for metric in spec.analysis.metrics]
    return [
        Problem(
            field=f"spec.rollout.{place}.metrics",
            message=f"there is no check {name!r}: use one of {', '.join(known) or 'none'}",
        )
        for place, names in lists
        for name in names or ()
        if name not in known
    ]


def _goals(spec: RolloutSpec) -> list[Problem]:
    """Refuse goals that no test can decide, and a test that ends before it may."""
    test = spec.ab_test
    if test is None:
        return []
    field = "spec.rollout.abTest"
    problems = []
    known = {metric.name: metric for metric in spec.analysis.metrics}
    for index, name in enumerate(test.goals):
        metric = known.get(name)
        message = ""
        if metric is None:
            message = f"there is no check {name!r} in analysis.metrics: use one of {', '.join(known) or 'none'}"
        elif metric.query is not None:
            message = f"{name!r} is one number, which does not say how sure it is: give counts (proportion, or mean)"
        elif has_limit(metric):
            message = f"{name!r} has a fixed limit, and a goal is a comparison: put the limit into a check of its own"
        elif metric.dry_run:
            message = f"{name!r} is a dry run, which decides nothing: remove dryRun"
        if message:
            problems.append(Problem(field=f"{field}.goals[{index}]", message=message))
    if test.min_duration > test.max_duration:
        message = (
            "longer than maxDuration, so nothing could be decided: lower it, or raise maxDuration"
        )
        problems.append(Problem(field=f"{field}.minDuration", message=message))
    return problems


def _freezes(spec: RolloutSpec) -> list[Problem]:
    problems = []
    for index, window in enumerate(spec.freezes):
        field = f"spec.rollout.freezes[{index}]"
        if holds.unknown_zone(window):
            message = f"{window.time_zone!r} is no time zone: write one such as Europe/Berlin"
            problems.append(Problem(field=f"{field}.timeZone", message=message))
        if window.start is not None and window.end is not None and window.end <= window.start:
            problems.append(Problem(field=f"{field}.end", message="not after start: swap them"))
    return problems


def _ready_step(spec: RolloutSpec) -> list[Problem]:
    """Refuse a step that no rollout of this spec reaches."""
    if spec.ready_step is None or spec.fixed is not None:
        return []
    steps = len(steps_of(spec, strategy_of(spec)))
    if spec.ready_step <= steps:
        return []
    message = f"is {spec.ready_step}, and the rollout has {steps} steps: set at most {steps}, or readyWhen: Promoted"
    return [Problem(field="spec.rollout.readyStep", message=message)]
