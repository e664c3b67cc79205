"""What the API server does with an object of a CRD before it stores it: prune, default and check, by the structural
schema.

Only what our own schema uses; CEL rules are left to the real API server (tests/contract). It is here so that the
fake cluster refuses what the real one would: a status with a field of the wrong type would otherwise be found out in
production.
"""

import copy
import re
from collections.abc import Iterator
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


def violations(value: Any, schema: Schema, path: str) -> Iterator[str]:
    """Name each way in which a value breaks the schema."""
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            yield f"{path}: must be an integer or a string"
    elif "type" in schema and not _has_type(value, schema["type"]):
        yield f"{path}: must be of type {schema['type']}, is {value!r}"
        return
    yield from _value_violations(value, schema, path)
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{path}.{name}: required"
        for name, item in value.items():
            field = (
                schema.get("properties", {}).get(name) or schema.get("additionalProperties") or {}
            )
            yield from violations(item, field, f"{path}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from violations(item, schema.get("items", {}), f"{path}[{index}]")


def _has_type(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, float) and value not in (float("inf"), float("-inf")) and value == value:
        return name == "number" or (name == "integer" and value.is_integer())
    return isinstance(value, _PYTHON_TYPES[name]) and not isinstance(value, float)


def _value_violations(value: Any, schema: Schema, path: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: must be one of {schema['enum']}, is {value!r}"
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{path}: {value!r} does not match {schema['pattern']}"
        if schema.get("format") == "date-time" and not _is_time(value):
            yield f"{path}: {value!r} is not a time"
    elif isinstance(value, (int, float)) and not (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and not (schema.get("exclusiveMinimum") and value == schema["minimum"])
        and not (schema.get("exclusiveMaximum") and value == schema["maximum"])
    ):
        yield f"{path}: {value} is out of bounds"
    for keyword, sized in (("Length", str), ("Items", list), ("Properties", dict)):
        if isinstance(value, sized):
            size = len(value)
            if size < schema.get(f"min{keyword}", 0) or size > schema.get(f"max{keyword}", size):
                yield f"{path}: has the wrong size, {size}"


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
