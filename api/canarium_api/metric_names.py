"""Names, labels and buckets of the metrics that the runtime writes and the operator's queries read.

Both sides import this module, so a query cannot ask for a series that no server exports. Every series carries the
identity labels: `deployment` is `namespace/name` of the ModelDeployment, written by the runtime itself, so that queries
work whatever relabelling a cluster's Prometheus does.
"""

from enum import StrEnum
from typing import Final

PREDICTIONS_TOTAL: Final = "ml_predictions_total"
PREDICTION_DURATION_SECONDS: Final = "ml_prediction_duration_seconds"
BATCH_SIZE: Final = "ml_batch_size"
QUEUE_DURATION_SECONDS: Final = "ml_queue_duration_seconds"
INFERENCE_DURATION_SECONDS: Final = "ml_inference_duration_seconds"
INFLIGHT_REQUESTS: Final = "ml_inflight_requests"
QUEUE_LENGTH: Final = "ml_queue_length"
MODEL_LOAD_SECONDS: Final = "ml_model_load_seconds"
MODEL_READY: Final = "ml_model_ready"

DEPLOYMENT_LABEL: Final = "deployment"
MODEL_VERSION_LABEL: Final = "model_version"
REVISION_LABEL: Final = "revision"
STATUS_LABEL: Final = "status"
IDENTITY_LABELS: Final = (DEPLOYMENT_LABEL, MODEL_VERSION_LABEL, REVISION_LABEL)


class PredictionStatus(StrEnum):
    """How a request ended; the value of the label `status` of `ml_predictions_total`."""

    SUCCESS = "success"
    """An answer was given."""
    ERROR = "error"
    """The model or the server failed (5xx)."""
    TIMEOUT = "timeout"
    """No answer in time (504)."""
    REJECTED = "rejected"
    """Refused because the queue was full or the server was draining (429, 503)."""
    INVALID = "invalid"
    """The client's mistake (4xx); says nothing about the model, so the error rate leaves it out."""


FAILED_STATUSES: Final = (
    PredictionStatus.ERROR,
    PredictionStatus.TIMEOUT,
    PredictionStatus.REJECTED,
)
"""What counts as a failure in the error rate."""

DURATION_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
    1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Seconds. Dense between 1 and 200 ms, where limits of online models lie: a quantile read from a histogram is no
finer than its bucket."""
BATCH_SIZE_BUCKETS: Final = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512)
"""Rows."""
