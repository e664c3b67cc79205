"""The kinds that are judged: their CRDs' versions, what an object is called, and findings at its fields."""

from functools import cache
from typing import Any, Final

from canarium_api import GROUP, KIND
from canarium_api.crdgen import TEMPLATE_KINDS, make_crd, make_template_crd
from canarium_cli.checking.documents import Document
from canarium_cli.checking.findings import Finding, Rule, Severity

KINDS: Final = (KIND, *TEMPLATE_KINDS)
"""Kinds that are judged; all others are passed over."""


@cache
def versions_of(kind: str) -> dict[str, dict[str, Any]]:
    """Give the versions of a kind by name, as its CRD has them."""
    crd = make_crd() if kind == KIND else make_template_crd(kind)
    return {version["name"]: version for version in crd["spec"]["versions"]}


def is_ours(document: Document) -> bool:
    """Whether a document is an object that is judged."""
    value = document.value
    return (
        isinstance(value, dict)
        and value.get("kind") in KINDS
        and str(value.get("apiVersion", "")).partition("/")[0] == GROUP
    )


def name_of(document: Document) -> str:
    """Name an object: `ModelDeployment shop/deliveries`."""
    meta = meta_of(document)
    namespace, name = meta.get("namespace"), meta.get("name", "?")
    return f"{document.value['kind']} {namespace + '/' if namespace else ''}{name}"


def meta_of(document: Document) -> dict[str, Any]:
    """Give its metadata; empty where there is none."""
    meta = document.value.get("metadata")
    return meta if isinstance(meta, dict) else {}


def finding(
    document: Document, severity: Severity, rule: Rule, field: str, message: str
) -> Finding:
    """Make a finding at a field of an object."""
    place = document.place(field)
    return Finding(
        file=place.file,
        line=place.line,
        column=place.column,
        severity=severity,
        rule=rule,
        target=name_of(document),
        field=field,
        message=message,
    )
