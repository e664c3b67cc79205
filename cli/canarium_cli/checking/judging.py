"""What is wrong with all that was read: each object by itself, and objects that are there twice."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from canarium_api.crdgen import TEMPLATE_KINDS
from canarium_cli.checking.documents import Document
from canarium_cli.checking.findings import Finding, Rule, Severity
from canarium_cli.checking.object_judge import ObjectJudge
from canarium_cli.checking.objects import finding, is_ours, meta_of
from canarium_cli.checking.sources import Group
from canarium_operator.core.templates import TemplateKey


def judge(groups: Sequence[Group]) -> list[Finding]:
    """Judge all objects of all groups."""
    found: list[Finding] = []
    everywhere = templates_of(document for group in groups for document in group.documents)
    for group in groups:
        found += group.findings
        templates = {**everywhere, **templates_of(group.documents)}
        for document in filter(is_ours, group.documents):
            found += judge_object(document, templates)
        for document in filter(is_ours, group.patches):
            found += ObjectJudge(document).patch()
        found += duplicates(group)
    return sorted(set(found))


def templates_of(documents: Iterable[Document]) -> dict[TemplateKey, Any]:
    """Give the `.spec` of AnalysisTemplates by what a ModelDeployment calls them."""
    return {
        (document.value["kind"].startswith("Cluster"), meta_of(document).get("name", "")): (
            document.value.get("spec")
        )
        for document in documents
        if is_ours(document) and document.value["kind"] in TEMPLATE_KINDS
    }


def duplicates(group: Group) -> Iterator[Finding]:
    """Find objects that are there twice. In files of different directories, that may be two clusters."""
    seen: dict[tuple[Any, ...], Document] = {}
    for document in filter(is_ours, group.documents):
        meta = meta_of(document)
        key = (document.value["kind"], meta.get("namespace"), meta.get("name"))
        first = seen.setdefault(key, document)
        if first is document:
            continue
        where = first.place("metadata.name")
        near = PurePath(first.file).parent == PurePath(document.file).parent
        ending = "" if near else ": where both go to one cluster, the last one applied wins"
        yield finding(
            document,
            Severity.ERROR if near else Severity.WARNING,
            Rule.DUPLICATE_OBJECT,
            "metadata.name",
            f"is defined in {where.file}:{where.line}, too{ending}",
        )


def judge_object(document: Document, templates: Mapping[TemplateKey, Any]) -> list[Finding]:
    """Judge one object.

    Args:
        document: it.
        templates: `.spec` of the AnalysisTemplates that there are.
    """
    return list(ObjectJudge(document).whole(templates))
