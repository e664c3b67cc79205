"""The PromQL of the checks. Metric names and labels come from `canarium_api.metric_names`, so that the queries and
the runtime cannot disagree.
"""

import re
from datetime import timedelta
from typing import Final

from canarium_api import metric_names
from canarium_api.analysis import MetricSpec
from canarium_api.metric_names import PredictionStatus
from canarium_operator.core.naming import ObjectRef

LATENCY: Final = re.compile(r"^latency-p(\d{2})$")
INVALID_RATE: Final = "invalid-rate"
PLACEHOLDERS: Final = ("namespace", "name", "deployment", "revision", "window")
"""What a user's query may hold in double braces."""


def _selector(ref: ObjectRef, revision: str, extra: str = "") -> str:
    labels = f'{metric_names.DEPLOYMENT_LABEL}="{ref}",{metric_names.REVISION_LABEL}="{revision}"'
    return "{" + labels + extra + "}"


def samples_query(metric: MetricSpec, ref: ObjectRef, revision: str, look_back: timedelta) -> str:
    """Count the requests that a check of a revision rests on.

    Those that were refused as the client's mistake say nothing of the model's errors or speed; `invalid-rate`
    is about them.
    """
    if metric.name == INVALID_RATE:
        return _increase(ref, revision, "", look_back)
    return _increase(ref, revision, f'!="{PredictionStatus.INVALID}"', look_back)


def _increase(ref: ObjectRef, revision: str, status: str, look_back: timedelta) -> str:
    extra = f",{metric_names.STATUS_LABEL}{status}" if status else ""
    series = metric_names.PREDICTIONS_TOTAL + _selector(ref, revision, extra)
    return f"sum(increase({series}[{format_seconds(look_back)}]))"


def value_query(metric: MetricSpec, ref: ObjectRef, revision: str, look_back: timedelta) -> str:
    """Ask for the value of a check: the user's query filled in, or a built-in one."""
    seconds = format_seconds(look_back)
    if metric.query is not None:
        values = {
            "namespace": ref.namespace,
            "name": ref.name,
            "deployment": str(ref),
            "revision": revision,
            "window": seconds,
        }
        return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda m: values.get(m[1], m[0]), metric.query)
    if (latency := LATENCY.match(metric.name)) is not None:
        buckets = f"{metric_names.PREDICTION_DURATION_SECONDS}_bucket" + _selector(ref, revision)
        return f"histogram_quantile(0.{latency[1]}, sum by (le) (rate({buckets}[{seconds}])))"
    counted = f'=~"{"|".join(metric_names.FAILED_STATUSES)}"'
    if metric.name == INVALID_RATE:
        counted = f'="{PredictionStatus.INVALID}"'
    part = _increase(ref, revision, counted, look_back)
    return f"{part} / {samples_query(metric, ref, revision, look_back)}"


def format_seconds(value: timedelta) -> str:
    """Write a PromQL duration in whole seconds."""
    return f"{round(value.total_seconds())}s"
