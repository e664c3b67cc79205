"""From a spec and a model to layouts, checks and conditions; every misfit is told when the model is loaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from canarium_api.input_rules import FeatureRules, InputRules, ValidationSpec, columns
from canarium_runtime.backends.base import DTYPES, FLOATING, Array, ModelSpec, TensorSpec
from canarium_runtime.rules.checks import Check, Column, EnumCheck, Layout, RuleError
from canarium_runtime.rules.expressions import (
    BOOLEAN,
    NUMBER,
    TEXT,
    Arrays,
    ExpressionError,
    Operand,
    compile_expression,
)
from canarium_runtime.rules.numbers import BoundsCheck, WholeCheck, number
from canarium_runtime.rules.text import PatternsCheck, TextsCheck

_NUMERIC = ("min", "max", "exclusive_min", "exclusive_max", "integer")
_TEXTUAL = ("pattern", "min_length", "max_length")
_MATRIX = 2


@dataclass(frozen=True, slots=True)
class Condition:
    """An expression that every row must meet."""

    compute: Callable[[Arrays], Array]
    """From inputs to a boolean for each row."""
    expected: str
    """What a row should be, for messages."""


def layouts_of(spec: ValidationSpec, model: ModelSpec) -> dict[str, Layout]:
    """Find the columns that rules are for, in all inputs of the model.

    Raises:
        RuleError: an input or a column does not exist, or has values of another kind.
    """
    known = {tensor.name for tensor in model.inputs}
    for index, rules in enumerate(spec.inputs):
        if rules.name not in known:
            text = f"validation.inputs[{index}].name: the model has no input {rules.name!r}: use one of {sorted(known)}"
            raise RuleError(text)
    by_name = {rules.name: (index, rules) for index, rules in enumerate(spec.inputs)}
    layouts = {}
    for tensor in model.inputs:
        index, rules = by_name.get(tensor.name, (0, InputRules(name=tensor.name)))
        field = f"validation.inputs[{index}]"
        layouts[tensor.name] = _layout(spec, rules, tensor, model.batchable, field)
    return layouts


def _layout(
    spec: ValidationSpec, rules: InputRules, tensor: TensorSpec, batchable: bool, field: str
) -> Layout:
    has_columns = len(tensor.shape) > (1 if batchable else 0)
    last = tensor.shape[-1] if has_columns else 1
    width = last if isinstance(last, int) else None
    text = tensor.datatype == "BYTES"
    if not text and (rules.allow_empty is not None or rules.max_length or rules.text_checks):
        raise RuleError(
            f"{field}: allowEmpty, maxLength and textChecks are for strings, and the input holds {tensor.datatype}: "
            "remove them"
        )
    nan = spec.allow_nan if rules.allow_nan is None else rules.allow_nan
    infinity = spec.allow_infinity if rules.allow_infinity is None else rules.allow_infinity

    def column(place: int, feature: FeatureRules, path: str) -> Column:
        nullable = nan if feature.nullable is None else feature.nullable
        found = Column(place, feature, nullable, path)
        _check_kind(found, tensor.datatype)
        return found

    found = []
    for index, (place, feature) in enumerate(
        zip(columns(rules.features), rules.features, strict=True)
    ):
        path = f"{field}.features[{index}]"
        if width is not None and place >= width:
            raise RuleError(
                f"{path}.index: input {tensor.name!r} has {width} columns, so the last is {width - 1}, not {place}: "
                "correct the index, or remove the feature"
            )
        found.append(column(place, feature, path))
    each = None if rules.each is None else column(-1, rules.each, f"{field}.each")
    return Layout(tensor, has_columns, width, tuple(found), each, nan, infinity)


def _check_kind(column: Column, datatype: str) -> None:
    rules = column.rules
    numeric = datatype not in ("BYTES", "BOOL")
    wrong = [n for n in _NUMERIC if getattr(rules, n) is not None and not numeric]
    wrong += [n for n in _TEXTUAL if getattr(rules, n) is not None and datatype != "BYTES"]
    if datatype == "BOOL" and rules.enum is not None:
        wrong.append("enum")
    if rules.nullable and datatype not in FLOATING:
        wrong.append("nullable")
    if wrong:
        name = wrong[0].split("_")
        camel = name[0] + "".join(part.title() for part in name[1:])
        raise RuleError(f"{column.field}.{camel}: is not for values of {datatype}: remove it")
    if numeric and rules.default is not None:
        number(column, rules.default, DTYPES[datatype], "default")


def checks_of(spec: ValidationSpec, layout: Layout) -> list[Check]:
    """Make the checks of one input, the cheapest first.

    Raises:
        RuleError: a rule cannot be met, or a pattern not be used.
    """
    datatype = layout.spec.datatype
    checks: list[Check] = []
    if datatype == "BYTES":
        rules = next((r for r in spec.inputs if r.name == layout.spec.name), None)
        if rules is not None:
            texts = TextsCheck(rules)
            if not texts.idle:
                checks.append(texts)
        textual = [c for c in layout.all_rules() if _any(c, _TEXTUAL)]
        if textual:
            checks.append(PatternsCheck(layout.columns, layout.each))
    elif datatype != "BOOL":
        bounds = BoundsCheck(layout)
        if not bounds.idle:
            checks.append(bounds)
        if datatype in FLOATING and any(c.rules.integer for c in layout.all_rules()):
            whole = {c.index: bool(c.rules.integer) for c in layout.columns}
            others = layout.each is not None and bool(layout.each.rules.integer)
            checks.append(WholeCheck(whole, others=others))
    allowed = _allowed(layout)
    if any(values is not None for values in allowed.values()):
        checks.append(EnumCheck(allowed, numbers=datatype != "BYTES"))
    return checks


def _any(column: Column, names: Sequence[str]) -> bool:
    return any(getattr(column.rules, name) is not None for name in names)


def _allowed(layout: Layout) -> dict[int | None, frozenset[object] | None]:
    allowed: dict[int | None, frozenset[object] | None] = {
        c.index: _values(c, layout.spec.datatype) for c in layout.columns
    }
    if layout.each is not None:
        allowed[None] = _values(layout.each, layout.spec.datatype)
    return allowed


def _values(column: Column, datatype: str) -> frozenset[object] | None:
    texts = column.rules.enum
    if texts is None:
        return None
    if datatype == "BYTES":
        return frozenset(texts)
    return frozenset(number(column, text, DTYPES[datatype], "enum").item() for text in texts)


def conditions_of(spec: ValidationSpec, layouts: Mapping[str, Layout]) -> list[Condition]:
    """Compile the expressions.

    Raises:
        RuleError: one cannot be used.
    """
    if not spec.expressions:
        return []
    operands = _operands(layouts)
    conditions = []
    for index, rule in enumerate(spec.expressions):
        try:
            compute = compile_expression(rule.expression, operands)
        except ExpressionError as error:
            text = f"validation.expressions[{index}].expression: {error}"
            raise RuleError(text) from error
        said = rule.message or rule.expression
        conditions.append(Condition(compute, f"{said} (rule {rule.name!r})"))
    return conditions


def _operands(layouts: Mapping[str, Layout]) -> dict[str, Operand]:
    """Features, and inputs of one value for each row; names that mean two things are left out."""
    found: dict[str, Operand] = {}
    doubles: set[str] = set()
    for layout in layouts.values():
        if layout.rank > _MATRIX:
            continue
        named = {c.rules.name: c.index for c in layout.columns}
        if not layout.has_columns:
            named.setdefault(layout.spec.name, 0)
        for name, index in named.items():
            if name in found:
                doubles.add(name)
            found[name] = _operand(layout, index)
    return {name: operand for name, operand in found.items() if name not in doubles}


def _operand(layout: Layout, index: int) -> Operand:
    name, datatype, has_columns = layout.spec.name, layout.spec.datatype, layout.has_columns
    whole = DTYPES[datatype].kind in "iu"

    def get(arrays: Arrays) -> Any:
        array = arrays[name][..., index] if has_columns else arrays[name]
        # 64-bit floats hold integers up to 2^53 exactly, and nothing wraps.
        return array.astype(np.float64) if whole else array

    kind = TEXT if datatype == "BYTES" else BOOLEAN if datatype == "BOOL" else NUMBER
    return Operand(kind, get)
