"""The report in words: numbers as people write them, Markdown for a pull request, text for a terminal."""

from collections.abc import Sequence
from typing import Final

from canarium_cli.validating.report import Report
from canarium_runtime.golden.judging import Check, shown
from canarium_runtime.golden.scores import LESS_IS_BETTER

MARKER: Final = "<!-- canarium validate -->"
"""First line of the Markdown, by which a later run finds the comment of an earlier one."""
NAMES: Final = {
    "accuracy": "accuracy",
    "balancedAccuracy": "balanced accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc": "AUC",
    "logLoss": "log loss",
    "calibrationError": "calibration error",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "failedRows": "failed rows",
}
"""Metrics as people call them."""
_MOST_FEATURES: Final = 10


def size(count: float) -> str:
    """Write a number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return ""


def verdict(report: Report) -> str:
    """Say what came of it."""
    missed = sum(not check.passed for check in report.checks)
    if not missed:
        return f"passed: {len(report.checks)} of {len(report.checks)} checks"
    return f"failed: {missed} of {len(report.checks)} checks"


def rows_of_metrics(report: Report) -> list[tuple[str, str, str, str]]:
    """Give name, value, the old version's value, and how it changed: `+0.012`, better, worse or empty."""
    found = []
    old = {} if report.found.old is None else dict(report.found.old.metrics)
    for name, value in report.found.new.metrics.items():
        before = old.get(name)
        change = "" if before is None else _change(name, value, before)
        found.append(
            (NAMES.get(name, name), shown(value), "" if before is None else shown(before), change)
        )
    return found


def _change(name: str, value: float, before: float) -> str:
    if value == before:
        return "same"
    better = (value < before) == (name in LESS_IS_BETTER)
    return f"{value - before:+.4g} {'better' if better else 'worse'}"


def facts(report: Report) -> list[tuple[str, str]]:
    """Give what was validated, as pairs of words."""
    found, model = report.found, report.model
    pairs = [
        ("model", f"{model.name} ({size(model.size_bytes)}, sha256 {model.sha256[:12]})"),
        ("data", f"{report.data}, {found.rows} rows, {found.task}"),
        (
            "latency",
            f"p50 {found.latency.p50:.3g} ms, p95 {found.latency.p95:.3g} ms, p99 {found.latency.p99:.3g} ms "
            f"({found.latency.runs} runs of one row)",
        ),
        ("throughput", f"{found.rows_per_second:,.0f} rows/s"),
    ]
    if found.new.accuracy_interval is not None:
        low, high = found.new.accuracy_interval
        pairs.append(("accuracy may be", f"{low:.3f} to {high:.3f} (95 %, {found.rows} rows)"))
    if report.against is not None:
        against = report.against
        pairs.append(
            (
                "against",
                f"{against.name} ({size(against.size_bytes)}, sha256 {against.sha256[:12]})",
            )
        )
    if found.agreement is not None:
        pairs.append(("agreement", f"{found.agreement.share:.1%} of {found.agreement.rows} rows"))
    if report.reference is not None:
        pairs.append(("reference", f"{report.reference}, {found.reference_rows} rows"))
    return pairs


def text(report: Report) -> str:
    """Write the report for a terminal without colours or for a log."""
    lines = [f"{verdict(report)}", ""]
    lines += [f"  {name:<16} {value}" for name, value in facts(report)]
    lines.append("")
    for name, value, before, change in rows_of_metrics(report):
        against = f"  was {before}, {change}" if before else ""
        lines.append(f"  {name:<18} {value}{against}")
    lines += ["", *(f"  {_mark(check)} {check.message}" for check in report.checks)]
    notes = report.notes()
    return "\n".join([*lines, *([""] if notes else []), *(f"  note: {n}" for n in notes)])


def _mark(check: Check) -> str:
    return "ok    " if check.passed else "MISSED"


def markdown(report: Report) -> str:
    """Write the report for a pull request."""
    sign = ":white_check_mark:" if report.passed else ":x:"
    lines = [MARKER, f"### {sign} Model validation {verdict(report)}", ""]
    lines += ["| | Check | Measured | Asked for |", "|---|---|---|---|"]
    for check in sorted(report.checks, key=lambda c: c.passed):
        mark = ":white_check_mark:" if check.passed else ":x:"
        value = "not measured" if check.value is None else shown(check.value)
        lines.append(f"| {mark} | {_cell(check.name)} | {value} | {_cell(check.limit)} |")
    missed = [check for check in report.checks if not check.passed]
    lines += ["", *(f"- {_cell(check.message)}" for check in missed)]
    lines += ["", "<details>", "<summary>Metrics</summary>", ""]
    lines += _table(("Metric", "Value", "Old version", "Change"), rows_of_metrics(report))
    lines += ["", *_table(("", ""), facts(report)), "", "</details>"]
    lines += _markdown_features(report)
    lines += [f"- {_cell(note)}" for note in report.notes()]
    return "\n".join([*lines, "", f"<sub>canarium validate {report.version}</sub>"])


def _markdown_features(report: Report) -> list[str]:
    known = [f for f in report.found.features if f.drift is not None]
    if not known:
        return [""]
    known.sort(key=lambda f: -(f.drift.score if f.drift is not None else 0))
    rows = [
        (
            f"`{f.name}`",
            f"{f.drift.score:.2f}{' **drifted**' if f.drift.drifted else ''}",
            f"{f.drift.psi:.3f}",
            "" if f.drift.ks is None else f"{f.drift.ks:.3f}",
            f"{f.missing_share:.1%}",
            "" if f.out_of_range is None else f"{f.out_of_range:.1%}",
        )
        for f in known[:_MOST_FEATURES]
        if f.drift is not None
    ]
    head = ("Feature", "Drift score", "PSI", "KS", "Missing", "Out of range")
    title = (
        f"<summary>Features, by drift ({min(len(known), _MOST_FEATURES)} of {len(known)})</summary>"
    )
    return ["", "<details>", title, "", *_table(head, rows), "", "</details>", ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
