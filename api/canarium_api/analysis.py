"""`spec.rollout.analysis`: what must be true of a canary, and how sure the gate must be of it.

A check compares the canary with the stable revision by a sequential test, or holds it against a fixed limit, or both.
"""

from datetime import timedelta
from enum import StrEnum

from pydantic import Field

from canarium_api.base import ApiModel, rules
from canarium_api.duration import Duration
from canarium_api.quantity import Limit
from canarium_api.shadow import SHADOW_CHECKS

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_BUILT_IN = (
    f"self.name in {['error-rate', 'invalid-rate', *SHADOW_CHECKS]} || "
    "self.name.matches('^latency-p[0-9]{2}$')"
)


class OnInsufficientData(StrEnum):
    """What a step does whose pause is over while evidence is missing."""

    HOLD = "hold"
    """Wait at the present weight, at most `maxWait`; then the canary is taken back."""
    EXTEND = "extend"
    """Wait at the present weight for as long as it takes; only `canary.maxDuration` ends it."""
    FAIL = "fail"
    """Take the canary back at once."""


class ProportionSpec(ApiModel):
    """Counts of a share: label flips of answers, orders of visitors."""

    events: str = Field(min_length=1, max_length=4096)
    """PromQL that counts what happened for one revision, such as
    `sum(increase(flips_total{revision="{{revision}}"}[{{window}}]))`."""
    trials: str = Field(min_length=1, max_length=4096)
    """PromQL that counts how often it could have happened."""


class MeanSpec(ApiModel):
    """Sums of a mean: accuracy, confidence, revenue of an answer."""

    sum: str = Field(min_length=1, max_length=4096)
    """PromQL for the sum of the values of one revision."""
    sum_of_squares: str = Field(min_length=1, max_length=4096)
    """PromQL for the sum of their squares: without it, nobody can say how sure a mean is."""
    count: str = Field(min_length=1, max_length=4096)
    """PromQL for the number of values."""


class MetricSpec(ApiModel):
    """One check of the canary.

    Built in, when none of `query`, `proportion` and `mean` is given: `error-rate` (failures of the model or the
    server), `invalid-rate` (requests that the server refused as the client's mistake: a model whose inputs changed
    shows here), `latency-p50`, `-p90`, `-p95`, `-p99` (any two digits); and with `rollout.shadow` those that it names.

    Without any limit, a check is a sequential test against the stable revision: it fails when the canary is worse
    beyond chance, however often it is looked at. `max`, `min`, `maxIncrease` and `maxRatio` are fixed limits on the
    measured value; give `minEffect` beside them to have both.
    """

    model_config = rules(
        (
            f"has(self.query) || has(self.proportion) || has(self.mean) || {_BUILT_IN}",
            "metrics[].query (or proportion, or mean) is required unless the name is built in: error-rate, "
            "invalid-rate, latency-p followed by two digits (latency-p95), or with a shadow "
            f"{', '.join(SHADOW_CHECKS)}",
        ),
        (
            "[has(self.query), has(self.proportion), has(self.mean)].filter(x, x).size() <= 1",
            "metrics[] takes one of query, proportion and mean: split it into several checks",
        ),
    )

    name: str = Field(min_length=1, max_length=63, pattern=NAME_PATTERN)
    """Name in status and events; a built-in name needs no query."""
    query: str | None = Field(default=None, min_length=1, max_length=4096)
    """PromQL that returns one number for one revision, held against fixed limits. Replaced before it runs:
    `{{namespace}}`, `{{name}}`, `{{deployment}}` (namespace/name), `{{revision}}` and `{{window}}` (time since the
    step began, such as 95s). The queries of `proportion` and `mean` take the same.
    """
    proportion: ProportionSpec | None = None
    """A share that is compared with stable's by a sequential test, from two counts."""
    mean: MeanSpec | None = None
    """A mean that is compared with stable's by a sequential test, from its sums."""
    higher_is_better: bool = False
    """For `proportion` and `mean`: a canary with a lower value is the worse one."""
    min_effect: Limit | None = None
    """The smallest worsening that matters to you: a canary that is worse by less is not taken back, and the last step
    waits until a worsening of this size would have been found (`analysis.power`). A difference for shares and means
    (`1%` is one percentage point), a ratio for latency (`25%` slower). Default: 1 percentage point for `error-rate`,
    5 for `invalid-rate`, 25% for `latency-pNN`.
    """
    max: Limit | None = None
    """The canary's value must not be above this. A number, `1%` or `200ms`."""
    min: Limit | None = None
    """The canary's value must not be below this."""
    max_increase: Limit | None = None
    """The canary's value minus the stable one's must not be above this."""
    max_ratio: Limit | None = None
    """The canary's value divided by the stable one's must not be above this."""
    tolerance: Limit | None = None
    """`maxRatio` and a ratio of latencies are not held against differences smaller than this. Default: 10ms for
    latency, else 0."""
    min_samples: int | None = Field(default=None, ge=0, le=100_000_000)
    """Requests that each compared revision must have answered in this step before the check can pass.
    Default: `analysis.minSamples`; for fixed limits on `latency-pNN` at least ten requests beyond the quantile
    (p95: 200)."""
    initial_delay: Duration = timedelta(0)
    """The check is not run before this time of a step has passed: caches are warm by then."""
    dry_run: bool = False
    """Measure and show, but decide nothing by it."""


class AnalysisArgument(ApiModel):
    """A value for a template."""

    name: str = Field(min_length=1, max_length=63, pattern=r"^[a-zA-Z][a-zA-Z0-9_]*$")
    """Stands in the template's queries as `{{args.NAME}}`."""
    value: str = Field(max_length=1024)
    """What it is replaced with."""


class TemplateRef(ApiModel):
    """A reusable list of checks."""

    name: str = Field(min_length=1, max_length=253)
    """Name of the AnalysisTemplate."""
    cluster_scope: bool = False
    """True: a ClusterAnalysisTemplate; else an AnalysisTemplate of the same namespace."""
    args: list[AnalysisArgument] = Field(default=[], max_length=20)
    """Values of its arguments; those with a default may be left out."""


class TemplateArgument(ApiModel):
    """An argument of a template."""

    name: str = Field(min_length=1, max_length=63, pattern=r"^[a-zA-Z][a-zA-Z0-9_]*$")
    """Stands in the queries as `{{args.NAME}}`."""
    value: str | None = Field(default=None, max_length=1024)
    """Default. Without one, whoever uses the template must give a value."""


class AnalysisTemplateSpec(ApiModel):
    """Checks that many ModelDeployments share."""

    model_config = rules(
        (
            "self.metrics.all(m, self.metrics.exists_one(o, o.name == m.name))",
            "metrics[].name must be unique: give the second check a name of its own",
        ),
    )

    args: list[TemplateArgument] = Field(default=[], max_length=20)
    """What the queries leave open."""
    metrics: list[MetricSpec] = Field(min_length=1, max_length=20)
    """The checks."""


DEFAULT_METRICS = [MetricSpec(name=name) for name in ("error-rate", "invalid-rate", "latency-p95")]


class AnalysisSpec(ApiModel):
    """The gate: what must be true of the canary at every step."""

    model_config = rules(
        (
            "self.metrics.all(m, self.metrics.exists_one(o, o.name == m.name))",
            "analysis.metrics[].name must be unique: give the second check a name of its own",
        ),
    )

    metrics: list[MetricSpec] = Field(default=DEFAULT_METRICS, max_length=20)
    """Checks, all of which must pass. An empty list means that time alone decides."""
    templates: list[TemplateRef] = Field(default=[], max_length=10)
    """Checks from templates, after those in `metrics`."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Chance that a rollout of a version as good as stable is taken back by the sequential tests, over all checks,
    steps and looks together."""
    power: float = Field(default=0.8, gt=0, lt=1)
    """Chance that a worsening of `minEffect` would have been found, which the last step waits for."""
    background: bool = True
    """Checks run during the whole step; false: once, after its pause."""
    interval: Duration = timedelta(seconds=30)
    """How often the checks run during a step."""
    min_samples: int = Field(default=100, ge=0, le=100_000_000)
    """Requests needed in a step before a check can pass; see `metrics[].minSamples`."""
    failure_limit: int = Field(default=0, ge=0, le=100)
    """How many measurements of one check in a step may break a fixed limit before the canary is taken back. A
    sequential test that has failed is never forgiven: it has counted all looks already."""
    consecutive_error_limit: int | None = Field(default=None, ge=0, le=1000)
    """How many measurements of one check in a row may fail with an error (Prometheus down, a bad query) before the
    canary is taken back. Default: no such limit; errors hold the step, and `maxWait` ends it."""
    inconclusive_limit: int | None = Field(default=None, ge=0, le=1000)
    """How many measurements of one check may come without enough evidence after the pause of a step before the canary
    is taken back. Default: no such limit."""
    on_insufficient_data: OnInsufficientData = OnInsufficientData.HOLD
    """What happens when the pause of a step is over and evidence is missing."""
    max_wait: Duration = timedelta(hours=24)
    """How long a step may hold beyond its pause because evidence is missing (no data, too few samples,
    Prometheus failing) before the canary is taken back.
    """
