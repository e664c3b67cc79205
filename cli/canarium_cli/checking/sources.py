"""From what the user named to groups of documents that are applied together.

A directory gives a group for each kustomization in it that no other one uses, as built by kustomize, and one for the
files that belong to none. Without kustomize every file is read as it stands, and a note says so.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from canarium_cli.checking import documents, kustomizing
from canarium_cli.checking.documents import Document, DocumentError
from canarium_cli.checking.findings import Finding, Rule, Severity
from canarium_cli.checking.kustomizing import Builder, BuildError, Kustomization, Tracer

MAX_FILES: Final = 10_000
"""Files that one run reads."""
_MARK: Final = "canarium.dev/"
"""What a file has that concerns us: others need not be YAML."""


class SourceError(Exception):
    """What the user named cannot be read at all."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Documents that are applied together."""

    title: str
    documents: Sequence[Document] = ()
    patches: Sequence[Document] = ()
    """Parts of objects: only their fields can be checked."""
    findings: Sequence[Finding] = ()
    """What went wrong while reading."""
    directory: Path | None = None
    """Of the kustomization that it was built from."""


@dataclass(kw_only=True)
class _Reading:
    documents: list[Document] = field(default_factory=list)
    patches: list[Document] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def collect(
    named: Sequence[str], builder: Builder | None, root: Path, stdin: str | None = None
) -> list[Group]:
    """Read everything that was named.

    Args:
        named: files, directories, or `-` for standard input.
        builder: builds kustomizations; None: they are read as plain files.
        root: names of files are given from here.
        stdin: what came in.

    Raises:
        SourceError: something that was named does not exist.
    """
    groups: list[Group] = []
    plain = _Reading()
    for word in named:
        path = Path(word)
        if word == "-":
            _read_text(stdin if stdin is not None else sys.stdin.read(), "-", plain, strict=True)
        elif path.is_dir():
            groups += _directory(path, builder, root, plain)
        elif path.is_file():
            _read_file(path, shown(path, root), plain, strict=True)
        else:
            raise SourceError(f"{word}: no such file or directory, in {Path.cwd()}")
    rest = Group(
        title="files",
        documents=plain.documents,
        patches=plain.patches,
        findings=plain.findings,
    )
    return [*groups, rest]


def shown(path: Path, root: Path) -> str:
    """Name a file for people, and for GitHub: from the root, where it is below it."""
    resolved = path.resolve()
    return str(resolved.relative_to(root) if resolved.is_relative_to(root) else path)


def _directory(path: Path, builder: Builder | None, root: Path, plain: _Reading) -> list[Group]:
    files = list(_walk(path))
    known: dict[Path, Kustomization] = {}
    for file in files:
        if file.name in kustomizing.NAMES:
            _note_kustomization(file, shown(file, root), known, plain)
    owned = {f.resolve() for k in known.values() for f in (*k.resources(), *k.patches())}
    patches = {f.resolve() for k in known.values() for f in k.patches()}
    groups: list[Group] = []
    if builder is not None:
        groups = _built(known, builder, root)
        failed = {g.directory for g in groups if g.directory is not None and not g.documents}
        for directory in failed:  # what its files say can be checked all the same
            for one in kustomizing.reachable(directory, known):
                owned -= {f.resolve() for f in (*one.resources(), *one.patches())}
    elif known:
        owned = set()
        message = "no kustomize, no kubectl: files are checked as they stand, patches for their fields alone"
        plain.findings.append(_finding(shown(path, root), Severity.NOTE, Rule.KUSTOMIZE, message))
    for file in files:
        if file.name in kustomizing.NAMES or file.resolve() in owned:
            continue
        into = _Reading(findings=plain.findings) if file.resolve() in patches else plain
        _read_file(file, shown(file, root), into, strict=False)
        if into is not plain:
            plain.patches += into.documents
    return groups


def _built(known: dict[Path, Kustomization], builder: Builder, root: Path) -> list[Group]:
    """Build the kustomizations that no other one is made from."""
    used = {base.resolve() for k in known.values() for base in k.bases()}
    tracer = Tracer(known, lambda file: shown(file, root))
    tops = sorted(directory for directory in known if directory not in used)
    return [_build(directory, builder, tracer, root) for directory in tops]


def _walk(directory: Path) -> Iterator[Path]:
    """Give the YAML files below a directory, in order; hidden directories are left out."""
    count = 0
    for folder, inner, names in os.walk(directory):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            if name.endswith((".yaml", ".yml")) or name in kustomizing.NAMES:
                count += 1
                if count > MAX_FILES:
                    raise SourceError(
                        f"{directory}: more than {MAX_FILES} YAML files: name a directory further down"
                    )
                yield Path(folder) / name


def _note_kustomization(
    file: Path, name: str, known: dict[Path, Kustomization], plain: _Reading
) -> None:
    try:
        found = kustomizing.read(file, name)
    except DocumentError as error:
        plain.findings.append(_broken(name, error))
        return
    known[file.parent.resolve()] = found
    for old, new in found.deprecated():
        place = found.places[old]
        message = f"{old} is deprecated in kustomize: write {new}"
        plain.findings.append(
            _finding(name, Severity.WARNING, Rule.KUSTOMIZE, message, place.line, place.column, old)
        )


def _build(directory: Path, builder: Builder, tracer: Tracer, root: Path) -> Group:
    file = kustomizing.file_of(directory)
    name = shown(file if file is not None else directory, root)
    title = shown(directory, root)
    try:
        built = documents.read(builder.build(directory), name)
    except BuildError as error:
        found = _finding(name, Severity.ERROR, Rule.KUSTOMIZE, f"does not build: {error}")
        return Group(title=title, findings=[found], directory=directory)
    except DocumentError as error:
        return Group(title=title, findings=[_broken(name, error)], directory=directory)
    objects = [part for document in built for part in unpacked(document)]
    return Group(title=title, documents=tracer.trace(directory, objects), directory=directory)


def _read_file(path: Path, name: str, into: _Reading, *, strict: bool) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if strict:
            raise SourceError(f"{path}: cannot be read: {error}") from error
        return
    _read_text(text, name, into, strict=strict)


def _read_text(text: str, name: str, into: _Reading, *, strict: bool) -> None:
    if not strict and _MARK not in text:
        return  # not ours; a values file or a chart's template may be anything
    try:
        found = documents.read(text, name)
    except DocumentError as error:
        hint = ": render a chart first (helm template), and check what comes out"
        into.findings.append(_broken(name, error, hint if "{{" in text else ""))
        return
    into.documents += [part for document in found for part in unpacked(document)]


def unpacked(document: Document) -> list[Document]:
    """Take a list of objects apart, as `kubectl get -o yaml` gives it."""
    value = document.value
    if not (isinstance(value, dict) and str(value.get("kind", "")).endswith("List")):
        return [document]
    items = value.get("items")
    found = []
    for index, item in enumerate(items if isinstance(items, list) else []):
        prefix = f"items[{index}]"
        places = {
            path[len(prefix) :].lstrip("."): place
            for path, place in document.places.items()
            if path == prefix or path.startswith((f"{prefix}.", f"{prefix}["))
        }
        found.append(Document(file=document.file, value=item, places=places))
    return found


def _broken(name: str, error: DocumentError, hint: str = "") -> Finding:
    message = error.message + hint
    return _finding(name, Severity.ERROR, Rule.YAML, message, error.line, error.column)


def _finding(
    file: str,
    severity: Severity,
    rule: Rule,
    message: str,
    line: int = 1,
    column: int = 1,
    path: str = "",
) -> Finding:
    return Finding(
        file=file,
        line=line,
        column=column,
        severity=severity,
        rule=rule,
        target="",
        field=path,
        message=message,
    )
