"""The operator's own metrics and logs."""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client import Counter, Gauge, Histogram

from canarium_api.status import ModelDeploymentStatus
from canarium_operator.core.naming import ObjectRef
from canarium_operator.errors import OperatorError

_OBJECT = ("namespace", "name")
RECONCILES = Counter("canarium_reconciles", "Passes, by outcome.", ["outcome"])
RECONCILE_SECONDS = Histogram(
    "canarium_reconcile_duration_seconds",
    "Time of one pass.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
TRANSITIONS = Counter(
    "canarium_transitions", "Transitions of rollouts, by reason.", [*_OBJECT, "reason"]
)
KUBERNETES_REQUESTS = Counter(
    "canarium_kubernetes_requests",
    "Requests to the API server, without those of the watch of ModelDeployments.",
    ["verb", "resource"],
)
WEIGHT = Gauge(
    "canarium_rollout_weight", "Percent of the traffic that the canary shall have.", _OBJECT
)
STEP = Gauge("canarium_rollout_step", "Step of the rollout, from 1; 0 without one.", _OBJECT)
READY = Gauge(
    "canarium_ready", "1 while the condition Ready is True (spec.rollout.readyWhen).", _OBJECT
)
STALLED = Gauge("canarium_stalled", "1 while nothing more will happen by itself.", _OBJECT)
CHECK_VALUE = Gauge("canarium_check_value", "Latest value of a check.", [*_OBJECT, "check", "role"])


def count_request(verb: str, resource: str) -> None:
    """Count a request to the API server."""
    KUBERNETES_REQUESTS.labels(verb, resource).inc()


@contextlib.contextmanager
def observe_pass() -> Iterator[None]:
    """Time one pass and count how it ended."""
    outcome = "error"
    with RECONCILE_SECONDS.time():
        try:
            yield
            outcome = "ok"
        except OperatorError as error:
            outcome = type(error).__name__
            raise
        finally:
            RECONCILES.labels(outcome).inc()


def report_status(ref: ObjectRef, status: ModelDeploymentStatus) -> None:
    """Export what the status of one object says."""
    labels = (ref.namespace, ref.name)
    rollout = status.rollout
    WEIGHT.labels(*labels).set(rollout.weight if rollout is not None else 0)
    STEP.labels(*labels).set(rollout.step if rollout is not None else 0)
    true = {c.type for c in status.conditions if c.status == "True"}
    READY.labels(*labels).set("Ready" in true)
    STALLED.labels(*labels).set("Stalled" in true)
    for check in rollout.checks if rollout is not None else []:
        for role, value in (("canary", check.value), ("stable", check.baseline)):
            if value is not None:
                CHECK_VALUE.labels(*labels, check.name, role).set(value)


def forget(ref: ObjectRef) -> None:
    """Drop the series of an object that is gone, so that they do not grow without end."""
    wanted = {"namespace": ref.namespace, "name": ref.name}
    for metric in (WEIGHT, STEP, READY, STALLED, CHECK_VALUE, TRANSITIONS):
        metric.remove_by_labels(wanted)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure_logging(level: str) -> None:
    """Log to standard error, as JSON lines, or as plain ones to a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    else:
        handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # kopf reports each watch event at debug and its own start at info; the HTTP clients every request.
    for noisy in ("kopf", "urllib3", "aiohttp.access", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
