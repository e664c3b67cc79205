"""The CRD's rules across fields, evaluated as the API server does, by a library for CEL.

Of Kubernetes' own functions the rules use `sum` alone, which is given to the library. A rule is looked at only where
the value it stands on has no other mistake.
"""

from collections.abc import Iterator
from typing import Any, Final

import cel

from canarium_api.structural import Schema, Violation

_RULES: Final = "x-kubernetes-validations"


def violations(value: Any, schema: Schema, broken: frozenset[str]) -> Iterator[Violation]:
    """Name each rule that a value breaks.

    Args:
        value: an object with its defaults filled in.
        schema: of the object.
        broken: paths at which it breaks the schema itself.
    """
    yield from _walk(_typed(value, schema), schema, "", broken)


def _walk(value: Any, schema: Schema, path: str, broken: frozenset[str]) -> Iterator[Violation]:
    # The rules of the root are about the name alone, as far as the API server lets them see the metadata.
    own = path or "metadata"
    if not any(_within(place, own) for place in broken):
        for rule in schema.get(_RULES, ()):
            message = _judge(rule, value)
            if message is not None:
                yield Violation(field=path, message=message)
    if isinstance(value, dict):
        for name, item in value.items():
            field = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(field, dict):
                yield from _walk(item, field, f"{path}.{name}" if path else name, broken)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, schema.get("items", {}), f"{path}[{index}]", broken)


def _within(place: str, path: str) -> bool:
    return place == path or place.startswith((f"{path}.", f"{path}["))


def _typed(value: Any, schema: Schema) -> Any:
    """Give numbers the type that the schema says: CEL knows integers from floats, JSON does not."""
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties")
        other = other if isinstance(other, dict) else {}
        return {name: _typed(item, known.get(name, other)) for name, item in value.items()}
    if isinstance(value, list):
        return [_typed(item, schema.get("items", {})) for item in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    kind = schema.get("type")
    return float(value) if kind == "number" else int(value) if kind == "integer" else value


def _judge(rule: dict[str, str], value: Any) -> str | None:
    """Give the message of a rule that does not hold, or cannot be evaluated; None: it holds."""
    try:
        holds = _evaluate(rule["rule"], value)
    except Exception as error:  # noqa: BLE001 - the library raises what Python would: KeyError, TypeError, RuntimeError
        message = rule.get("message", rule["rule"])
        return f"{message} (the rule cannot be evaluated here: {type(error).__name__} {error})"
    if holds is True:
        return None
    if "messageExpression" in rule:
        try:
            return str(_evaluate(rule["messageExpression"], value))
        except Exception:  # noqa: BLE001 - as above; the plain message stands for it, as in the API server
            return rule["message"]
    return rule.get("message", f"does not hold: {rule['rule']}")


def _evaluate(expression: str, value: Any) -> Any:
    context = cel.Context()
    context.add_variable("self", value)
    context.add_function("sum", _sum)
    return cel.evaluate(expression, context)


def _sum(values: list[Any]) -> Any:
    return sum(values)
