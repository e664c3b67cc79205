"""`canarium schema infer`: rules from a model's inputs and a sample."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from canarium_api.input_rules import ValidationSpec
from canarium_cli.schema import Input, SchemaError, app, infer_rules
from canarium_runtime.rules.ruleset import Rules
from canarium_runtime.testing import linear_model, model_spec, tensor

X = Input(name="x", kind="float", shape=[None, 2])
WORD = Input(name="word", kind="string", shape=[None, 1])


def test_a_sample_gives_ranges_and_says_which_values_may_miss() -> None:
    """World: three rows; event: rules; world: least and largest value, and nullable where a cell is empty."""
    spec = infer_rules([X], ["age", "income"], [["1", "2.5"], ["3", ""], ["2", "-1e3"]])
    age, income = spec.inputs[0].features
    assert (age.name, age.min, age.max, age.nullable) == ("age", 1, 3, None)
    assert (income.name, income.min, income.max, income.nullable) == ("income", -1000, 2.5, True)


def test_a_sample_of_words_gives_an_enum_unless_there_are_many() -> None:
    """World: a column of two words, and one of a hundred; event: rules; world: an enum for the first only."""
    few = infer_rules([WORD], ["word"], [["b"], ["a"], ["b"]]).inputs[0].features[0]
    many = infer_rules([WORD], ["word"], [[str(i)] for i in range(100)]).inputs[0].features[0]
    assert (few.enum, many.enum) == (["a", "b"], None)


def test_several_inputs_take_their_columns_by_name() -> None:
    """World: two inputs, columns in another order; event: rules are written; world: each input has its own."""
    age = Input(name="age", kind="integer", shape=[None, 1])
    spec = infer_rules([age, WORD], ["word", "age"], [["a", "5"]])
    assert [(i.name, i.features[0].name) for i in spec.inputs] == [("age", "age"), ("word", "word")]
    assert spec.inputs[0].features[0].max == 5


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (["a", "b", "label"], [], "has 3 columns and input 'x' takes 2: leave out"),
        (["a", "b"], [["1", "2", "3"]], "line 2 of the sample has 3 columns"),
        (["a", "b"], [["1", "red"], ["2", "5"]], "column 'b' holds what is no finite number"),
        (["a", "b"], [["1", "inf"]], "column 'b' holds what is no finite number"),
        (["a", "a"], [], "the same name"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(
    header: list[str], rows: list[list[str]], message: str
) -> None:
    """World: a sample; event: rules are asked for; world: an error that says what to change."""
    with pytest.raises(SchemaError, match=message):
        infer_rules([X], header, rows)


def test_what_the_command_writes_fits_the_model(tmp_path: Path) -> None:
    """World: a model file and a CSV file; event: the command; world: YAML that compiles for the model."""
    model, data = tmp_path / "model.onnx", tmp_path / "sample.csv"
    linear_model(model)
    data.write_text("a,b\n1,2\n3,4\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["infer", str(model), "--data", str(data)])
    assert result.exit_code == 0, result.output
    validation = yaml.safe_load(result.output)["spec"]["serving"]["validation"]
    spec = ValidationSpec.from_manifest(validation)
    Rules.compile(spec, model_spec([tensor("x", "FP32", None, 2)]))
    assert [f.max for f in spec.inputs[0].features] == [3, 4]


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    """World: a text file; event: the command; world: status 1 and the reason."""
    file = tmp_path / "model.onnx"
    file.write_text("no model", encoding="utf-8")
    result = CliRunner().invoke(app, ["infer", str(file)])
    assert result.exit_code == 1
    assert "cannot be read as an ONNX model" in result.output
