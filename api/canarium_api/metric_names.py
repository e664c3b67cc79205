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
FALLBACKS_TOTAL: Final = "ml_fallbacks_total"
VALIDATION_VIOLATIONS_TOTAL: Final = "ml_validation_violations_total"
PROCESSES_READY: Final = "ml_processes_ready"
PROCESS_RESTARTS_TOTAL: Final = "ml_process_restarts_total"

CACHE_HITS_TOTAL: Final = "ml_cache_hits_total"
CACHE_MISSES_TOTAL: Final = "ml_cache_misses_total"
CACHE_ERRORS_TOTAL: Final = "ml_cache_errors_total"
CACHE_SKIPPED_TOTAL: Final = "ml_cache_skipped_total"
CACHE_DROPPED_TOTAL: Final = "ml_cache_dropped_total"
CACHE_ENTRIES: Final = "ml_cache_entries"
CACHE_BYTES: Final = "ml_cache_bytes"
CACHE_LEVEL_UP: Final = "ml_cache_level_up"
CACHE_LOOKUP_DURATION_SECONDS: Final = "ml_cache_lookup_duration_seconds"
CACHE_JOINED_TOTAL: Final = "ml_cache_joined_total"
LEVEL_LABEL: Final = "level"
AUTHENTICATION_FAILURES_TOTAL: Final = "ml_authentication_failures_total"
RATE_LIMITED_TOTAL: Final = "ml_rate_limited_total"
RATE_LIMIT_SHARED: Final = "ml_rate_limit_shared"
AUDIT_RECORDS_TOTAL: Final = "ml_audit_records_total"
AUDIT_DROPPED_TOTAL: Final = "ml_audit_dropped_total"
AUDIT_FAILURES_TOTAL: Final = "ml_audit_write_failures_total"
AUDIT_WAITING: Final = "ml_audit_waiting_records"
AUDIT_LAG_SECONDS: Final = "ml_audit_lag_seconds"

DEPLOYMENT_LABEL: Final = "deployment"
MODEL_VERSION_LABEL: Final = "model_version"
REVISION_LABEL: Final = "revision"
STATUS_LABEL: Final = "status"
FALLBACK_LABEL: Final = "fallback"
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
    """Refused for a reason of the server's, such as a full queue or because it was draining (429, 503)."""
    FALLBACK = "fallback"
    """The model gave no answer, and something else stood in for it. To the gates of a rollout a failure: a new version
    must not look good because something else answers for it."""
    INVALID = "invalid"
    """The client's mistake, wrong credentials and too many requests of one client among them (4xx); says nothing about
    the model, so the error rate leaves it out."""


class CacheLevel(StrEnum):
    """Where answers are kept; the value of the label `level`. The order is the one in which they are asked."""

    MEMORY = "memory"
    """In the pod's own memory."""
    REDIS = "redis"
    """In Redis."""
    DATABASE = "database"
    """In a database."""


class AuthFailure(StrEnum):
    """Why credentials were refused; the value of the label `reason` of `ml_authentication_failures_total`."""

    MISSING = "missing"
    """The request came without credentials."""
    KEY = "key"
    """An API key that nobody has."""
    MALFORMED = "malformed"
    """A header or token that cannot be read."""
    ALGORITHM = "algorithm"
    """A token signed in a way that is not allowed."""
    SIGNING_KEY = "signing_key"
    """A token signed by a key that the issuer does not list."""
    SIGNATURE = "signature"
    """A token whose signature is wrong."""
    EXPIRED = "expired"
    """A token whose time is over, or has not come."""
    CLAIMS = "claims"
    """A token of another issuer or for another audience, or without a claim that it must have."""
    FORBIDDEN = "forbidden"
    """A good token without a required scope or claim (403)."""
    CERTIFICATE = "certificate"
    """A protected path was asked for without a client certificate, where one is required."""


FAILED_STATUSES: Final = (
    PredictionStatus.ERROR,
    PredictionStatus.TIMEOUT,
    PredictionStatus.REJECTED,
    PredictionStatus.FALLBACK,
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

TRACE_SPANS_DROPPED_TOTAL: Final = "ml_trace_spans_dropped_total"

SHADOW_PAIRS_TOTAL: Final = "ml_shadow_pairs_total"
SHADOW_MISMATCHES_TOTAL: Final = "ml_shadow_mismatches_total"
SHADOW_MISMATCHED_PAIRS_TOTAL: Final = "ml_shadow_mismatched_pairs_total"
SHADOW_UNPAIRED_TOTAL: Final = "ml_shadow_unpaired_total"
SHADOW_ANSWERS_TOTAL: Final = "ml_shadow_answers_total"
SHADOW_DROPPED_TOTAL: Final = "ml_shadow_dropped_total"
SHADOW_LATENCY_SECONDS_TOTAL: Final = "ml_shadow_latency_seconds_total"
SHADOW_ROWS_TOTAL: Final = "ml_shadow_rows_total"
SHADOW_FLIPPED_ROWS_TOTAL: Final = "ml_shadow_flipped_rows_total"
SHADOW_UNCOMPARED_OUTPUTS_TOTAL: Final = "ml_shadow_uncompared_outputs_total"
SHADOW_PSI: Final = "ml_shadow_psi"
SHADOW_RANK_CORRELATION: Final = "ml_shadow_rank_correlation"
SHADOW_MAX_ABSOLUTE_DIFFERENCE: Final = "ml_shadow_max_absolute_difference"
SHADOW_MAX_RELATIVE_DIFFERENCE: Final = "ml_shadow_max_relative_difference"
SHADOW_TARGETS: Final = "ml_shadow_targets"
SHADOW_PULL_FAILURES_TOTAL: Final = "ml_shadow_pull_failures_total"
SHADOW_SAMPLE_SHARE: Final = "ml_shadow_sample_share"

ROUTER_REQUESTS_TOTAL: Final = "ml_router_requests_total"
VARIANT_LABEL: Final = "variant"


class RouterVariant(StrEnum):
    """Where the router of a sticky A/B test sent a request; the value of the label `variant`."""

    STABLE = "stable"
    """The user's key gets the stable version (A)."""
    CANARY = "canary"
    """The user's key gets the new version (B)."""
    UNKEYED = "unkeyed"
    """The request had no key, and went to the stable version."""
    REFUSED = "refused"
    """Nowhere: too many requests under way, or it did not come by the route."""


OUTCOME_LABEL: Final = "outcome"
KIND_LABEL: Final = "kind"
SIDE_LABEL: Final = "side"
REASON_LABEL: Final = "reason"
OUTPUT_LABEL: Final = "output"
SHADOW_IDENTITY_LABELS: Final = (DEPLOYMENT_LABEL, REVISION_LABEL)
"""Labels of every series of the comparer; `revision` is the shadow's."""


class ShadowSide(StrEnum):
    """Whose answer it is; the value of the label `side`."""

    STABLE = "stable"
    """The revision whose answers the users get."""
    SHADOW = "shadow"
    """The revision that gets copies of the requests."""


class ShadowOutcome(StrEnum):
    """What became of a pair; the value of the label `outcome` of `ml_shadow_pairs_total`."""

    COMPARED = "compared"
    """Both answered, and at least one output was compared."""
    UNCOMPARED = "uncompared"
    """Both answered, and every output was too large to compare."""
    SHADOW_FAILED = "shadow_failed"
    """Stable answered, the shadow did not."""
    STABLE_FAILED = "stable_failed"
    """The shadow answered, stable did not; says nothing against the shadow."""
    BOTH_FAILED = "both_failed"
    """Neither answered."""


class ShadowMismatch(StrEnum):
    """How the two answers of a pair differ; the value of the label `kind`.

    A pair may differ in several ways, and counts once for each.
    """

    EXACT = "exact"
    """A value is not the very same, be it within the tolerance."""
    TOLERANCE = "tolerance"
    """A number differs by more than the tolerance, or another value differs at all."""
    FLIP = "flip"
    """A row has another class: the largest of its scores is elsewhere, or its label differs."""
    STATUS = "status"
    """The requests did not end in the same way."""
    SHAPE = "shape"
    """An output of stable is missing, or has another datatype or shape."""


class ShadowUnpaired(StrEnum):
    """Why an answer was not compared; the value of the label `reason` of `ml_shadow_unpaired_total`."""

    EXPIRED = "expired"
    """The other side's answer did not come within the window. On stable's side these are also the requests that the
    gateway did not mirror."""
    AMBIGUOUS = "ambiguous"
    """The same id came again, or with another body: clients must not use an id twice."""
    EVICTED = "evicted"
    """Too many answers waited."""


class ShadowDropped(StrEnum):
    """Why a pod did not hand an answer over; the value of the label `reason` of `ml_shadow_dropped_total`."""

    LIMITED = "limited"
    """More a second than a pod records."""
    OVERWRITTEN = "overwritten"
    """The comparer fetched too late."""
    UNIDENTIFIED = "unidentified"
    """The request came without an id."""
    BROKEN = "broken"
    """The answer could not be recorded."""


SHADOW_JUDGED_OUTCOMES: Final = (ShadowOutcome.COMPARED, ShadowOutcome.SHADOW_FAILED)
"""Pairs of which it is known whether they match: `ml_shadow_mismatched_pairs_total` is a share of these."""


class RuleKind(StrEnum):
    """Which kind of rule of `spec.serving.validation` a value broke; the value of the label `kind`."""

    MISSING = "missing"
    """NaN or null, where a value is required."""
    INFINITY = "infinity"
    """An infinity, where only finite numbers are allowed."""
    RANGE = "range"
    """Below `min` or above `max`."""
    INTEGER = "integer"
    """Not a whole number."""
    ENUM = "enum"
    """None of the allowed values."""
    PATTERN = "pattern"
    """A string that does not match."""
    LENGTH = "length"
    """A string that is too short or too long."""
    EMPTY = "empty"
    """An empty string."""
    CONTENT = "content"
    """A string with suspicious content (`textChecks`)."""
    EXPRESSION = "expression"
    """A row that an expression does not hold for."""
    ROWS = "rows"
    """A request with too many rows."""
    TYPE = "type"
    """Another JSON type, which was converted."""


class ViolationOutcome(StrEnum):
    """What became of a value that broke a rule; the label `outcome` of `ml_validation_violations_total`."""

    REFUSED = "refused"
    """The request was refused (422)."""
    WARNED = "warned"
    """The model got it as it was, and the answer says so."""
    CORRECTED = "corrected"
    """The model got another value, and the answer says so."""


JOBS_QUEUE_LENGTH: Final = "ml_jobs_queue_length"
JOBS_QUEUE_OLDEST_SECONDS: Final = "ml_jobs_queue_oldest_seconds"
JOBS_CHUNKS_TOTAL: Final = "ml_jobs_chunks_total"
JOBS_ROWS_TOTAL: Final = "ml_jobs_rows_total"
JOBS_FINISHED_TOTAL: Final = "ml_jobs_finished_total"
JOBS_DURATION_SECONDS: Final = "ml_jobs_duration_seconds"
JOBS_WEBHOOK_ATTEMPTS_TOTAL: Final = "ml_jobs_webhook_attempts_total"
RESULT_LABEL: Final = "result"
STATE_LABEL: Final = "state"

JOB_DURATION_BUCKETS: Final = (1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200, 86_400)
"""Seconds."""


class JobChunkResult(StrEnum):
    """What became of a chunk that a worker took; the value of the label `result` of `ml_jobs_chunks_total`."""

    DONE = "done"
    """Its results were kept."""
    STALE = "stale"
    """It was of no use any more: done by another worker, or its job has ended or was begun again."""
    RETRIED = "retried"
    """It could not be run now, and was given back."""
    POISONED = "poisoned"
    """It has outlived so many workers that its rows were given up."""


class JobRowResult(StrEnum):
    """How a row ended; the value of the label `result` of `ml_jobs_rows_total`."""

    SUCCESS = "success"
    """It has an answer."""
    ERROR = "error"
    """It has an error."""


class JobEnd(StrEnum):
    """How a job ended; the value of the label `state` of `ml_jobs_finished_total`."""

    SUCCEEDED = "succeeded"
    """All rows have an answer or an error, and not too many an error."""
    FAILED = "failed"
    """Its source could not be read, too many rows failed, or it took too long."""
    CANCELLED = "cancelled"
    """Its client asked for it."""


class JobWebhookResult(StrEnum):
    """What became of an attempt to deliver a webhook; the value of the label `result` of
    `ml_jobs_webhook_attempts_total`.
    """

    DELIVERED = "delivered"
    """The receiver took it."""
    RETRIED = "retried"
    """The receiver did not, and will be asked again."""
    FAILED = "failed"
    """The receiver did not, and was given up."""
