"""An evaluation as a value, and files that reports are compared with."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from canarium_api.golden import Task
from canarium_runtime.golden.evaluation import Evaluation
from canarium_runtime.golden.judging import Check
from canarium_runtime.golden.profile import profile
from canarium_runtime.golden.results import Agreement, Results
from canarium_runtime.golden.running import Latency
from canarium_runtime.golden.scores import CalibrationBin, ClassScores

Writer = Callable[[Any], str]
LATENCY = Latency(
    runs=300,
    p50=0.02,
    p95=0.035,
    p99=0.1,
    histogram=((0.02, 160), (0.04, 135), (0.06, 3), (0.08, 0), (0.1, 2)),
)
_RAMP = np.arange(200) / 200
EVALUATION = Evaluation(
    task=Task.CLASSIFICATION,
    rows=200,
    cut=True,
    new=Results(
        metrics={"accuracy": 0.95, "f1": 0.949, "auc": 0.99, "logLoss": 0.2, "failedRows": 1.0},
        classes=[
            ClassScores(name="no", precision=0.96, recall=0.94, f1=0.95, rows=100),
            ClassScores(name="yes", precision=0.94, recall=0.96, f1=0.95, rows=100),
        ],
        confusion=[[94, 6], [4, 96]],
        accuracy_interval=(0.9104, 0.9726),
        roc=[(0.0, 0.0), (0.02, 0.8), (0.1, 0.98), (1.0, 1.0)],
        calibration=[
            CalibrationBin(confidence=0.55, accuracy=0.6, rows=20),
            CalibrationBin(confidence=0.95, accuracy=0.97, rows=180),
        ],
        failures=["golden.csv, row 7 (line 8): the model failed"],
    ),
    latency=LATENCY,
    rows_per_second=150_000.0,
    features=[
        profile("amount", _RAMP, _RAMP * 2, is_text=False, threshold=0.7, features=2),
        profile("age", _RAMP, _RAMP, is_text=False, threshold=0.7, features=2),
    ],
    features_in_all=2,
    reference_rows=200,
    old=Results(
        metrics={"accuracy": 0.93, "f1": 0.93, "auc": 0.99, "logLoss": 0.25, "failedRows": 0.0}
    ),
    old_latency=LATENCY,
    agreement=Agreement(share=0.96, rows=199),
)
CHECKS = [
    Check(name="rows", value=200.0, limit="at least 1", passed=True, message="rows is 200"),
    Check(
        name="accuracy",
        value=0.95,
        limit="at least 0.97",
        passed=False,
        message="accuracy is 0.95, and at least 0.97 is asked for",
    ),
    Check(
        name="size",
        value=None,
        limit="at most 1 | 2 MiB",
        passed=False,
        message="size was not measured",
    ),
]


def compare(file: Path, text: str) -> None:
    """Hold a text against a file."""
    if os.environ.get("UPDATE_EXPECTED"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")
