"""The language of expressions: what it computes, and that nothing else can be said in it."""

from typing import Any

import numpy as np
import pytest

from canarium_runtime.rules.expressions import (
    BOOLEAN,
    MAX_NODES,
    NUMBER,
    TEXT,
    ExpressionError,
    Operand,
    compile_expression,
)

ARRAYS: dict[str, Any] = {
    "x": np.array([[1.0, 2.0], [3.0, 2.0], [np.nan, 0.0]]),
    "flag": np.array([True, False, True]),
    "word": np.array(["red", "", "blue"], object),
}
OPERANDS = {
    "low": Operand(NUMBER, lambda a: a["x"][..., 0]),
    "high": Operand(NUMBER, lambda a: a["x"][..., 1]),
    "petal width": Operand(NUMBER, lambda a: a["x"][..., 1]),
    "flag": Operand(BOOLEAN, lambda a: a["flag"]),
    "word": Operand(TEXT, lambda a: a["word"]),
}
Y, N = True, False


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("low <= high", [Y, N, N]),
        ("low != high", [Y, Y, Y]),
        ("isnan(low) || low < high", [Y, N, Y]),
        ("isnan(low) or low < high", [Y, N, Y]),
        ("!isnan(low) && low > 0", [Y, Y, N]),
        ("!flag == false", [Y, N, Y]),
        ("flag", [Y, N, Y]),
        ("not flag and true", [N, Y, N]),
        ("0 < high <= 2", [Y, Y, N]),
        ("high in [1, 2]", [Y, Y, N]),
        ("high not in (1, 2)", [N, N, Y]),
        ("word in ['red', 'green']", [Y, N, N]),
        ("word == 'blue'", [N, N, Y]),
        ('word != "a && b || !c"', [Y, Y, Y]),
        ("size(word) >= 3", [Y, N, Y]),
        ("abs(low - 2) <= 1 && max(low, high) < 3", [Y, N, N]),
        ("high / 0 > 1", [Y, Y, N]),
        ("-low + 2 * high % 3 >= -1", [Y, N, N]),
        ('feature("petal width") == 2', [Y, Y, N]),
        ("floor(low / 2) == min(0, 1)", [Y, N, N]),
    ],
)
def test_a_condition_is_computed_for_each_row(text: str, rows: list[bool]) -> None:
    """World: three rows; event: the condition; world: where it holds."""
    assert compile_expression(text, OPERANDS)(ARRAYS).tolist() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("low.real > 0", "may not use"),
        ("low.__class__ == 1", "may not use"),
        ("low[0] > 0", "may not use"),
        ("__import__('os') == 1", "may not call"),
        ("open('x') == 1", "may not call"),
        ("exec('1') == 1", "may not call"),
        ("low.min() > 0", "may not call"),
        ("(lambda: 1)() == 1", "may not call"),
        ("max(*[low, high]) > 0", "max takes 2 values"),
        ("max(low, high, key=abs) > 0", "may not call"),
        ("[v for v in word] == 1", "may not use"),
        ("f'{low}' == 'a'", "may not use"),
        ("(low := 1) > 0", "may not use"),
        ("low ** 99 > 0", "only"),
        ("low << 99 > 0", "only"),
        ("low is high", "may compare by"),
        ("low if flag else high", "may not use"),
        ("await low", "may not use|cannot be read"),
        ("low > 1j", "may not use"),
        ("low > 1" + "0" * 400, "too large"),
        ("low", "is a number, not a condition"),
        ("low && flag", "'low' is a number, not a boolean"),
        ("word > 'a'", "has no order"),
        ("word == 1", "is a number, not a string"),
        ("word + word == 'a'", "is a string, not a number"),
        ("low in high", "needs a list"),
        ("unknown > 0", "'unknown' is no feature"),
        ("feature(word) > 0", "one name in quotes"),
        ("1 < 2", "names no feature"),
        ("import os", "cannot be read"),
        ("low > 0; low < 1", "cannot be read"),
        ("", "cannot be read"),
        ("(" * 500 + "low" + ")" * 400, "cannot be read"),
        ("-" * 900 + "low > 0", "cannot be read|parts"),
        ("low > 0 && " * 85 + "flag", "parts, of at most|characters"),
        ("low > 0 && " * 200 + "flag", "characters, of at most"),
        ("\0", "cannot be read"),
    ],
)  # fmt: skip
def test_nothing_else_can_be_said(text: str, message: str) -> None:
    """World: text that is no condition over features; event: it is compiled; world: an error that says why."""
    with pytest.raises(ExpressionError, match=message):
        compile_expression(text, OPERANDS)


def test_the_number_of_parts_is_bounded() -> None:
    """World: an expression that is short in letters and long in parts; event: it is compiled; world: refused."""
    with pytest.raises(ExpressionError, match=f"of at most {MAX_NODES}"):
        compile_expression("low" + "+1" * 60 + ">0", OPERANDS)
