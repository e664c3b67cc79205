"""YAML with places: each document's value, and line and column of each of its fields.

Scalars are read as Kubernetes reads them, not as YAML 1.1 would: `18:00` and `2026-01-31` are text.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

MAX_BYTES: Final = 5 * 1024**2
"""Of a file."""
MAX_FIELDS: Final = 50_000
"""Of a document, aliases written out."""


class DocumentError(Exception):
    """A file cannot be read as YAML.

    Args:
        message: what is wrong.
        line: where, from 1.
        column: where, from 1.
    """

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands."""

    file: str
    line: int
    column: int


@dataclass(frozen=True, kw_only=True)
class Document:
    """One YAML document."""

    file: str
    value: Any
    places: Mapping[str, Place]
    """By path: `spec.model.uri`; the root is the empty string."""
    repeated: tuple[tuple[str, Place], ...] = ()
    """Keys that stand twice in one mapping."""
    is_operations: bool = False
    """It is a patch of operations (RFC 6902): it has places, and no values to compare."""
    others: tuple["Document", ...] = field(default=(), repr=False)
    """Where its parts come from, the latest first, if it was built; see `kustomizing`."""

    def place(self, path: str) -> Place:
        """Tell where a field stands; of one that does not, the nearest thing around it that does."""
        for document in (*self.others, self):
            if path in document.places and _same(document, self, path):
                return document.places[path]
        for candidate in _upwards(path):
            for document in (*self.others, self):
                if candidate in document.places:
                    return document.places[candidate]
        return Place(self.file, 1, 1)

    def get(self, path: str) -> Any:
        """Give the value of a field; None where there is none."""
        return value_at(self.value, path)


def _same(part: Document, whole: Document, path: str) -> bool:
    """Whether a value of a part is the one that the whole has: another part may have replaced it."""
    if part is whole or part.is_operations:
        return True
    value, wanted = part.get(path), whole.get(path)
    return isinstance(value, (dict, list)) or value == wanted


def value_at(value: Any, path: str) -> Any:
    """Give the value of a field; None where there is none."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        if name and isinstance(value, dict):
            value = value.get(name)
        elif index and isinstance(value, list) and int(index) < len(value):
            value = value[int(index)]
        else:
            return None
    return value


def _upwards(path: str) -> Iterator[str]:
    while path:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
        yield path


class _Loader(yaml.SafeLoader):
    """Knows no timestamps and no numbers to the base 60."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if not tag.endswith((":timestamp", ":int", ":float"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?0b[01_]+|[-+]?0[0-7_]*|[-+]?[1-9][0-9_]*|[-+]?0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def read(text: str, file: str, first_line: int = 1) -> list[Document]:
    """Read all documents of a text; empty ones are left out.

    Args:
        text: YAML or JSON.
        file: its name, for places.
        first_line: where it begins, in a file that holds it.

    Raises:
        DocumentError: it is not YAML.
    """
    if len(text) > MAX_BYTES:
        msg = f"has more than {MAX_BYTES} bytes, which no manifest has"
        raise DocumentError(msg)
    found = []
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None  # noqa: S101 - check_node has said so
            value = loader.construct_document(node)
            if value is None:
                continue
            walk = _Walk(file, first_line - 1)
            walk.visit(node, "", 0)
            found.append(
                Document(file=file, value=value, places=walk.places, repeated=tuple(walk.repeated))
            )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        msg = f"is not YAML: {error.problem or error.context}"
        raise DocumentError(msg, line + first_line - 1, column) from error
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        msg = f"is not YAML: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        raise DocumentError(msg) from error
    finally:
        loader.dispose()
    return found


class _Walk:
    """Notes the place of each node."""

    def __init__(self, file: str, offset: int) -> None:
        self.file = file
        self.offset = offset
        self.places: dict[str, Place] = {}
        self.repeated: list[tuple[str, Place]] = []
        self._visits = 0

    def visit(self, node: yaml.Node, path: str, depth: int) -> None:
        """Note a node and all in it. Of a mapping, each place is that of the key."""
        self._visits += 1
        if self._visits > MAX_FIELDS or depth > 100:
            msg = f"has more than {MAX_FIELDS} fields with its aliases written out, or is nested too deeply"
            raise DocumentError(msg)
        self.places.setdefault(path, self._place(node))
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, f"{path}[{index}]", depth + 1)
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, bool] = {}
            for key, item in node.value:
                inner = f"{path}.{key.value}" if path else str(key.value)
                # A key that came by `<<` may be said again: that is what merging is for.
                own = node.start_mark.index <= key.start_mark.index < node.end_mark.index
                if own and seen.get(inner):
                    self.repeated.append((inner, self._place(key)))
                seen[inner] = own
                self.places[inner] = self._place(key)
                self.visit(item, inner, depth + 1)

    def _place(self, node: yaml.Node) -> Place:
        mark = node.start_mark
        return Place(self.file, mark.line + 1 + self.offset, mark.column + 1)
