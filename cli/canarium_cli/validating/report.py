"""The report of a validation as a value, and as JSON and JUnit."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from xml.etree import ElementTree as ET

from canarium_runtime.backends.base import ModelSpec, TensorSpec
from canarium_runtime.golden.evaluation import Evaluation
from canarium_runtime.golden.judging import Check


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model."""

    name: str
    """As the user named it, without credentials."""
    sha256: str
    size_bytes: int
    platform: str
    device: str
    inputs: Sequence[str]
    """Such as `x FP32 [-1, 4]`."""
    outputs: Sequence[str]


def subject(name: str, spec: ModelSpec, *, sha256: str, size_bytes: int, device: str) -> Subject:
    """Describe a model."""

    def tensors(specs: Sequence[TensorSpec]) -> list[str]:
        return [f"{t.name} {t.datatype} {t.wire_shape}" for t in specs]

    return Subject(
        name=name,
        sha256=sha256,
        size_bytes=size_bytes,
        platform=spec.platform,
        device=device,
        inputs=tensors(spec.inputs),
        outputs=tensors(spec.outputs),
    )


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of a validation."""

    model: Subject
    against: Subject | None
    data: str
    """Name of the golden data's file."""
    reference: str | None
    found: Evaluation
    checks: Sequence[Check]
    at: datetime
    version: str
    """Of canarium."""

    @property
    def passed(self) -> bool:
        """Whether every threshold is met."""
        return all(check.passed for check in self.checks)

    def notes(self) -> list[str]:
        """What a reader must know besides."""
        found = self.found
        notes = [*found.notes, *found.new.notes]
        if found.cut:
            notes.append(f"the file has more rows: the first {found.rows} were read")
        if found.features_in_all > len(found.features):
            notes.append(f"{len(found.features)} of {found.features_in_all} features are described")
        if found.new.failures:
            notes += [f"failed: {failure}" for failure in found.new.failures]
        return notes


def to_document(report: Report) -> dict[str, Any]:
    """Give the report as it is written in JSON."""
    found = report.found
    return {
        "passed": report.passed,
        "at": report.at.isoformat(),
        "canarium": report.version,
        "model": asdict(report.model),
        "against": None if report.against is None else asdict(report.against),
        "data": {
            "file": report.data,
            "rows": found.rows,
            "cut": found.cut,
            "reference": report.reference,
            "referenceRows": found.reference_rows,
        },
        "task": found.task.value,
        "checks": [asdict(check) for check in report.checks],
        "metrics": dict(found.new.metrics),
        "accuracyInterval": found.new.accuracy_interval,
        "againstMetrics": None if found.old is None else dict(found.old.metrics),
        "agreement": None if found.agreement is None else asdict(found.agreement),
        "latencyMilliseconds": _latency(found),
        "rowsPerSecond": round(found.rows_per_second, 1),
        "classes": [asdict(c) for c in found.new.classes],
        "confusion": [list(row) for row in found.new.confusion],
        "features": [_feature(feature) for feature in found.features],
        "notes": report.notes(),
    }


def _latency(found: Evaluation) -> dict[str, Any]:
    latency = found.latency
    told = {"runs": latency.runs, "p50": latency.p50, "p95": latency.p95, "p99": latency.p99}
    if found.old_latency is not None:
        old = found.old_latency
        told["against"] = {"p50": old.p50, "p95": old.p95, "p99": old.p99}  # type: ignore[assignment]
    return told


def _feature(feature: Any) -> dict[str, Any]:
    document = asdict(feature)
    document.pop("histogram")
    return document


def to_json(report: Report) -> str:
    """Write the report as JSON. A number that JSON has not (NaN of a model's answers) is null."""
    return json.dumps(_finite(to_document(report)), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def to_junit(report: Report) -> str:
    """Write one case for each check."""
    failed = [check for check in report.checks if not check.passed]
    suite = ET.Element(
        "testsuite",
        name="canarium validate",
        tests=str(len(report.checks)),
        failures=str(len(failed)),
        timestamp=report.at.isoformat(timespec="seconds"),
    )
    for check in report.checks:
        case = ET.SubElement(
            suite, "testcase", classname=f"canarium.validate.{report.found.task}", name=check.name
        )
        if not check.passed:
            element = ET.SubElement(case, "failure", type="threshold", message=check.message)
            element.text = check.message
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)
