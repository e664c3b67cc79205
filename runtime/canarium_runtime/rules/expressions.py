"""Conditions over several features, such as `age >= 18 || income == 0`, computed for all rows at once.

The language is small on purpose: it is parsed by Python's own parser, but only the nodes below are taken, so there are
no attributes, no subscripts, no names but features', no calls but a few functions, no loops, no powers. An expression
has at most MAX_EXPRESSION characters and MAX_NODES nodes, each of which costs one pass over the rows. Types (number,
boolean, text) are checked when it is compiled, so a request cannot make it fail.

`&&`, `||`, `!`, `true` and `false` are those of CEL; Python's words mean the same. Floats are computed in the input's
datatype, integers as 64-bit floats, so that nothing wraps. A comparison with NaN does not hold, except for `!=`.
"""

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from canarium_api.input_rules import MAX_EXPRESSION
from canarium_runtime.backends.base import Array

MAX_NODES: Final = 100
_MAX_CHOICES: Final = 256

NUMBER: Final = "a number"
BOOLEAN: Final = "a boolean"
TEXT: Final = "a string"

Arrays = Mapping[str, Array]
Compute = Callable[[Arrays], Any]


class ExpressionError(ValueError):
    """An expression that cannot be used; the message says what and why."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A name that expressions can use."""

    type: str
    """NUMBER, BOOLEAN or TEXT."""
    get: Compute
    """From the inputs by name to one value for each row."""


@dataclass(frozen=True, slots=True)
class _Part:
    type: str
    compute: Compute


_CEL: Final = re.compile(r"""("[^"]*"|'[^']*')|&&|\|\||!(?!=)""")
_CEL_WORDS: Final = {"&&": " and ", "||": " or ", "!": "~"}
_COMPARE: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}
_ARITHMETIC: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.true_divide,
    ast.Mod: np.mod,
}
_CALLS: Final[dict[str, tuple[str, str, int, Callable[..., Any]]]] = {
    "abs": (NUMBER, NUMBER, 1, np.abs),
    "floor": (NUMBER, NUMBER, 1, np.floor),
    "min": (NUMBER, NUMBER, 2, np.minimum),
    "max": (NUMBER, NUMBER, 2, np.maximum),
    "isnan": (NUMBER, BOOLEAN, 1, np.isnan),
    "size": (TEXT, NUMBER, 1, lambda v: np.array([len(t) for t in np.ravel(v)], np.float64)),
}
"""Name: type of the arguments, type of the result, number of arguments."""


def compile_expression(text: str, operands: Mapping[str, Operand]) -> Callable[[Arrays], Array]:
    """Make the function that computes a condition.

    Args:
        text: the expression.
        operands: what its names mean.

    Returns:
        From the inputs to a boolean for each row.

    Raises:
        ExpressionError: it is too long, no expression of this language, or no condition.
    """
    if len(text) > MAX_EXPRESSION:
        raise ExpressionError(f"has {len(text)} characters, of at most {MAX_EXPRESSION}")
    python = _CEL.sub(lambda m: m[1] or _CEL_WORDS[m[0]], text)
    try:
        tree = ast.parse(python.strip(), mode="eval")
        count = sum(isinstance(node, ast.expr) for node in ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"cannot be read: {getattr(error, 'msg', error)}") from None
    if count > MAX_NODES:
        raise ExpressionError(f"has {count} parts, of at most {MAX_NODES}: split it into several")
    compiler = _Compiler(operands)
    part = compiler.part(tree.body)
    if not compiler.uses:
        raise ExpressionError("names no feature, so it is the same for every row")
    if part.type is not BOOLEAN:
        raise ExpressionError(f"is {part.type}, not a condition")
    compute = part.compute

    def condition(arrays: Arrays) -> Array:
        with np.errstate(all="ignore"):
            result = np.asarray(compute(arrays), bool)
        return result if result.ndim else result.reshape(1)

    return condition


class _Compiler:
    """Turns nodes into functions; what has no method here is refused."""

    def __init__(self, operands: Mapping[str, Operand]) -> None:
        self._operands = operands
        self.uses: set[str] = set()
        """Features that were named."""

    def part(self, node: ast.expr, wanted: str | None = None) -> _Part:
        """Compile one node; `wanted` is the type that it must have."""
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise ExpressionError(f"may not use {ast.unparse(node)[:60]!r}")
        part: _Part = method(node)
        if wanted is not None and part.type is not wanted:
            raise ExpressionError(f"{ast.unparse(node)[:60]!r} is {part.type}, not {wanted}")
        return part

    def _name(self, node: ast.Name) -> _Part:
        if node.id in ("true", "false"):
            value = node.id == "true"
            return _Part(BOOLEAN, lambda _: value)
        return self._feature(node.id)

    def _feature(self, name: str) -> _Part:
        operand = self._operands.get(name)
        if operand is None:
            known = ", ".join(sorted(self._operands)[:10]) or "none"
            raise ExpressionError(
                f"{name[:60]!r} is no feature with a name of its own; there are: {known}"
            )
        self.uses.add(name)
        return _Part(operand.type, operand.get)

    def _constant(self, node: ast.Constant) -> _Part:
        value = node.value
        if type(value) is bool:
            return _Part(BOOLEAN, lambda _: value)
        if type(value) is str:
            return _Part(TEXT, lambda _: value)
        if isinstance(value, (int, float)):
            real = _float(value)
            return _Part(NUMBER, lambda _: real)
        raise ExpressionError(f"may not use {ast.unparse(node)[:60]!r}")

    def _unaryop(self, node: ast.UnaryOp) -> _Part:
        if isinstance(node.op, (ast.Not, ast.Invert)):
            inner = self.part(node.operand, BOOLEAN).compute
            return _Part(BOOLEAN, lambda a: np.logical_not(inner(a)))
        inner = self.part(node.operand, NUMBER).compute
        if isinstance(node.op, ast.USub):
            return _Part(NUMBER, lambda a: np.negative(inner(a)))
        return _Part(NUMBER, inner)

    def _binop(self, node: ast.BinOp) -> _Part:
        operate = _ARITHMETIC.get(type(node.op))
        if operate is None:
            raise ExpressionError(f"may not use {ast.unparse(node)[:60]!r}: only + - * / %")
        left, right = self.part(node.left, NUMBER).compute, self.part(node.right, NUMBER).compute
        return _Part(NUMBER, lambda a: operate(left(a), right(a)))

    def _boolop(self, node: ast.BoolOp) -> _Part:
        join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        first, *rest = [self.part(value, BOOLEAN).compute for value in node.values]

        def compute(arrays: Arrays) -> Any:
            result = first(arrays)
            for other in rest:
                result = join(result, other(arrays))
            return result

        return _Part(BOOLEAN, compute)

    def _compare(self, node: ast.Compare) -> _Part:
        parts: list[Compute] = []
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            parts.append(self._comparison(left, operator, right))
            left = right
        if len(parts) == 1:
            return _Part(BOOLEAN, parts[0])
        return _Part(
            BOOLEAN, lambda a: np.logical_and.reduce(np.broadcast_arrays(*[p(a) for p in parts]))
        )

    def _comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Compute:
        one = self.part(left)
        if isinstance(operator, (ast.In, ast.NotIn)):
            return self._membership(one, right, negated=isinstance(operator, ast.NotIn))
        compare = _COMPARE.get(type(operator))
        if compare is None:
            raise ExpressionError("may compare by < <= > >= == != and in only")
        other = self.part(right, one.type)
        if one.type is not NUMBER and not isinstance(operator, (ast.Eq, ast.NotEq)):
            raise ExpressionError(f"{ast.unparse(left)[:60]!r} is {one.type}, which has no order")
        first, second = one.compute, other.compute
        return lambda a: compare(first(a), second(a))

    def _membership(self, one: _Part, right: ast.expr, *, negated: bool) -> Compute:
        if not isinstance(right, (ast.List, ast.Tuple)) or not 0 < len(right.elts) <= _MAX_CHOICES:
            raise ExpressionError("`in` needs a list of values at its right")
        choices = [self.part(element, one.type).compute for element in right.elts]
        value = one.compute

        def compute(arrays: Arrays) -> Any:
            values = value(arrays)
            found = values == choices[0](arrays)
            for choice in choices[1:]:
                found = np.logical_or(found, values == choice(arrays))
            return np.logical_not(found) if negated else found

        return compute

    def _call(self, node: ast.Call) -> _Part:
        if not isinstance(node.func, ast.Name) or node.keywords:
            raise ExpressionError(f"may not call {ast.unparse(node.func)[:60]!r}")
        name, values = node.func.id, node.args
        if name == "feature":
            if (
                len(values) == 1
                and isinstance(values[0], ast.Constant)
                and type(values[0].value) is str
            ):
                return self._feature(values[0].value)
            raise ExpressionError('feature() takes one name in quotes: feature("sepal length")')
        known = _CALLS.get(name)
        if known is None:
            raise ExpressionError(
                f"may not call {name[:60]!r}: only {', '.join(sorted(_CALLS))} and feature"
            )
        takes, gives, count, function = known
        if len(values) != count:
            raise ExpressionError(f"{name} takes {count} values, not {len(values)}")
        parts = [self.part(value, takes).compute for value in values]
        if count == 1:
            only = parts[0]
            return _Part(gives, lambda a: function(only(a)))
        return _Part(gives, lambda a: function(*[p(a) for p in parts]))


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ExpressionError("has a number that is too large") from None
