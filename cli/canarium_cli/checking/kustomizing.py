"""Kustomizations: built by kustomize itself, with the places of what was built found again in the files.

kustomize does not say where a field comes from. A built object is traced to the documents of the files that a
kustomization reaches (its patches first, then its resources, then those of its bases) that have its kind and name, up
to a prefix or suffix; a field's place is that in the first of them that has it with the built value.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from canarium_cli.checking import documents
from canarium_cli.checking.documents import Document, DocumentError, Place

NAMES: Final = ("kustomization.yaml", "kustomization.yml", "Kustomization")
TIMEOUT_SECONDS: Final = 60
_DEPRECATED: Final = {
    "bases": "resources",
    "patchesStrategicMerge": "patches",
    "patchesJson6902": "patches",
    "commonLabels": "labels",
    "vars": "replacements",
    "imageTags": "images",
}
"""Fields of a kustomization that kustomize has given up, and what takes their place."""


class BuildError(Exception):
    """A kustomization cannot be built; the message is kustomize's."""


class Builder(Protocol):
    """Builds kustomizations."""

    def build(self, directory: Path) -> str:
        """Give all objects as YAML.

        Raises:
            BuildError: it cannot be built.
        """
        ...


@dataclass(frozen=True, slots=True)
class Kustomize:
    """The real one: `kustomize build` or `kubectl kustomize`."""

    command: tuple[str, ...]

    @classmethod
    def find(cls) -> "Kustomize | None":
        """Find it on PATH; None: it is not there."""
        if path := shutil.which("kustomize"):
            return cls((path, "build"))
        if path := shutil.which("kubectl"):
            return cls((path, "kustomize"))
        return None

    def build(self, directory: Path) -> str:
        """Run it. See `Builder`."""
        command = [*self.command, str(directory)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            msg = f"{' '.join(self.command[-1:])} took longer than {TIMEOUT_SECONDS} s: is a remote base out of reach?"
            raise BuildError(msg) from error
        except (OSError, UnicodeDecodeError) as error:
            raise BuildError(f"{self.command[0]} cannot be run: {error}") from error
        if done.returncode != 0:
            raise BuildError(_reason(done.stderr))
        return done.stdout


def _reason(stderr: str) -> str:
    """Give the words of the last line, without the mark of a log."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = (lines or ["no reason given"])[-1]
    logged = re.search(r'err="(.*)"$', last)
    return re.sub(r"^error: ", "", logged[1] if logged else last, flags=re.I)[:1000]


def file_of(directory: Path) -> Path | None:
    """Give the kustomization's file; None: the directory is none."""
    return next((directory / n for n in NAMES if (directory / n).is_file()), None)


@dataclass(frozen=True, kw_only=True)
class Kustomization:
    """One kustomization, as its file says."""

    file: Path
    value: Mapping[str, Any]
    places: Mapping[str, Place]
    text: str

    @property
    def directory(self) -> Path:
        """Where it is."""
        return self.file.parent

    def bases(self) -> list[Path]:
        """Directories that it is made from."""
        return [path for path in self._paths("resources", "bases", "components") if path.is_dir()]

    def resources(self) -> list[Path]:
        """Files of objects."""
        return [path for path in self._paths("resources") if path.is_file()]

    def patches(self) -> list[Path]:
        """Files of patches."""
        named = [
            entry["path"]
            for key in ("patches", "patchesJson6902")
            for entry in self._list(key)
            if isinstance(entry, dict) and isinstance(entry.get("path"), str)
        ]
        named += [e for e in self._list("patchesStrategicMerge") if isinstance(e, str)]
        paths = [self.directory / name for name in named if "\n" not in name]
        return [path for path in paths if path.is_file()]

    def inline_patches(self) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
        """Give text, line and target of the patches that stand in the file itself."""
        lines = self.text.splitlines()
        for index, entry in enumerate(self._list("patches")):
            if not isinstance(entry, dict) or not isinstance(entry.get("patch"), str):
                continue
            place = self.places[f"patches[{index}].patch"]
            line = lines[place.line - 1] if place.line <= len(lines) else ""
            first = (
                place.line + 1
                if line.rstrip().endswith(("|", "|-", "|+", ">", ">-"))
                else place.line
            )
            yield entry["patch"], first, entry.get("target") or {}

    def deprecated(self) -> list[tuple[str, str]]:
        """Name the fields that kustomize has given up, and what takes their place."""
        return [(old, new) for old, new in _DEPRECATED.items() if old in self.value]

    def _list(self, key: str) -> list[Any]:
        found = self.value.get(key)
        return found if isinstance(found, list) else []

    def _paths(self, *keys: str) -> list[Path]:
        named = [
            e for key in keys for e in self._list(key) if isinstance(e, str) and "://" not in e
        ]
        return [self.directory / name for name in named if len(name) < 1000 and "\n" not in name]


def read(file: Path, shown: str) -> Kustomization:
    """Read a kustomization's file.

    Raises:
        DocumentError: it is not YAML, or no mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(f"cannot be read: {error}") from error
    found = documents.read(text, shown)
    if not found or not isinstance(found[0].value, dict):
        msg = "is no kustomization: a mapping is expected"
        raise DocumentError(msg)
    return Kustomization(file=file, value=found[0].value, places=found[0].places, text=text)


def reachable(
    directory: Path, known: Mapping[Path, Kustomization], seen: set[Path] | None = None
) -> Iterator[Kustomization]:
    """Give a kustomization, and all that it is made from."""
    seen = set() if seen is None else seen
    found = known.get(directory.resolve())
    if found is None or directory.resolve() in seen:
        return
    seen.add(directory.resolve())
    yield found
    for base in found.bases():
        yield from reachable(base, known, seen)


class Tracer:
    """Finds where the parts of built objects come from.

    Args:
        kustomizations: all that are known, by directory (resolved).
        name: gives a file's name for people.
    """

    def __init__(
        self, kustomizations: Mapping[Path, Kustomization], name: Callable[[Path], str]
    ) -> None:
        self._all = kustomizations
        self._name = name

    def trace(self, directory: Path, built: Sequence[Document]) -> list[Document]:
        """Give the built documents with what they come from."""
        parts = list(self._parts(directory))
        file = self._file_of(directory)
        return [
            replace(document, places={}, file=file, others=_parts_of(document, parts))
            for document in built
        ]

    def _file_of(self, directory: Path) -> str:
        file = file_of(directory)
        return self._name(file if file is not None else directory)

    def _parts(self, directory: Path) -> Iterator[Document]:
        for kustomization in reachable(directory, self._all):
            for text, line, target in kustomization.inline_patches():
                yield from _patch(text, self._name(kustomization.file), line, target)
            for path in kustomization.patches():
                yield from _patch(_text(path), self._name(path), 1, {})
            for path in kustomization.resources():
                yield from _documents(_text(path), self._name(path), 1)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""  # kustomize says it


def _documents(text: str, file: str, line: int) -> list[Document]:
    try:
        return documents.read(text, file, line)
    except DocumentError:
        return []  # kustomize says it


def _patch(text: str, file: str, line: int, target: Mapping[str, Any]) -> Iterator[Document]:
    """Read a patch: a part of an object, or a list of operations (RFC 6902), whose paths become places."""
    for document in _documents(text, file, line):
        if isinstance(document.value, dict):
            yield document
        elif isinstance(document.value, list):
            yield _operations(document, target)


def _operations(document: Document, target: Mapping[str, Any]) -> Document:
    places: dict[str, Place] = {}
    for index, operation in enumerate(document.value):
        pointer = operation.get("path") if isinstance(operation, dict) else None
        if isinstance(pointer, str):
            place = document.places[f"[{index}]"]
            places[_path_of(pointer)] = place
            for inner, where in document.places.items():
                if inner.startswith(f"[{index}].value."):
                    places[_path_of(pointer) + inner[len(f"[{index}].value") :]] = where
    name, kind = target.get("name"), target.get("kind")
    value = {"kind": kind, "metadata": {"name": name}}
    return replace(document, value=value, places=places, is_operations=True)


def _path_of(pointer: str) -> str:
    path = ""
    for part in pointer.strip("/").split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        path += f"[{part}]" if part.isdigit() else f".{part}" if path else part
    return path


def _parts_of(document: Document, parts: Sequence[Document]) -> tuple[Document, ...]:
    """Choose what belongs to an object; of `a` and `ab` in `x-ab`, the longer name is its own."""
    found = [part for part in parts if _matches(part.value, document.value)]
    found.sort(key=lambda part: -len(_name(part.value) or "x" * 1000))
    return tuple(found)


def _name(value: Any) -> str | None:
    name = (value.get("metadata") or {}).get("name")
    return None if name is None else str(name)


def _matches(part: Any, built: Any) -> bool:
    """Whether a part may belong to an object: the same kind, and its name in the object's."""
    if not isinstance(part, dict) or not isinstance(built, dict):
        return False
    kind, name = part.get("kind"), _name(part)
    if kind is not None and kind != built.get("kind"):
        return False
    return name is None or name in (_name(built) or "")
