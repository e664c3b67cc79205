"""The PromQL of the checks. Metric names and labels come from `canarium_api.metric_names`, so that the queries and
the runtime cannot disagree.

Built-in checks are judged from counts, and one query brings the counts of both revisions: two queries an interval
serve all of them, whatever the number of checks.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from canarium_api import metric_names
from canarium_operator.core.naming import ObjectRef

LATENCY: Final = re.compile(r"^latency-p(\d{2})$")
ERROR_RATE: Final = "error-rate"
INVALID_RATE: Final = "invalid-rate"
PLACEHOLDERS: Final = ("namespace", "name", "deployment", "revision", "window")
"""What a user's query may hold in double braces."""


def counts_query(ref: ObjectRef, revisions: Sequence[str], look_back: timedelta) -> str:
    """Count the requests of revisions by how they ended."""
    series = metric_names.PREDICTIONS_TOTAL + _selector(ref, revisions)
    by = f"{metric_names.REVISION_LABEL}, {metric_names.STATUS_LABEL}"
    return f"sum by ({by}) (increase({series}[{format_seconds(look_back)}]))"


def buckets_query(ref: ObjectRef, revisions: Sequence[str], look_back: timedelta) -> str:
    """Count the requests of revisions by how long they took, cumulative over the bounds."""
    series = f"{metric_names.PREDICTION_DURATION_SECONDS}_bucket" + _selector(ref, revisions)
    by = f"{metric_names.REVISION_LABEL}, le"
    return f"sum by ({by}) (increase({series}[{format_seconds(look_back)}]))"


def fill(template: str, ref: ObjectRef, revision: str, look_back: timedelta) -> str:
    """Replace the placeholders of a user's query; unknown ones stay, and validation names them."""
    values = {
        "namespace": ref.namespace,
        "name": ref.name,
        "deployment": str(ref),
        "revision": revision,
        "window": format_seconds(look_back),
    }
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda m: values.get(m[1], m[0]), template)


def _selector(ref: ObjectRef, revisions: Sequence[str]) -> str:
    deployment = f'{metric_names.DEPLOYMENT_LABEL}="{ref}"'
    return "{" + f'{deployment},{metric_names.REVISION_LABEL}=~"{"|".join(revisions)}"' + "}"


def format_seconds(value: timedelta) -> str:
    """Write a PromQL duration in whole seconds."""
    return f"{round(value.total_seconds())}s"
