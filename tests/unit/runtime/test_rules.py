"""Rules for the values of requests: what each kind refuses, lets through with a warning, or puts right."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from canarium_api.input_rules import ValidationSpec
from canarium_api.metric_names import RuleKind, ViolationOutcome
from canarium_runtime.backends.base import DTYPES, ModelSpec
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.notes import Notes
from canarium_runtime.rules.checks import RuleError
from canarium_runtime.rules.ruleset import Rules
from canarium_runtime.rules.tally import Tally, new_tally
from canarium_runtime.testing import model_spec, tensor
from canarium_runtime.validation import RawTensor, ValidatedInputs, validate

NAN, INF = float("nan"), float("inf")
LEVELS = ("strict", "warning", "permissive")


def spec_of(level: str = "strict", **fields: Any) -> ValidationSpec:
    return ValidationSpec.from_manifest({"level": level, **fields})


def one_input(level: str, rules: dict[str, Any], **fields: Any) -> ValidationSpec:
    return spec_of(level, inputs=[{"name": "x", **rules}], **fields)


def inputs_of(datatype: str, rows: Sequence[Any]) -> ValidatedInputs:
    array = np.array(rows, DTYPES[datatype])
    array.flags.writeable = False  # as those are that come out of a body
    return ValidatedInputs({"x": array}, len(rows), None, ("y",))


def apply(
    spec: ValidationSpec, datatype: str, rows: Sequence[Any], tally: Tally | None = None
) -> tuple[list[Any], Notes]:
    shape = np.array(rows, object).shape
    model = model_spec([tensor("x", datatype, None, *shape[1:])])
    result, notes = Rules.compile(spec, model, tally).apply(inputs_of(datatype, rows))
    assert result.notes == notes
    return result.arrays["x"].tolist(), notes


FEATURE = "features"
AGE = {FEATURE: [{"name": "age", "index": 1, "min": 0, "max": 120}]}
CASES = [
    pytest.param(
        "FP32", AGE, [[0, 150]], RuleKind.RANGE, "inputs.x[0][1]", [[0, 120]], id="too large"
    ),
    pytest.param(
        "FP64", AGE, [[0, 5], [0, -1]], RuleKind.RANGE, "inputs.x[1][1]", [[0, 5], [0, 0]], id="too small"
    ),
    pytest.param(
        "INT64", AGE, [[0, 121]], RuleKind.RANGE, "inputs.x[0][1]", [[0, 120]], id="an integer"
    ),
    pytest.param("UINT8", AGE, [[0, 200]], RuleKind.RANGE, "inputs.x[0][1]", [[0, 120]], id="a byte"),
    pytest.param("FP16", AGE, [[0, 200]], RuleKind.RANGE, "inputs.x[0][1]", [[0, 120]], id="a half"),
    pytest.param(
        "INT32",
        {FEATURE: [{"name": "n", "exclusiveMin": 0, "exclusiveMax": 10}]},
        [[10], [0]],
        RuleKind.RANGE,
        "inputs.x[0][0]",
        [[9], [1]],
        id="integers at exclusive bounds have a nearest neighbour",
    ),
    pytest.param(
        "FP32",
        {FEATURE: [{"name": "f", "exclusiveMin": 0}]},
        [[0]],
        RuleKind.RANGE,
        "inputs.x[0][0]",
        None,
        id="a real number at an exclusive bound has none",
    ),
    pytest.param("FP32", {}, [[1, NAN]], RuleKind.MISSING, "inputs.x[0][1]", None, id="NaN"),
    pytest.param("BF16", AGE, [[0, 200]], RuleKind.RANGE, "inputs.x[0][1]", [[0, 120]], id="bfloat16"),
    pytest.param("BF16", {}, [[1, NAN]], RuleKind.MISSING, "inputs.x[0][1]", None, id="NaN in bfloat16"),
    pytest.param("FP16", {}, [[1, NAN]], RuleKind.MISSING, "inputs.x[0][1]", None, id="NaN in a half"),
    pytest.param(
        "FP32",
        {FEATURE: [{"name": "f", "default": "7.5"}]},
        [[NAN]],
        RuleKind.MISSING,
        "inputs.x[0][0]",
        [[7.5]],
        id="NaN with a default",
    ),
    pytest.param("FP64", {}, [[1, INF]], RuleKind.INFINITY, "inputs.x[0][1]", None, id="infinity"),
    pytest.param(
        "FP32",
        {},
        [[1.0] * 9000 + [NAN]],
        RuleKind.MISSING,
        "inputs.x[0][9000]",
        None,
        id="NaN at the end of many",
    ),
    pytest.param(
        "FP64", AGE, [[1, INF]], RuleKind.INFINITY, "inputs.x[0][1]", [[1, 120]], id="infinity and a bound"
    ),
    pytest.param(
        "FP64",
        AGE,
        [[-INF, 5]],
        RuleKind.INFINITY,
        "inputs.x[0][0]",
        None,
        id="infinity in a column without a bound",
    ),
    pytest.param(
        "FP32",
        {FEATURE: [{"name": "f", "integer": True}]},
        [[2], [2.5]],
        RuleKind.INTEGER,
        "inputs.x[1][0]",
        None,
        id="not whole",
    ),
    pytest.param(
        "FP32",
        {FEATURE: [{"name": "f", "enum": ["0.1", "2"]}]},
        [[0.1], [3]],
        RuleKind.ENUM,
        "inputs.x[1][0]",
        None,
        id="a number that is not allowed",
    ),
    pytest.param(
        "BYTES",
        {FEATURE: [{"name": "colour", "enum": ["red", "green"]}]},
        [["red"], ["blue"]],
        RuleKind.ENUM,
        "inputs.x[1][0]",
        None,
        id="a string that is not allowed",
    ),
    pytest.param(
        "BYTES",
        {FEATURE: [{"name": "zip", "pattern": "[0-9]{5}|none"}]},
        [["12345"], ["123456"]],
        RuleKind.PATTERN,
        "inputs.x[1][0]",
        None,
        id="a pattern holds for the whole string",
    ),
    pytest.param(
        "BYTES",
        {FEATURE: [{"name": "s", "maxLength": 3}]},
        [["äöüß"]],
        RuleKind.LENGTH,
        "inputs.x[0][0]",
        [["äöü"]],
        id="too many characters",
    ),
    pytest.param(
        "BYTES",
        {FEATURE: [{"name": "s", "minLength": 3}]},
        [["ab"]],
        RuleKind.LENGTH,
        "inputs.x[0][0]",
        None,
        id="too few characters",
    ),
    pytest.param(
        "BYTES", {"allowEmpty": False}, ["a", ""], RuleKind.EMPTY, "inputs.x[1]", None, id="empty"
    ),
    pytest.param(
        "BYTES", {"maxLength": 2}, ["abc"], RuleKind.LENGTH, "inputs.x[0]", ["ab"], id="any string too long"
    ),
    pytest.param(
        "BYTES",
        {"textChecks": ["nul"]},
        ["a\0b"],
        RuleKind.CONTENT,
        "inputs.x[0]",
        ["ab"],
        id="the character NUL",
    ),
    pytest.param(
        "BYTES",
        {"textChecks": ["controlCharacters"]},
        ["a\tb\n", "\x1b[2J"],
        RuleKind.CONTENT,
        "inputs.x[1]",
        ["a\tb\n", "[2J"],
        id="control characters, but no tab or line feed",
    ),
    pytest.param(
        "BYTES",
        {"textChecks": ["surrogates"]},
        ["\ud800"],
        RuleKind.CONTENT,
        "inputs.x[0]",
        [""],
        id="half a surrogate pair",
    ),
    pytest.param(
        "BYTES",
        {"textChecks": ["markup"]},
        ["a < b", "<ScRipt>alert(1)"],
        RuleKind.CONTENT,
        "inputs.x[1]",
        None,
        id="a script",
    ),
    pytest.param(
        "FP32",
        {"each": {"name": "pixel", "min": 0, "max": 1}, FEATURE: [{"name": "free", "index": 1}]},
        [[0.5, 9, 2]],
        RuleKind.RANGE,
        "inputs.x[0][2]",
        [[0.5, 9, 1]],
        id="each value but those of a column with rules of its own",
    ),
    pytest.param(
        "BYTES",
        {"each": {"name": "word", "pattern": "[a-z]+"}},
        [["ab", "C"]],
        RuleKind.PATTERN,
        "inputs.x[0][1]",
        None,
        id="a pattern for each value",
    ),
    pytest.param(
        "FP32",
        {"each": {"name": "v", "enum": ["1"]}, FEATURE: [{"name": "free", "index": 1}]},
        [[1, 9, 2]],
        RuleKind.ENUM,
        "inputs.x[0][2]",
        None,
        id="an enum for each value but those of a column of its own",
    ),
    pytest.param(
        "BYTES",
        {"each": {"name": "v", "maxLength": 2}, FEATURE: [{"name": "free", "index": 1}]},
        [["ab", "abcd", "abc"]],
        RuleKind.LENGTH,
        "inputs.x[0][2]",
        [["ab", "abcd", "ab"]],
        id="a length for each string but those of a column of its own",
    ),
    pytest.param(
        "FP32",
        {"each": {"name": "v", "integer": True}, FEATURE: [{"name": "free", "index": 1}]},
        [[1, 1.5, 2.5]],
        RuleKind.INTEGER,
        "inputs.x[0][2]",
        None,
        id="whole numbers but in a column of its own",
    ),
    pytest.param(
        "INT64",
        {"each": {"name": "token", "min": 0, "exclusiveMax": 100}},
        [[1, 99, 100]],
        RuleKind.RANGE,
        "inputs.x[0][2]",
        [[1, 99, 99]],
        id="token ids",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("datatype", "rules", "rows", "kind", "field", "corrected"), CASES)
@pytest.mark.parametrize("level", LEVELS)
def test_what_breaks_a_rule_is_refused_or_told_or_put_right_by_the_level(
    level: str,
    datatype: str,
    rules: dict[str, Any],
    rows: list[Any],
    kind: RuleKind,
    field: str,
    corrected: list[Any] | None,
) -> None:
    """World: one broken rule; event: the rules are applied; world: what the level says, counted once for each value."""
    tally = new_tally()
    spec = one_input(level, rules)
    outcome = ViolationOutcome.REFUSED
    if level == "strict" or (level == "permissive" and corrected is None):
        with pytest.raises(ServingError) as caught:
            apply(spec, datatype, rows, tally)
        assert caught.value.kind is ErrorKind.INVALID
        assert caught.value.field == field
        assert caught.value.message.startswith(f"{field}: expected ")
    else:
        values, notes = apply(spec, datatype, rows, tally)
        assert {n.kind for n in notes} == {kind}
        assert notes[0].field == field
        if level == "warning":
            outcome = ViolationOutcome.WARNED
            assert values == np.array(rows, DTYPES[datatype]).tolist() or NAN in rows[0]
        else:
            outcome = ViolationOutcome.CORRECTED
            assert values == corrected
    assert {key for key, count in tally.items() if count} == {(kind, outcome)}


@pytest.mark.parametrize(("datatype", "rules", "rows", "kind", "field", "corrected"), CASES)
def test_what_was_put_right_breaks_no_rule(
    datatype: str,
    rules: dict[str, Any],
    rows: list[Any],
    kind: RuleKind,
    field: str,
    corrected: list[Any] | None,
) -> None:
    """World: values that the permissive level made; event: the strict rules are applied; world: no objection."""
    if corrected is not None:
        assert apply(one_input("strict", rules), datatype, corrected)[1] == ()


@pytest.mark.parametrize(
    ("datatype", "rules", "rows"),
    [
        pytest.param("FP32", {FEATURE: [{"name": "f", "max": 0.1}]}, [[0.1]], id="0.1 in 32 bits is 0.1"),
        pytest.param("FP32", {"allowNan": True}, [[NAN, 1]], id="NaN where it is a value"),
        pytest.param(
            "FP32",
            {FEATURE: [{"name": "a", "nullable": True, "min": 0}, {"name": "b"}]},
            [[NAN, 1]],
            id="NaN in one feature that may miss",
        ),
        pytest.param(
            "FP32",
            {"allowNan": True, FEATURE: [{"name": "a", "enum": ["1"], "integer": True}]},
            [[NAN], [1]],
            id="a missing value beside an enum",
        ),
        pytest.param("FP64", {"allowInfinity": True}, [[INF, -INF]], id="infinities as values"),
        pytest.param("FP32", {}, [[3e38, -3e38]], id="numbers whose squares overflow"),
        pytest.param("BYTES", {}, ["", "\0<script>\ud800"], id="any string, without rules"),
        pytest.param("BYTES", {"textChecks": ["markup"]}, ["<", "script>"], id="marks in two strings"),
        pytest.param("BOOL", {}, [[True, False]], id="booleans"),
        pytest.param("INT8", AGE, [[-128, 120]], id="integers at the bounds"),
    ],
)  # fmt: skip
def test_what_breaks_no_rule_passes_as_it_is(
    datatype: str, rules: dict[str, Any], rows: list[Any]
) -> None:
    """World: values that are right; event: the rules are applied; world: the very same arrays, nothing to say."""
    shape = np.array(rows, object).shape
    model = model_spec([tensor("x", datatype, None, *shape[1:])])
    inputs = inputs_of(datatype, rows)
    result, notes = Rules.compile(one_input("strict", rules), model).apply(inputs)
    np.testing.assert_array_equal(result.arrays["x"], inputs.arrays["x"])
    assert notes == ()


def test_a_refusal_names_up_to_ten_values_and_counts_all() -> None:
    """World: 25 values out of range; event: strict rules; world: ten named, the first as the field, 25 counted."""
    tally = new_tally()
    with pytest.raises(ServingError) as caught:
        apply(one_input("strict", {"each": {"name": "v", "max": 1}}), "FP32", [[2] * 25], tally)
    assert caught.value.message.count("expected at most 1") == 10
    assert caught.value.message.endswith("and 15 more")
    assert caught.value.field == "inputs.x[0][0]"
    assert tally[RuleKind.RANGE, ViolationOutcome.REFUSED] == 25


def test_corrections_beyond_ten_are_counted_but_not_listed() -> None:
    """World: 3000 values out of range; event: permissive rules; world: ten notes, all values put right."""
    tally = new_tally()
    spec = one_input("permissive", {"each": {"name": "v", "max": 1}})
    values, notes = apply(spec, "FP32", [[2] * 30] * 100, tally)
    assert values == [[1] * 30] * 100
    assert len(notes) == 10
    assert notes[-1].message.endswith("and 2990 more")
    assert tally[RuleKind.RANGE, ViolationOutcome.CORRECTED] == 3000


@pytest.mark.parametrize("level", LEVELS)
def test_too_many_rows_are_refused_at_every_level(level: str) -> None:
    """World: three rows, of at most two; event: the rules are applied; world: refused."""
    with pytest.raises(ServingError, match=r"expected at most 2 rows \(maxRows\), got 3 rows"):
        apply(spec_of(level, maxRows=2), "FP32", [[1], [2], [3]])


EXPRESSION = {
    "expressions": [{"name": "order", "expression": "low <= high", "message": "low above high"}]
}
LOW_HIGH = {FEATURE: [{"name": "low"}, {"name": "high", "max": 10}]}


@pytest.mark.parametrize("level", ["strict", "permissive"])
def test_a_row_that_breaks_an_expression_is_refused(level: str) -> None:
    """World: a second row with low above high; event: the rules are applied; world: refused with the rule's message."""
    with pytest.raises(ServingError, match=r"low above high \(rule 'order'\)") as caught:
        apply(one_input(level, LOW_HIGH, **EXPRESSION), "FP32", [[1, 2], [3, 2]])
    assert caught.value.field == "inputs.*[1]"


def test_an_expression_sees_what_was_put_right() -> None:
    """World: low 11 and high 20, of at most 10; event: permissive; world: refused, since 11 is above the clamped 10."""
    with pytest.raises(ServingError, match="low above high"):
        apply(one_input("permissive", LOW_HIGH, **EXPRESSION), "FP32", [[11, 20]])


def test_a_warning_names_the_row_of_an_expression() -> None:
    """World: one broken row; event: the level warning; world: answered, one note."""
    _, notes = apply(one_input("warning", LOW_HIGH, **EXPRESSION), "FP32", [[1, 2], [3, 2]])
    assert [(n.kind, n.field) for n in notes] == [(RuleKind.EXPRESSION, "inputs.*[1]")]


def test_an_input_of_any_width_must_have_the_columns_that_have_rules() -> None:
    """World: a model that takes rows of any width; event: too narrow a row; world: refused, not passed unchecked."""
    model = model_spec([tensor("x", "FP32", None, None)])
    rules = Rules.compile(one_input("warning", AGE), model)
    assert rules.apply(inputs_of("FP32", [[1, 2, 3]]))[1] == ()
    assert rules.apply(inputs_of("FP32", [[1, 200]]))[1][0].kind is RuleKind.RANGE
    with pytest.raises(ServingError, match="at least 2 columns"):
        rules.apply(inputs_of("FP32", [[1]]))


@pytest.mark.parametrize(
    ("datatype", "rules", "message"),
    [
        pytest.param("FP32", {"name": "z"}, r"inputs\[0\].name: the model has no input 'z'", id="no input"),
        pytest.param("FP32", {FEATURE: [{"name": "f", "index": 2}]}, r"\[0\].index: .* 2 columns", id="no column"),
        pytest.param("FP32", {FEATURE: [{"name": "f", "pattern": "a"}]}, "pattern: is not for values", id="text"),
        pytest.param("BYTES", {FEATURE: [{"name": "f", "exclusiveMin": 1}]}, "exclusiveMin: is not for", id="numbers"),
        pytest.param("INT64", {FEATURE: [{"name": "f", "nullable": True}]}, "nullable: is not for", id="nullable"),
        pytest.param("FP32", {FEATURE: [{"name": "f", "enum": ["red"]}]}, "enum: 'red' is no float32", id="enum"),
        pytest.param("INT8", {FEATURE: [{"name": "f", "min": 200}]}, "no int8 is at least 200", id="bound"),
        pytest.param("INT8", {FEATURE: [{"name": "f", "min": 0.2, "max": 0.8}]}, "no int8 is", id="no value"),
        pytest.param("INT8", {FEATURE: [{"name": "f", "default": "1.5"}]}, "default: '1.5' is no int8", id="default"),
        pytest.param("FP32", {"textChecks": ["nul"]}, "textChecks are for strings", id="text checks"),
        pytest.param("BYTES", {FEATURE: [{"name": "f", "pattern": "(?=a)"}]}, "pattern: look-around", id="look-around"),
        pytest.param("BYTES", {FEATURE: [{"name": "f", "pattern": r"(a)\1"}]}, "pattern: backref", id="back-reference"),
        pytest.param("BYTES", {FEATURE: [{"name": "f", "pattern": "a)|(b"}]}, "pattern: ", id="open group"),
        pytest.param("BYTES", {FEATURE: [{"name": "f", "pattern": "((a{99}){99}){99}"}]}, "pattern: .*size", id="huge"),
    ],
)  # fmt: skip
def test_rules_that_do_not_fit_the_model_are_told_when_it_is_loaded(
    datatype: str, rules: dict[str, Any], message: str
) -> None:
    """World: a rule for what the model does not have; event: it is compiled; world: an error with field and remedy."""
    model = model_spec([tensor("x", datatype, None, 2)])
    with pytest.raises(RuleError, match=message):
        Rules.compile(one_input("strict", rules), model)


def read(
    spec: ValidationSpec, datatype: str, values: Any, model: ModelSpec | None = None
) -> tuple[list[Any], Notes]:
    """From JSON values through the structural check and the rules."""
    model = model or model_spec([tensor("x", datatype, None, 2)])
    rules = Rules.compile(spec, model)
    inputs = validate(model, {"x": RawTensor("instances", values)}, None, rules.reader)
    result, notes = rules.apply(inputs)
    return result.arrays["x"].tolist(), notes


DEFAULTS = {FEATURE: [{"name": "a", "default": "7"}, {"name": "b"}]}


@pytest.mark.parametrize(
    ("datatype", "values", "expected"),
    [
        pytest.param("FP32", [["1.5", True]], [[1.5, 1]], id="numbers"),
        pytest.param("FP64", [[None, " 2e1 "]], [[7, 20]], id="a default for null"),
        pytest.param("INT64", [[3.0, "4"]], [[3, 4]], id="integers"),
        pytest.param("INT64", [[None, "9007199254740993"]], [[7, 9007199254740993]], id="exactly"),
        pytest.param("BYTES", [[1, None]], None, id="null without a default"),
        pytest.param("BYTES", [[None, 1.5]], [["7", "1.5"]], id="strings"),
        pytest.param("INT64", [[3.5, 1]], None, id="no whole number"),
        pytest.param("FP32", [["nan", 1]], None, id="words"),
        pytest.param("FP32", [["1e999", 1]], None, id="too large"),
        pytest.param("FP32", [["1_0", 1]], None, id="other spellings"),
        pytest.param("FP32", [[{"a": 1}, 1]], None, id="an object"),
        pytest.param("INT8", [["300", 1]], None, id="what the datatype cannot hold"),
        pytest.param("FP32", [[1, None]], None, id="a missing number without a default"),
    ],
)
def test_permissive_rules_convert_what_means_the_same_beyond_doubt(
    datatype: str, values: Any, expected: list[Any] | None
) -> None:
    """World: JSON values of another type; event: read and judged; world: converted and said, or refused."""
    spec = one_input("permissive", DEFAULTS)
    if expected is None:
        with pytest.raises(ServingError) as caught:
            read(spec, datatype, values)
        assert caught.value.kind is ErrorKind.INVALID
    else:
        got, notes = read(spec, datatype, values)
        assert got == expected
        assert len(notes) == sum(
            type(v) is not type(e) for v, e in zip(values[0], got[0], strict=True)
        )


@pytest.mark.parametrize("level", ["strict", "warning"])
@pytest.mark.parametrize("value", ["1.5", True, None, {}])
def test_other_levels_convert_nothing(level: str, value: Any) -> None:
    """World: a value of another JSON type; event: read; world: the structural check refuses it, as without rules."""
    with pytest.raises(ServingError, match="expected a number"):
        read(one_input(level, AGE), "FP32", [[1, value]])


def test_null_is_nan_where_nan_is_a_value() -> None:
    """World: a model that takes missing values, JSON that has no NaN; event: null; world: NaN, nothing to say."""
    values, notes = read(spec_of(allowNan=True), "FP32", [[1, None]])
    assert np.isnan(values[0][1])
    assert notes == ()
    spec = one_input("strict", {FEATURE: [{"name": "a", "nullable": True}]})
    with pytest.raises(ServingError, match=r"inputs.x\[0\]\[1\]: expected a number, not NaN"):
        read(spec, "FP32", [[None, None]])


def test_many_conversions_make_ten_notes() -> None:
    """World: 60 strings for numbers; event: permissive; world: ten notes, of which the last says how many more."""
    _, notes = read(spec_of("permissive"), "FP32", [["1", "2"]] * 30)
    assert len(notes) == 10
    assert notes[-1].message.endswith("and 50 more")
