"""The PromQL of the checks. Metric names and labels come from `canarium_api.metric_names`, so that the queries and
the runtime cannot disagree.
"""

import re
from datetime import timedelta
from typing import Final

from canarium_api import metric_names
from canarium_api.v1alpha1 import MetricSpec
from canarium_operator.core.naming import ObjectRef

LATENCY: Final = re.compile(r"^latency-p(\d{2})$")
PLACEHOLDERS: Final = ("namespace", "name", "deployment", "revision", "window")
"""What a user's query may hold in double braces."""


def _selector(ref: ObjectRef, revision: str, extra: str = "") -> str:
    labels = f'{metric_names.DEPLOYMENT_LABEL}="{ref}",{metric_names.REVISION_LABEL}="{revision}"'
    return "{" + labels + extra + "}"


def samples_query(ref: ObjectRef, revision: str, look_back: timedelta) -> str:
    """Count the requests that a revision answered; those that were the client's mistake say nothing of it."""
    invalid = f',{metric_names.STATUS_LABEL}!="{metric_names.PredictionStatus.INVALID}"'
    series = metric_names.PREDICTIONS_TOTAL + _selector(ref, revision, invalid)
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
    failed = "|".join(metric_names.FAILED_STATUSES)
    failures = metric_names.PREDICTIONS_TOTAL + _selector(
        ref, revision, f',{metric_names.STATUS_LABEL}=~"{failed}"'
    )
    return f"sum(increase({failures}[{seconds}])) / {samples_query(ref, revision, look_back)}"


def format_seconds(value: timedelta) -> str:
    """Write a PromQL duration in whole seconds."""
    return f"{round(value.total_seconds())}s"
