"""Findings as text for people, JSON for programs, workflow commands for GitHub, and JUnit for everybody else."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Final
from xml.etree import ElementTree as ET

from canarium_cli.checking.findings import Finding, Severity


class Output(StrEnum):
    """Formats of a report."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"
    JUNIT = "junit"


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that was found."""

    findings: Sequence[Finding]
    objects: Sequence[str]
    """What was checked, as `FILE: KIND NAMESPACE/NAME`."""
    strict: bool = False
    """Warnings count as errors."""

    def fails(self, finding: Finding) -> bool:
        """Whether a finding makes the check fail."""
        severe = {Severity.ERROR, Severity.WARNING} if self.strict else {Severity.ERROR}
        return finding.severity in severe

    @property
    def errors(self) -> int:
        """How many findings make the check fail."""
        return sum(map(self.fails, self.findings))

    def count(self, severity: Severity) -> int:
        """How many findings there are of a kind."""
        return sum(finding.severity is severity for finding in self.findings)

    def summary(self) -> str:
        """Say it in one line."""
        parts = [_plural(len(self.objects), "object") + " checked"]
        parts += [
            _plural(number, severity.value)
            for severity in Severity
            if (number := self.count(severity))
        ]
        return ", ".join(parts) if self.findings else f"{parts[0]}, nothing wrong"


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def render(report: Report, output: Output, *, colours: bool = False) -> str:
    """Write a report.

    Args:
        report: what to write.
        output: how.
        colours: of text, for a terminal.
    """
    match output:
        case Output.TEXT:
            return _text(report, colours)
        case Output.JSON:
            return _json(report)
        case Output.GITHUB:
            return _github(report)
        case Output.JUNIT:
            return _junit(report)


def _where(finding: Finding) -> str:
    return f"{finding.file}:{finding.line}:{finding.column}"


def _what(finding: Finding) -> str:
    """Name the field, unless the message does."""
    short = finding.field.removeprefix("spec.")
    if not finding.field or finding.message.startswith((finding.field, short)):
        return finding.message
    return f"{finding.field}: {finding.message}"


_COLOURS: Final = {Severity.ERROR: "31", Severity.WARNING: "33", Severity.NOTE: "36"}
"""Of a terminal (ECMA-48)."""


def _text(report: Report, colours: bool) -> str:
    lines: list[str] = []
    previous = ""
    for finding in sorted(_merged(report.findings), key=lambda f: (f.target, f.file, f.line)):
        if finding.target != previous:
            lines += ["", finding.target] if lines else [finding.target]
            previous = finding.target
        severity = str(finding.severity)
        if colours:
            severity = f"\x1b[{_COLOURS[finding.severity]}m{severity}\x1b[0m"
        lines.append(f"  {_where(finding)}  {severity}  {_what(finding)} [{finding.rule}]")
    return "\n".join([*lines, *([""] if lines else []), report.summary()])


def _merged(findings: Sequence[Finding]) -> list[Finding]:
    """Tell once what several objects have from one line, such as those of overlays from their base."""
    found: dict[Finding, list[str]] = {}
    for finding in findings:
        found.setdefault(replace(finding, target=""), []).append(finding.target)
    return [
        replace(finding, target=", ".join(dict.fromkeys(targets)))
        for finding, targets in found.items()
    ]


def _json(report: Report) -> str:
    document = {
        "passed": report.errors == 0,
        "objects": list(report.objects),
        "findings": [
            {**asdict(finding), "severity": finding.severity.value, "rule": finding.rule.value}
            for finding in report.findings
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def _github(report: Report) -> str:
    """Write workflow commands, which GitHub shows beside the lines of a pull request."""
    lines = []
    for finding in _merged(report.findings):
        where = (
            f"file={_property(finding.file)},line={finding.line},col={finding.column},"
            f"title={_property(finding.target or finding.rule.value)}"
        )
        lines.append(f"::{_LEVELS[finding.severity]} {where}::{_escaped(_what(finding))}")
    return "\n".join([*lines, report.summary()])


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _junit(report: Report) -> str:
    """Write one case for each object, and one for each file that has findings of its own."""
    cases: dict[str, list[Finding]] = {name: [] for name in report.objects}
    for finding in report.findings:
        matching = [name for name in cases if finding.target and name.endswith(finding.target)]
        exact = [name for name in matching if name.startswith(f"{finding.file}: ")]
        key = (exact or matching or [finding.file])[0]
        cases.setdefault(key, []).append(finding)
    suite = ET.Element("testsuite", name="canarium check", tests=str(len(cases)))
    failures = 0
    for name, findings in cases.items():
        case = ET.SubElement(suite, "testcase", classname="canarium.check", name=name)
        failing = [f for f in findings if report.fails(f)]
        if failing:
            failures += 1
            first = failing[0]
            element = ET.SubElement(case, "failure", type=first.rule.value, message=_what(first))
            element.text = "\n".join(f"{_where(f)} {f.severity}: {_what(f)}" for f in failing)
        others = [f for f in findings if f not in failing]
        if others:
            output = ET.SubElement(case, "system-out")
            output.text = "\n".join(f"{_where(f)} {f.severity}: {_what(f)}" for f in others)
    suite.set("failures", str(failures))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)
