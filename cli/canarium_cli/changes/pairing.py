"""Each ModelDeployment of two trees, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canarium_api import KIND
from canarium_cli.changes.planning import Change, Effect, plan
from canarium_cli.checking import judging, objects, sources
from canarium_cli.checking.documents import Document
from canarium_cli.checking.findings import Rule, Severity
from canarium_cli.checking.kustomizing import Builder
from canarium_cli.checking.sources import Group
from canarium_operator.core.templates import TemplateKey


class TreeError(Exception):
    """A tree cannot be read; the message says which part."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """What a tree says of our objects."""

    objects: dict[tuple[str, str], Document]
    """ModelDeployments by (directory of the kustomization or `files`, `namespace/name`)."""
    templates: dict[str, dict[TemplateKey, Any]]
    """`.spec` of AnalysisTemplates by the same directory."""


def read_tree(directory: Path, root: Path, builder: Builder | None) -> Tree:
    """Read a tree; a directory that does not exist has no objects.

    Args:
        directory: what is looked at.
        root: of the tree; names are given from here.
        builder: builds kustomizations; None: files are read as they stand.

    Raises:
        TreeError: a file is not YAML, or a kustomization does not build.
    """
    if not directory.exists():
        return Tree(objects={}, templates={})
    try:
        groups = sources.collect([str(directory)], builder, root)
    except sources.SourceError as error:
        raise TreeError(str(error)) from error
    for group in groups:
        for finding in group.findings:
            if finding.severity is Severity.ERROR and finding.rule in (Rule.YAML, Rule.KUSTOMIZE):
                raise TreeError(f"{finding.file}:{finding.line}: {finding.message}")
    objects, templates = {}, {}
    everywhere = judging.templates_of(d for group in groups for d in group.documents)
    for group in groups:
        templates[group.title] = everywhere | judging.templates_of(group.documents)
        objects.update(_objects(group))
    return Tree(objects=objects, templates=templates)


def _objects(group: Group) -> dict[tuple[str, str], Document]:
    return {
        (group.title, objects.name_of(document).removeprefix(f"{KIND} ")): document
        for document in filter(objects.is_ours, group.documents)
        if document.value["kind"] == KIND
    }


def compare(before: Tree, after: Tree) -> list[Change]:
    """Tell what becomes of each object that is not as it was. One that only moved to another directory is as it was."""
    gone = {key: found for key, found in before.objects.items() if key not in after.objects}
    changes = []
    for key in sorted(after.objects):
        old, new = before.objects.get(key), after.objects[key]
        if old is None and (moved := _moved(key, gone, after)) is not None:
            old = gone.pop(moved)
        where, name = key
        templates = after.templates.get(where, {})
        problems = [
            f"{finding.field}: {finding.message}"
            for finding in judging.judge_object(new, templates)
            if finding.severity is Severity.ERROR and finding.rule is not Rule.STATUS
        ]
        specs = (_spec(old) if old is not None else None, _spec(new))
        changes.append(plan(where, name, specs, templates, problems))
    changes += [plan(*key, (_spec(old), None), {}) for key, old in gone.items()]
    told = [change for change in changes if change.effect is not Effect.NONE]
    return sorted(told, key=lambda change: (change.where, change.name))


def _spec(document: Document) -> dict[str, Any]:
    spec = document.value.get("spec")
    return spec if isinstance(spec, dict) else {}


def _moved(
    key: tuple[str, str], gone: dict[tuple[str, str], Any], after: Tree
) -> tuple[str, str] | None:
    """Find the one object of this name that is gone elsewhere, where none of this name is new in two places."""
    new = [other for other in after.objects if other[1] == key[1]]
    candidates: Sequence[tuple[str, str]] = [other for other in gone if other[1] == key[1]]
    return candidates[0] if len(candidates) == 1 and len(new) == 1 else None
