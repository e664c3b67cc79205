"""What the API server does with an object of a CRD before it stores it: prune, default and check, by the structural
schema.

Only what our own schema uses (see `crdgen`); CEL rules are not evaluated here. The fake cluster of the operator's tests
refuses by it what the real one would, and `canarium check` tells it without any cluster.
"""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

Schema = dict[str, Any]

_PYTHON_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}
_SIZES: Final = (
    ("Length", str, "characters"),
    ("Items", list, "items"),
    ("Properties", dict, "entries"),
)
_QUOTES: Final = ": put it in quotes"


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One way in which a value breaks a schema."""

    field: str
    """Path: `spec.rollout.canary.steps[0].weight`."""
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def prune(value: Any, schema: Schema) -> Any:
    """Drop the fields that the schema does not know."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return value
    if isinstance(value, list):
        return [prune(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    if "additionalProperties" in schema:
        return {name: prune(item, schema["additionalProperties"]) for name, item in value.items()}
    known = schema.get("properties", {})
    return {name: prune(item, known[name]) for name, item in value.items() if name in known}


def unknown_fields(value: Any, schema: Schema, path: str) -> Iterator[tuple[str, str, list[str]]]:
    """Name the fields that `prune` would drop: path, name, and the names that are known in its place."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown_fields(item, schema.get("items", {}), f"{path}[{index}]")
    if not isinstance(value, dict):
        return
    known = schema.get("properties", {})
    for name, item in value.items():
        if "additionalProperties" in schema:
            yield from unknown_fields(item, schema["additionalProperties"], f"{path}.{name}")
        elif name in known:
            yield from unknown_fields(item, known[name], f"{path}.{name}")
        elif schema.get("type") == "object" and known:
            yield f"{path}.{name}", str(name), list(known)


def fill_in(value: Any, schema: Schema) -> Any:
    """Set defaults, from the top down; null counts as absent where there is a default."""
    if isinstance(value, list):
        return [fill_in(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for name, field in schema.get("properties", {}).items():
        if filled.get(name) is None and "default" in field:
            filled[name] = copy.deepcopy(field["default"])
        if name in filled:
            filled[name] = fill_in(filled[name], field)
    return filled


def violations(value: Any, schema: Schema, path: str) -> Iterator[Violation]:
    """Name each way in which a value breaks the schema."""
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            yield Violation(field=path, message="must be an integer or a string")
    elif "type" in schema and not _has_type(value, schema["type"]):
        hint = _QUOTES if schema["type"] == "string" and isinstance(value, (int, float)) else ""
        message = f"must be of type {schema['type']}, is {_said(value)}{hint}"
        yield Violation(field=path, message=message)
        return
    for message in _value_violations(value, schema):
        yield Violation(field=path, message=message)
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                yield Violation(field=f"{path}.{name}", message="is required")
        for name, item in value.items():
            field = (
                schema.get("properties", {}).get(name) or schema.get("additionalProperties") or {}
            )
            yield from violations(item, field, f"{path}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from violations(item, schema.get("items", {}), f"{path}[{index}]")
        yield from _repeated(value, schema, path)


def _said(value: Any) -> str:
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _has_type(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, float) and value not in (float("inf"), float("-inf")) and value == value:
        return name == "number" or (name == "integer" and value.is_integer())
    return isinstance(value, _PYTHON_TYPES[name]) and not isinstance(value, float)


def _value_violations(value: Any, schema: Schema) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"must be one of {', '.join(map(str, schema['enum']))}, is {_said(value)}"
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{_said(value)} does not match {schema['pattern']}"
        if schema.get("format") == "date-time" and not _is_time(value):
            yield f"{value!r} is not a time: write one such as 2026-01-31T12:00:00Z"
    elif isinstance(value, (int, float)):
        yield from _bounds(value, schema)
    for keyword, sized, what in _SIZES:
        if isinstance(value, sized):
            size = len(value)
            least, most = schema.get(f"min{keyword}", 0), schema.get(f"max{keyword}", size)
            if size < least:
                yield f"has {size} {what}, at least {least} are needed"
            elif size > most:
                yield f"has {size} {what}, at most {most} are allowed"


def _bounds(value: float, schema: Schema) -> Iterator[str]:
    least, most = schema.get("minimum", value), schema.get("maximum", value)
    if value < least or (schema.get("exclusiveMinimum") and value == least):
        yield f"is {value}, must be {'above' if schema.get('exclusiveMinimum') else 'at least'} {least}"
    if value > most or (schema.get("exclusiveMaximum") and value == most):
        yield f"is {value}, must be {'below' if schema.get('exclusiveMaximum') else 'at most'} {most}"


def _repeated(value: list[Any], schema: Schema, path: str) -> Iterator[Violation]:
    """Name items of a list-map whose keys were there before."""
    keys = schema.get("x-kubernetes-list-map-keys")
    if not keys:
        return
    seen: set[str] = set()
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            continue
        key = repr([item.get(name) for name in keys])
        if key in seen:
            shown = ", ".join(f"{name} {_said(item.get(name))}" for name in keys)
            yield Violation(field=f"{path}[{index}]", message=f"{shown} is there already")
        seen.add(key)


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
