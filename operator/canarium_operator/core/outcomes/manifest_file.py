"""A manifest in git as a text that people own: read, and changed in single values, with its comments kept.

Loaded by the process that writes into git alone, as is ruamel.yaml.
"""

import io
import itertools
import json
from collections.abc import Sequence
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, SingleQuotedScalarString

from canarium_api.duration import parse_duration
from canarium_api.quantity import parse_quantity
from canarium_operator.core.outcomes.jobs import GitEdit

KIND: Final = "ModelDeployment"
_MISSING: Final = object()
_QUOTED: Final = (DoubleQuotedScalarString, SingleQuotedScalarString)


class UnusableFileError(ValueError):
    """The file cannot be edited; the message says why and what helps."""


class MovedOnError(ValueError):
    """The file no longer asks for the revision that failed; the message says what it has instead."""


class ManifestFile:
    """The documents of one file, and the ModelDeployment among them."""

    def __init__(self, text: str, name: str) -> None:
        """Read.

        Args:
            text: the file.
            name: of the ModelDeployment; another name is fine where the file has only one (kustomize may rename).

        Raises:
            UnusableFileError: no YAML, or no such document.
        """
        self._yaml = round_trip(text)
        try:
            self._documents = list(self._yaml.load_all(text))
        except (YAMLError, ValueError) as error:
            where = getattr(error, "problem_mark", None)
            line = f" at line {where.line + 1}" if where is not None else ""
            msg = f"is not YAML{line}"
            raise UnusableFileError(msg) from error
        found = [
            document
            for document in self._documents
            if isinstance(document, dict) and document.get("kind") == KIND
        ]
        named = [document for document in found if _name(document) == name]
        if not named and len(found) != 1:
            msg = f"has {len(found)} {KIND}s, and none named {name}"
            raise UnusableFileError(msg)
        self._document = (named or found)[0]
        given = self._document.get("metadata")
        namespace = given.get("namespace") if isinstance(given, dict) else None
        self.metadata = {"name": _name(self._document) or name}
        """Name, and namespace if there is one, as the file has them: a patch must use the same."""
        if isinstance(namespace, str):
            self.metadata["namespace"] = str(namespace)
        self.metadata["name"] = str(self.metadata["name"])

    def change(self, edits: Sequence[GitEdit]) -> bool:
        """Put values back.

        Returns:
            Whether anything changed: False where all is as it shall be already.

        Raises:
            MovedOnError: a value is another one than the failed revision had.
            UnusableFileError: a value is not in this file.
        """
        pending = [edit for edit in edits if not self._is_done(edit)]
        for edit in pending:
            self._check(edit)
        for edit in pending:
            self._set(edit)
        return bool(pending)

    def spec(self) -> dict[str, Any]:
        """Give the spec as the file has it; not to be changed."""
        spec = self._document.get("spec")
        return spec if isinstance(spec, dict) else {}

    def assign(self, path: Sequence[str], value: Any) -> None:
        """Set a value of the spec, whatever it was; what it lies in is made where it is missing."""
        if not self.spec():
            self._document["spec"] = CommentedMap()
        self._set(GitEdit(path=tuple(path), before=None, after=json.dumps(value)))

    def text(self) -> str:
        """Write the file."""
        out = io.StringIO()
        self._yaml.dump_all(self._documents, out)
        return out.getvalue()

    def _is_done(self, edit: GitEdit) -> bool:
        return _same(self._get(edit.path), edit.after)

    def _check(self, edit: GitEdit) -> None:
        present = self._get(edit.path)
        path = "spec." + ".".join(edit.path)
        if _same(present, edit.before):
            return
        if present is _MISSING:
            msg = f"does not set {path}, which must change: name the file that sets it in spec.gitops.manifest"
            raise UnusableFileError(msg)
        msg = f"has {path} {json.dumps(present, default=str)[:100]}, not {edit.before or 'nothing'} any more"
        raise MovedOnError(msg)

    def _get(self, path: Sequence[str]) -> Any:
        value: Any = self._document.get("spec")
        for key in path:
            if not isinstance(value, dict) or key not in value:
                return _MISSING
            value = value[key]
        return value

    def _set(self, edit: GitEdit) -> None:
        parents = [self._document["spec"]]
        for key in edit.path[:-1]:
            if key not in parents[-1]:
                parents[-1][key] = CommentedMap()
            parents.append(parents[-1][key])
        key = edit.path[-1]
        if edit.after is None:
            del parents[-1][key]
            for above, name in zip(reversed(parents[:-1]), reversed(edit.path[:-1]), strict=True):
                if above[name]:
                    break
                del above[name]
            return
        present = parents[-1].get(key)
        wanted = _commented(json.loads(edit.after))
        if isinstance(wanted, str) and isinstance(present, _QUOTED):
            wanted = type(present)(wanted)
        parents[-1][key] = wanted


def round_trip(text: str) -> YAML:
    """Prepare a reader and writer that leaves the lines of a file as they are, as far as ruamel.yaml can."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 4096
    # Sequences are indented under their key in some files and not in others; the first one tells.
    lines = text.splitlines()
    for above, line in itertools.pairwise(lines):
        if above.rstrip().endswith(":") and line.lstrip().startswith("- "):
            if len(line) - len(line.lstrip()) > len(above) - len(above.lstrip()):
                yaml.indent(mapping=2, sequence=4, offset=2)
            break
    yaml.explicit_start = text.lstrip().startswith("---") or None
    return yaml


def _name(document: Any) -> str:
    meta = document.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else None
    return name if isinstance(name, str) else ""


def _commented(value: Any) -> Any:
    if isinstance(value, dict):
        return CommentedMap((key, _commented(entry)) for key, entry in value.items())
    if isinstance(value, list):
        return CommentedSeq(map(_commented, value))
    return value


def _same(present: Any, text: str | None) -> bool:
    """Compare a value of the file with one of a revision, which is in normal form: 0.1s is 100ms."""
    if text is None:
        return present is _MISSING
    if present is _MISSING:
        return False
    wanted = json.loads(text)
    if present == wanted:
        return True
    for parse in (parse_duration, parse_quantity):
        try:
            if parse(str(present)) == parse(str(wanted)):
                return True
        except (ValueError, TypeError):
            continue
    return False
