"""Golden data before any traffic: the thresholds of `canarium validate`, and `spec.rollout.validation`.

A threshold that cannot be measured (AUC without probabilities, agreement without an old version) is missed, never met.
"""

import json
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from canarium_api.base import ApiModel, rules
from canarium_api.duration import Duration
from canarium_api.environment import EnvironmentModel
from canarium_api.patterns import MODEL_URI_PATTERN
from canarium_api.quantity import Quantity

DRIFT_SCORE: Final = 0.7
"""Score from which on a feature counts as drifted."""
Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Task(StrEnum):
    """What a model does."""

    CLASSIFICATION = "classification"
    """It names a class, or gives a score for each."""
    REGRESSION = "regression"
    """It gives a number."""


class Strict(ApiModel):
    """Refuses fields that it does not know: a misspelt threshold would never be missed."""

    model_config = ConfigDict(extra="forbid")


class Bound(Strict):
    """Limits of one metric."""

    min: Finite | None = None
    """Least value."""
    max: Finite | None = None
    """Largest value."""
    max_loss: Annotated[Finite, Field(ge=0)] | None = None
    """How much worse than the old version it may be; needs an old version."""


class MetricBounds(Strict):
    """Limits of the metrics of the answers, by name."""

    accuracy: Bound | None = None
    """Share of rows whose class is right."""
    balanced_accuracy: Bound | None = None
    """Mean over the classes of the share that is found: a rare class counts as much as a common one."""
    precision: Bound | None = None
    """Mean over the classes of the share of its answers that are right."""
    recall: Bound | None = None
    """The same as balancedAccuracy."""
    f1: Bound | None = None
    """Mean over the classes of the harmonic mean of precision and recall."""
    auc: Bound | None = None
    """Area under the ROC curve; with more than two classes the mean of each against the rest."""
    log_loss: Bound | None = None
    """Mean negative logarithm of the probability that the right class was given; less is better."""
    calibration_error: Bound | None = None
    """Mean distance between how sure the model is and how often it is right (ten bins); less is better."""
    rmse: Bound | None = None
    """Root of the mean squared error; less is better."""
    mae: Bound | None = None
    """Mean absolute error; less is better."""
    r2: Bound | None = None
    """Share of the variance that is explained."""
    failed_rows: Bound | None = Bound(max=0)
    """Rows that the model refuses or fails on. Default: none."""


class LatencyBounds(Strict):
    """Longest times of a run with one row, on the machine that validates, without a network."""

    p50: Duration | None = None
    """Median."""
    p95: Duration | None = None
    """19 of 20 runs are not longer."""
    p99: Duration | None = None
    """99 of 100 runs are not longer."""


class DataBounds(Strict):
    """What the golden data must be like, feature by feature."""

    max_missing: Share | None = None
    """Largest share of missing values of any feature."""
    max_out_of_range: Share | None = None
    """Largest share of values of any feature outside the reference's least and largest value, or not among its
    words."""


class DriftBounds(Strict):
    """How far the golden data may be from the reference."""

    score: Share = DRIFT_SCORE
    """Score from which on a feature counts as drifted, 0 to 1: 0.7 is a population stability index of 0.25."""
    max_features: Annotated[int, Field(ge=0)] = 0
    """How many features may have drifted."""


class Thresholds(Strict):
    """What is asked of a model on a golden data set."""

    task: Task | None = None
    """Default: taken from the model's outputs."""
    label: str | None = Field(default=None, max_length=256)
    """Column of the right answer. Default: the one called label, target or y."""
    features: list[str] = Field(default=[], max_length=10_000)
    """Columns that the model gets, in order. Default: all others."""
    ignore: list[str] = Field(default=[], max_length=1000)
    """Columns that are neither."""
    output: str | None = Field(default=None, max_length=256)
    """Output with the class or the number. Default: found by its datatype and shape."""
    probabilities: str | None = Field(default=None, max_length=256)
    """Output with a score for each class. Default: found by its datatype and shape."""
    classes: list[str] = Field(default=[], max_length=1000)
    """Names of the classes in the order of their scores. Default: as the model's class output tells, else 0, 1, 2."""
    min_rows: Annotated[int, Field(ge=1)] = 1
    """Fewest rows of golden data."""
    metrics: MetricBounds = MetricBounds()
    """Limits of the metrics of the answers."""
    latency: LatencyBounds = LatencyBounds()
    """Longest times."""
    max_size: Quantity | None = None
    """Largest artefact, such as 50Mi."""
    min_agreement: Share | None = None
    """Least share of rows on which old and new version give the same answer; needs an old version."""
    data: DataBounds = DataBounds()
    """What the golden data must be like."""
    drift: DriftBounds = DriftBounds()
    """How far the golden data may be from the reference, where there is one."""

    @property
    def needs_old(self) -> bool:
        """Whether some threshold compares with an old version."""
        bounds = (getattr(self.metrics, name) for name in MetricBounds.model_fields)
        return self.min_agreement is not None or any(
            bound is not None and bound.max_loss is not None for bound in bounds
        )


class DataSource(ApiModel):
    """A file of rows: CSV, JSON lines or Parquet, by the ending of its name."""

    model_config = rules(
        (
            "!self.uri.startsWith('http://') || has(self.sha256)",
            "rollout.validation: sha256 is required with an http:// URI: add the digest or use https://",
        ),
    )

    uri: str = Field(min_length=1, max_length=2048, pattern=MODEL_URI_PATTERN)
    """Where it is, as `model.uri`. Its name ends in .csv, .jsonl or .parquet."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest of the file."""


class GoldenSpec(ApiModel):
    """Run the model of a canary over golden data, as a Job, before it gets any traffic."""

    data: DataSource
    """Golden data, with the right answers."""
    reference: DataSource | None = None
    """Data to look for drift against."""
    thresholds: Thresholds = Thresholds()
    """What is asked of the model; a canary that misses one gets no traffic."""
    timeout: Duration = timedelta(minutes=30)
    """How long the Job may take."""


class GoldenConfig(EnvironmentModel):
    """Settings of the Job: what it reads besides the settings of a server of its model."""

    env_prefix: ClassVar[str] = "CANARIUM_GOLDEN_"

    data_uri: str = Field(min_length=1)
    """Golden data, as the Job can read them."""
    data_sha256: str | None = None
    """Their digest."""
    reference_uri: str | None = None
    """Data to look for drift against."""
    reference_sha256: str | None = None
    """Their digest."""
    thresholds: str = "{}"
    """`Thresholds` as JSON."""
    against: str = ""
    """Settings of a server of the old version, as JSON; empty: nothing is compared."""


class Outcome(BaseModel):
    """What the Job leaves in the termination log."""

    model_config = ConfigDict(frozen=True)

    passed: bool | None
    """None: it could not be judged."""
    message: str
    """Why it failed, or could not be judged; or what was met, in words."""

    def to_log(self) -> str:
        """Render within the 4096 bytes that the kubelet reads."""
        room = 800
        return json.dumps({"passed": self.passed, "message": self.message[:room]})


def milliseconds(value: timedelta) -> float:
    """Give a duration in milliseconds."""
    return value.total_seconds() * 1000
