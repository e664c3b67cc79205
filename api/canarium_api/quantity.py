"""Amounts as Kubernetes writes them (`500m`, `16Mi`) and limits as people write them (`200ms`, `1%`, `0.98`).

The grammar of quantities is the one of Kubernetes' `resource.Quantity`; exponents are left out, since nobody
writes a memory limit as `1e9` and expects to be understood.
"""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from canarium_api import duration

QUANTITY_PATTERN = r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
LIMIT_PATTERN = r"^-?\d+(\.\d+)?(%|ms|s|m|h)?$"
_FACTORS = {
    "": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip


def parse_quantity(text: str | float) -> float:
    """Read a Kubernetes quantity: `500m` is 0.5, `16Mi` is 16777216.

    Raises:
        ValueError: not a number with an optional suffix of m, k, M, G, T, Ki, Mi, Gi or Ti.
    """
    if isinstance(text, (int, float)):
        return float(text)
    match = re.match(r"^(\d+(?:\.\d+)?)([a-zA-Z]*)$", text)
    if match is None or match[2] not in _FACTORS:
        msg = f"{text!r} is not a quantity: write a number with an optional suffix, such as 500m or 16Mi"
        raise ValueError(msg)
    return float(match[1]) * _FACTORS[match[2]]


def parse_limit(value: str | float) -> float:
    """Read a limit of a check: a plain number, a share (`1%` is 0.01) or a duration in seconds (`200ms` is 0.2).

    Raises:
        ValueError: none of these.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        msg = f"{value!r} is not a limit: write a number, a percentage (1%) or a duration (200ms)"
        raise ValueError(msg)
    if isinstance(value, (int, float)):
        return float(value)
    if not re.match(LIMIT_PATTERN, value):
        msg = f"{value!r} is not a limit: write a number, a percentage (1%) or a duration (200ms)"
        raise ValueError(msg)
    if value.endswith("%"):
        return float(value[:-1]) / 100
    if value[-1].isalpha():
        return duration.parse_duration(value).total_seconds()
    return float(value)


def _coerce(value: Any) -> Any:
    return parse_limit(value) if value is not None else None


def _quantity_text(value: Any) -> Any:
    text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if isinstance(text, str):
        parse_quantity(text)
    return text


Limit = Annotated[
    float,
    BeforeValidator(_coerce),
    PlainSerializer(lambda v: v, return_type=float),
    # A number or a string: a structural schema has no such union, so the type is left open, the pattern binds
    # strings, and the operator's own validation refuses the rest.
    WithJsonSchema({"x-kubernetes-preserve-unknown-fields": True, "pattern": LIMIT_PATTERN}),
]

Quantity = Annotated[
    str,
    BeforeValidator(_quantity_text),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": QUANTITY_PATTERN}),
]
