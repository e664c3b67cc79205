"""JSON values of another type than the model's, before they become arrays: `null` and, where the level is permissive,
what means the same beyond doubt ("1.5" for a number, 3.0 for an integer, 1 for true).

`validation.to_array` asks here only when it found such a value, so a request without one pays nothing.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from canarium_api.input_rules import ValidationLevel
from canarium_api.metric_names import RuleKind
from canarium_runtime.backends.base import FLOATING, TensorSpec
from canarium_runtime.notes import MAX_NOTES, Note
from canarium_runtime.rules.checks import Column, Layout
from canarium_runtime.validation import describe

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_MAX_INT_TEXT: Final = 40
_TRUTH: Final[dict[object, bool]] = {0: False, 1: True, "false": False, "true": True}

_KEEP: Final = object()
"""What a converter gives for a value that it cannot convert."""


class Reader:
    """Converts values of one request; see the module.

    Args:
        layouts: of all inputs that have rules, by name.
        level: whether anything but `null` is converted.
        nullable: inputs in which a value may be missing.
        count: told how many values were converted.
    """

    def __init__(
        self,
        layouts: Mapping[str, Layout],
        level: ValidationLevel,
        nullable: frozenset[str],
        count: Callable[[int], None],
    ) -> None:
        self._layouts = layouts
        self._defaults = {name: _defaults(layout) for name, layout in layouts.items()}
        self._permissive = level is ValidationLevel.PERMISSIVE
        self._nullable = nullable
        self._count = count

    def read(
        self, spec: TensorSpec, flat: list[Any], shape: tuple[int, ...], notes: list[Note]
    ) -> list[Any]:
        """Convert what can be converted.

        Args:
            spec: of the input.
            flat: its values in row-major order.
            shape: its shape.
            notes: gets one note for each converted value.

        Returns:
            A list as long; from the first value on that cannot be converted, they stand in it as they were.
        """
        kind = _kind(spec.datatype)
        wanted = (int, float) if kind == "float" else (_TYPES[kind],)
        layout = self._layouts[spec.name]
        result = list(flat)
        converted = unsaid = 0
        for at, value in enumerate(flat):
            if type(value) in wanted:
                continue
            new: Any = _KEEP
            if value is None:
                new = self._missing(layout, kind, at, shape)
            elif self._permissive:
                new = _CONVERT[kind](value)
            if new is _KEEP:
                return result  # the request will be refused for this one
            result[at] = new
            if value is None and kind == "float":
                continue  # NaN, of which the rules have their own to say
            converted += 1
            if len(notes) < MAX_NOTES:
                notes.append(_note(layout, at, shape, value, new))
            else:
                unsaid += 1
        if unsaid:
            last = notes[-1]
            notes[-1] = Note(last.kind, last.field, f"{last.message}; and {unsaid} more")
        self._count(converted)
        return result

    def _missing(self, layout: Layout, kind: str, at: int, shape: tuple[int, ...]) -> Any:
        """A float becomes NaN, which the rules then judge; others have no such value, so only a default helps."""
        if kind == "float":
            wanted = self._permissive or layout.spec.name in self._nullable
            return math.nan if wanted else _KEEP
        if not self._permissive:
            return _KEEP
        own, each = self._defaults[layout.spec.name]
        return own.get(at % shape[-1] if layout.has_columns and shape else 0, each)


def _defaults(layout: Layout) -> tuple[dict[int, Any], Any]:
    """Defaults by column, and that of all others, converted."""
    kind = _kind(layout.spec.datatype)

    def convert(column: Column | None) -> Any:
        text = None if column is None else column.rules.default
        return _KEEP if text is None else _CONVERT[kind](text)

    return {c.index: convert(c) for c in layout.columns}, convert(layout.each)


def _note(layout: Layout, at: int, shape: tuple[int, ...], old: Any, new: Any) -> Note:
    where = ""
    for size in reversed(shape):
        at, step = divmod(at, size)
        where = f"[{step}]{where}"
    field = f"inputs.{layout.spec.name}{where}"
    return Note(RuleKind.TYPE, field, f"{field}: {describe(old)} was taken as {describe(new)}")


def _kind(datatype: str) -> str:
    if datatype == "BYTES":
        return "text"
    if datatype == "BOOL":
        return "bool"
    return "float" if datatype in FLOATING else "int"


def _to_float(value: Any) -> Any:
    if type(value) is bool:
        return float(value)
    if type(value) is str and _NUMBER.fullmatch(value.strip()):
        number = float(value)
        return number if math.isfinite(number) else _KEEP
    return _KEEP


def _to_int(value: Any) -> Any:
    if type(value) is bool:
        return int(value)
    if type(value) is float:
        return int(value) if value.is_integer() else _KEEP
    if type(value) is str and _NUMBER.fullmatch(value.strip()):
        text = value.strip()
        if text.lstrip("+-").isdigit() and len(text) <= _MAX_INT_TEXT:
            return int(text)
        number = float(text)
        return int(number) if math.isfinite(number) and number.is_integer() else _KEEP
    return _KEEP


def _to_text(value: Any) -> Any:
    if type(value) is bool:
        return str(value).lower()
    return value if type(value) is str else str(value) if type(value) in (int, float) else _KEEP


def _to_bool(value: Any) -> Any:
    if type(value) in (int, float, str):
        return _TRUTH.get(value, _KEEP)
    return _KEEP


_TYPES: Final[dict[str, type]] = {"text": str, "bool": bool, "int": int}
_CONVERT: Final[dict[str, Callable[[Any], Any]]] = {
    "float": _to_float,
    "int": _to_int,
    "text": _to_text,
    "bool": _to_bool,
}
