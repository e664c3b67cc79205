"""What a check finds: how bad, which rule, where, and what to do."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """The API server or the operator would refuse it, or it can never become ready."""
    WARNING = "warning"
    """It works, and is likely to be regretted; an error with `--strict`."""
    NOTE = "note"
    """What was not checked, and what is only told."""


class Rule(StrEnum):
    """What was looked at; the words are part of the JSON report."""

    YAML = "yaml"
    """The file is YAML that can be read."""
    DUPLICATE_KEY = "duplicate-key"
    """No key stands twice in one mapping: the first would be lost without a word."""
    KUSTOMIZE = "kustomize"
    """Kustomizations build."""
    API_VERSION = "api-version"
    """The version exists, and is not deprecated."""
    UNKNOWN_FIELD = "unknown-field"
    """Every field is one of the CRD's."""
    SCHEMA = "schema"
    """Types, limits, patterns and required fields, as the CRD's schema has them."""
    CEL = "cel"
    """The CRD's rules across fields (`x-kubernetes-validations`)."""
    OPERATOR = "operator"
    """What the operator refuses besides (reason InvalidSpec)."""
    TEMPLATE = "template"
    """AnalysisTemplates that a ModelDeployment names are there."""
    DUPLICATE_OBJECT = "duplicate-object"
    """No object is defined twice."""
    STATUS = "status"
    """What kstatus makes of a status in the file."""
    UNPINNED = "unpinned"
    """The model is named by its digest, so that one revision can never be two models."""


@dataclass(frozen=True, kw_only=True, order=True)
class Finding:
    """One thing that a check found."""

    file: str
    line: int
    """From 1."""
    column: int
    """From 1."""
    severity: Severity
    rule: Rule
    target: str
    """The object, `ModelDeployment shop/deliveries`; empty where it is about a file."""
    field: str
    """Path from the object's root; empty where it is about all of it."""
    message: str
    """What is wrong, and what to do."""
