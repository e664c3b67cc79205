"""Rules computed over whole arrays agree with rules applied to one value after the other."""

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from canarium_api.input_rules import FeatureRules, InputRules, ValidationLevel, ValidationSpec
from canarium_runtime.backends.base import DTYPES, is_floating
from canarium_runtime.errors import ServingError
from canarium_runtime.rules.checks import RuleError
from canarium_runtime.rules.expressions import NUMBER, ExpressionError, Operand, compile_expression
from canarium_runtime.rules.ruleset import Rules
from canarium_runtime.testing import model_spec, tensor
from canarium_runtime.validation import ValidatedInputs

FLOATS = ("FP16", "BF16", "FP32", "FP64")
NUMERIC = (*FLOATS, "INT8", "UINT8", "INT32", "INT64", "UINT64")
SMALL = st.sampled_from([-3, -1.5, -1, -0.1, 0, 0.1, 0.5, 1, 2, 2.5, 3, 1000])


def wrong_number(spec: ValidationSpec, rules: FeatureRules | None, value: Any, dtype: Any) -> bool:
    """The reference: one value, in plain words."""
    allow_nan, allow_infinity = spec.allow_nan, spec.allow_infinity
    if rules is not None and rules.nullable is not None:
        allow_nan = rules.nullable
    if math.isnan(value):
        return not allow_nan
    if math.isinf(value) and not allow_infinity:
        return True
    if rules is None:
        return False

    def cast(bound: float) -> Any:
        return float(dtype.type(bound)) if is_floating(dtype) else bound

    return (
        (rules.min is not None and value < cast(rules.min))
        or (rules.max is not None and value > cast(rules.max))
        or (rules.exclusive_min is not None and value <= cast(rules.exclusive_min))
        or (rules.exclusive_max is not None and value >= cast(rules.exclusive_max))
        or bool(rules.integer and math.isfinite(value) and value != int(value))
        or (rules.enum is not None and value not in {cast(float(t)) for t in rules.enum})
    )


def wrong_text(rules: FeatureRules | None, value: str) -> bool:
    """The reference for strings; the only pattern is `[ab]*`."""
    return rules is not None and (
        (rules.min_length is not None and len(value) < rules.min_length)
        or (rules.max_length is not None and len(value) > rules.max_length)
        or (rules.pattern is not None and bool(set(value) - {"a", "b"}))
        or (rules.enum is not None and value not in rules.enum)
    )


@st.composite
def number_rules(draw: st.DrawFn, name: str, datatype: str) -> FeatureRules:
    some = st.none() | SMALL
    lower, upper = draw(some), draw(some)
    if lower is not None and upper is not None and lower > upper:
        lower, upper = upper, lower
    floating = datatype in FLOATS
    texts = st.lists(st.sampled_from(["0", "1", "2", "3"]), min_size=1, max_size=3)
    default = st.none() | st.sampled_from(["0", "1", "2"])
    return FeatureRules.model_validate(
        {
            "name": name,
            draw(st.sampled_from(["min", "exclusive_min"])): lower,
            draw(st.sampled_from(["max", "exclusive_max"])): upper,
            "integer": draw(st.none() | st.booleans()),
            "enum": draw(st.none() | texts),
            "nullable": draw(st.none() | st.booleans()) if floating else None,
            "default": draw(default) if floating else None,
        }
    )


@st.composite
def text_rules(draw: st.DrawFn, name: str) -> FeatureRules:
    least, most = sorted(draw(st.tuples(st.integers(0, 4), st.integers(0, 4))))
    return FeatureRules(
        name=name,
        min_length=draw(st.sampled_from([None, least])),
        max_length=draw(st.sampled_from([None, most])),
        pattern=draw(st.sampled_from([None, "[ab]*"])),
        enum=draw(st.none() | st.lists(st.text("abc", max_size=3), min_size=1, max_size=3)),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[ValidationSpec, str, Any]:
    """A spec, a datatype and an array of rows of four values."""
    datatype = draw(st.sampled_from([*NUMERIC, "BYTES"]))
    dtype = DTYPES[datatype]
    rules = (
        (lambda n: text_rules(n)) if datatype == "BYTES" else (lambda n: number_rules(n, datatype))
    )
    indexes = draw(st.lists(st.integers(0, 3), unique=True, max_size=4))
    features = [draw(rules(f"f{i}")).model_copy(update={"index": i}) for i in indexes]
    each = draw(st.none() | rules("each"))
    shape = draw(st.sampled_from([(1, 4), (3, 4), (2, 2, 4)]))
    if datatype == "BYTES":
        element: Any = st.text("abcä\ud800", max_size=5)
    elif datatype in FLOATS:
        element = SMALL | st.sampled_from([math.nan, math.inf, -math.inf])
    else:
        info = np.iinfo(dtype)
        element = st.integers(max(-4, info.min), 4) | st.sampled_from([info.min, info.max])
    count = math.prod(shape)
    flat = draw(st.lists(element, min_size=count, max_size=count))
    spec = ValidationSpec(
        level=draw(st.sampled_from(ValidationLevel)),
        allow_nan=draw(st.booleans()),
        allow_infinity=draw(st.booleans()),
        inputs=[InputRules(name="x", features=features, each=each)],
    )
    return spec, datatype, np.array(flat, dtype).reshape(shape)


def any_wrong(spec: ValidationSpec, datatype: str, array: Any) -> bool:
    own = {f.index: f for f in spec.inputs[0].features}
    each = spec.inputs[0].each
    for place in np.ndindex(array.shape):
        rules, value = own.get(place[-1], each), array[place]
        if datatype == "BYTES":
            if wrong_text(rules, value):
                return True
        elif wrong_number(spec, rules, value.item(), DTYPES[datatype]):
            return True
    return False


def same(one: Any, other: Any) -> bool:
    """Bit for bit, since NaN of bfloat16 is no NaN to numpy's own comparison."""
    if one.dtype == object:
        return bool(one.tolist() == other.tolist())
    return bool(one.tobytes() == other.tobytes())


@settings(max_examples=200, deadline=None)
@given(cases())
def test_whole_arrays_are_judged_as_their_values_are(case: tuple[ValidationSpec, str, Any]) -> None:
    """Strict refuses exactly what the reference finds wrong; warning changes nothing and says something exactly then;
    what permissive lets through is right, and differs from what came only where that was wrong.
    """
    spec, datatype, array = case
    shape = (None, *array.shape[1:])
    try:
        rules = Rules.compile(spec, model_spec([tensor("x", datatype, *shape)]))
    except RuleError:
        return  # bounds that no value of the datatype meets
    wrong = any_wrong(spec, datatype, array)
    before = array.copy()
    array.flags.writeable = False
    try:
        result, notes = rules.apply(ValidatedInputs({"x": array}, len(array), None, ("y",)))
    except ServingError:
        assert wrong
        assert spec.level is not ValidationLevel.WARNING
        return
    assert same(array, before)
    after = result.arrays["x"]
    if spec.level is ValidationLevel.PERMISSIVE:
        assert not any_wrong(spec, datatype, after)
        assert after.dtype == array.dtype
        assert after.shape == array.shape
        assert bool(notes) == wrong
        if not wrong:
            assert same(after, before)
    else:
        assert bool(notes) == wrong
        assert not (wrong and spec.level is ValidationLevel.STRICT)
        assert same(after, before)


NAMES = {"a": 0, "b": 1}
LEAVES = st.sampled_from(["a", "b", "1", "2.5", "-1"])
NUMBERS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner)
        | st.builds("abs({})".format, inner)
        | st.builds("max({}, {})".format, inner, inner)
    ),
    max_leaves=6,
)
COMPARED = st.builds(
    "{} {} {}".format, NUMBERS, st.sampled_from(["<", "<=", "==", "!=", ">"]), NUMBERS
)
CONDITIONS = st.recursive(
    COMPARED,
    lambda inner: (
        st.builds("({}) {} ({})".format, inner, st.sampled_from(["and", "or"]), inner)
        | st.builds("not ({})".format, inner)
    ),
    max_leaves=4,
)
ROWS = st.lists(st.tuples(SMALL, SMALL | st.just(math.nan)), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(CONDITIONS, ROWS)
def test_expressions_mean_what_python_means_for_each_row(
    text: str, rows: list[tuple[float, float]]
) -> None:
    """The same expression, evaluated by Python for one row after the other, gives the same."""
    text = f"({text}) or a != a"
    arrays = {"x": np.array(rows, np.float64)}
    operands = {
        name: Operand(NUMBER, lambda arrays, i=index: arrays["x"][..., i])
        for name, index in NAMES.items()
    }
    got = compile_expression(text, operands)(arrays).tolist()
    functions = {"abs": abs, "max": lambda p, q: math.nan if math.isnan(p + q) else max(p, q)}
    code = compile(text, "expression", "eval")
    assert got == [eval(code, {"a": a, "b": b, **functions}) for a, b in rows]  # noqa: S307 - made above


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    """No text makes the compiler fail in another way than by its own error."""
    try:
        compile_expression(text, {})
    except ExpressionError:
        return
    raise AssertionError(text)
