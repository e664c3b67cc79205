"""Golden data: files, columns and cells, and errors that name the row and the column."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from canarium_api.golden import Task, Thresholds
from canarium_runtime.backends.base import ModelSpec
from canarium_runtime.golden import table as tables
from canarium_runtime.golden.answers import ColumnNames, canonical, choose
from canarium_runtime.golden.layout import arrays_of, make_layout
from canarium_runtime.golden.table import DataError, Table
from canarium_runtime.testing import model_spec, tensor

X = (tensor("x", "FP32", None, 2),)


def write(folder: Path, name: str, text: str) -> Table:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return Table(path)


def read(table: Table, spec: ModelSpec, **wishes: Any) -> dict[str, np.ndarray]:
    """All inputs of a small table."""
    layout = make_layout(table, spec, Thresholds(**wishes))
    (chunk,) = table.chunks()
    return arrays_of(table, chunk, layout, spec)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("g.csv", "a,b,label\n1,2,0\n3,,1\n"),
        ("g.csv", "\ufeffa,b,label\r\n1,2,0\r\n3,NaN,1\r\n"),
        ("g.jsonl", '{"a": 1, "b": 2, "label": 0}\n\n{"a": 3, "b": null, "label": 1}\n'),
        ("g.ndjson", '{"x": [1, 2], "label": 0}\n{"x": [3, NaN], "label": 1}\n'),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, text: str) -> None:
    """An empty cell and null are missing."""
    found = read(write(tmp_path, name, text), model_spec(X))["x"]
    np.testing.assert_array_equal(found, np.array([[1, 2], [3, np.nan]], np.float32))


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    """By pyarrow, where it is installed."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = pyarrow.table({"a": [1.0, 3.0], "b": [2.0, None], "label": [0, 1]})
    parquet.write_table(rows, tmp_path / "g.parquet")
    found = read(Table(tmp_path / "g.parquet"), model_spec(X))["x"]
    np.testing.assert_array_equal(found, np.array([[1, 2], [3, np.nan]], np.float32))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("g.txt", "a", "must end in .csv, .jsonl or .parquet"),
        ("g.csv", "", "has no header"),
        ("g.csv", "a,b\n", "has no rows"),
        ("g.csv", "a,,c\n1,2,3\n", "column 2 has no name"),
        ("g.csv", "a,a\n1,2\n", "two columns are called 'a'"),
        ("g.csv", "a,b\n1,2\n3\n", "row 2 (line 3): has 1 cells, and the header 2"),
        ("g.csv", 'a,b\n1,"2\n', "is not CSV"),
        ("g.jsonl", "{}\n[1]\n", "row 2 (line 2): an object is expected"),
        ("g.jsonl", '{"a": 1}\n{"a": \n', "row 2 (line 2): is not JSON"),
        ("g.jsonl", '{"a": 1}\n{"b": 1}\n', "row 2: has no 'a', as the first row does"),
        ("g.parquet", "no", "is not Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    """File, row and line."""
    (tmp_path / name).write_bytes(text.encode())
    with pytest.raises(DataError) as caught:
        list(Table(tmp_path / name).chunks())
    assert words in str(caught.value)
    assert str(caught.value).startswith(name)


@pytest.mark.parametrize(
    ("inputs", "cell", "words"),
    [
        (X, "abc", "g.csv, row 2 (line 3), column 'b': 'abc' is no number"),
        (X, "1e99", "column 'b': '1e99' is too large for float32"),
        ((tensor("x", "INT64", None, 2),), "1.5", "column 'b': '1.5' is no integer"),
        ((tensor("x", "INT64", None, 2),), "", "column 'b': '' is missing, and the model takes integers"),
        ((tensor("x", "INT8", None, 2),), "300", "column 'b': '300' does not fit int8"),
        ((tensor("x", "BOOL", None, 2),), "2", "column 'b': '2' is neither true nor false"),
        ((tensor("x", "INT64", None, 2),), "9007199254740993000", "is beyond 2^53"),
    ],
)  # fmt: skip
def test_a_cell_that_the_model_does_not_take_is_named(
    tmp_path: Path, inputs: Any, cell: str, words: str
) -> None:
    """By row and column."""
    table = write(tmp_path, "g.csv", f"a,b,label\n1,1,0\n1,{cell},1\n")
    with pytest.raises(DataError) as caught:
        read(table, model_spec(inputs))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("header", "wishes", "words"),
    [
        (
            "a,b,c,label",
            {},
            "takes 2 numbers a row, and there are 3 columns besides the label: a, b, c",
        ),
        (
            "a,b,answer",
            {},
            "which column has the right answers? Name it by --label; it has a, b, answer",
        ),
        ("a,b,label", {"label": "nope"}, "has no column 'nope' with the right answers"),
        ("a,b,label", {"features": ["a", "z"]}, "has no column 'z'"),
        ("a,b,label", {"ignore": ["z"]}, "has no column 'z'"),
        ("label,id", {"ignore": ["id"]}, "there are 0 columns besides the label"),
    ],
)
def test_columns_that_do_not_fit_the_model_are_refused(
    tmp_path: Path, header: str, wishes: dict[str, Any], words: str
) -> None:
    """With what to do."""
    table = write(tmp_path, "g.csv", f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    with pytest.raises(DataError) as caught:
        make_layout(table, model_spec(X), Thresholds(**wishes))
    assert words in str(caught.value)


def test_columns_are_chosen_and_put_in_order(tmp_path: Path) -> None:
    """By name: the second one first, and an id left out."""
    table = write(tmp_path, "g.csv", "id,a,b,label\n7,1,2,0\n")
    np.testing.assert_array_equal(read(table, model_spec(X), ignore=["id"])["x"], [[1, 2]])
    np.testing.assert_array_equal(read(table, model_spec(X), features=["b", "a"])["x"], [[2, 1]])


def test_several_inputs_take_their_columns_by_name(tmp_path: Path) -> None:
    """Numbers and words; the shape is each input's own."""
    inputs = (tensor("age", "INT64", None, 1), tensor("word", "BYTES", None))
    table = write(tmp_path, "g.csv", "word,more,age,label\nred,z,3,0\n")
    found = read(table, model_spec(inputs))
    assert (found["age"].tolist(), found["word"].tolist()) == ([[3]], ["red"])
    with pytest.raises(DataError, match="has no column 'word', which is an input of the model"):
        read(write(tmp_path, "h.csv", "age,label\n3,0\n"), model_spec(inputs))


def test_an_image_of_columns_gets_its_shape(tmp_path: Path) -> None:
    """Four columns for [rows, 2, 2]; three do not fit."""
    square = (tensor("x", "FP32", None, 2, 2),)
    table = write(tmp_path, "g.csv", "a,b,c,d,label\n1,2,3,4,0\n")
    assert read(table, model_spec(square))["x"].tolist() == [[[1, 2], [3, 4]]]
    lists = write(tmp_path, "g.jsonl", '{"x": [[1, 2], [3, 4]], "label": 0}\n')
    assert read(lists, model_spec(square))["x"].tolist() == [[[1, 2], [3, 4]]]
    ragged = write(tmp_path, "r.jsonl", '{"x": [1, 2], "label": 0}\n{"x": [1], "label": 0}\n')
    with pytest.raises(DataError, match="lists of different lengths"):
        read(ragged, model_spec(X))


def test_no_more_rows_are_read_than_allowed_and_that_is_known(tmp_path: Path) -> None:
    """Bounded, chunk by chunk."""
    path = tmp_path / "g.csv"
    path.write_text("a\n" + "1\n" * 2500)
    table = Table(path, max_rows=2100)
    assert [(chunk.first, chunk.rows) for chunk in table.chunks()] == [
        (1, 1024),
        (1025, 1024),
        (2049, 52),
    ]
    assert (table.is_cut(), Table(path).is_cut()) == (True, False)
    assert tables.MAX_ROWS == 1_000_000


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (3, "3"), (3.0, "3"), ("3", "3"), (" 3.0 ", "3"), (np.int64(3), "3"), (1.5, "1.5"), (True, "1"),
        ("true", "1"), ("False", "0"), ("cat", "cat"), (b"cat", "cat"), ("nan", "nan"), ("1e400", "1e400"),
    ],
)  # fmt: skip
def test_a_class_is_the_same_in_a_file_and_in_an_answer(value: Any, name: str) -> None:
    """Numbers by value, words as they are."""
    assert canonical(value) == name


CLASS, SCORES = tensor("label", "INT64", None), tensor("probabilities", "FP32", None, 3)
NUMBER = tensor("y", "FP32", None, 1)


@pytest.mark.parametrize(
    ("outputs", "wishes", "task", "read_from"),
    [
        ([CLASS, SCORES], {}, Task.CLASSIFICATION, ("label", "probabilities")),
        ([SCORES, CLASS], {}, Task.CLASSIFICATION, ("label", "probabilities")),
        ([SCORES], {}, Task.CLASSIFICATION, ("probabilities",)),
        ([NUMBER], {}, Task.REGRESSION, ("y",)),
        ([NUMBER], {"task": "classification"}, Task.CLASSIFICATION, ("y",)),
        ([NUMBER, SCORES], {"output": "y"}, Task.REGRESSION, ("y",)),
        ([CLASS, NUMBER], {"task": "regression"}, Task.REGRESSION, ("y",)),
        (
            [CLASS, SCORES],
            {"probabilities": "probabilities"},
            Task.CLASSIFICATION,
            ("probabilities",),
        ),
    ],
)
def test_the_outputs_with_the_answers_are_found(
    outputs: Any, wishes: Any, task: Task, read_from: tuple[str, ...]
) -> None:
    """By datatype and shape, unless the thresholds name them."""
    reading = choose(model_spec(X, outputs), Thresholds(**wishes))
    assert (reading.task, reading.outputs) == (task, read_from)


@pytest.mark.parametrize(
    ("outputs", "wishes", "words"),
    [
        ([CLASS], {"output": "nope"}, "the model has no output 'nope'; it has label"),
        ([SCORES], {"task": "regression"}, "which output has the answers.* probabilities FP32"),
        ([tensor("z", "BYTES", None, 4)], {}, "which output has the answers?.* z BYTES"),
    ],
)
def test_outputs_that_hold_no_answers_are_refused(outputs: Any, wishes: Any, words: str) -> None:
    """With the outputs that there are."""
    with pytest.raises(DataError, match=words):
        choose(model_spec(X, outputs), Thresholds(**wishes))


def test_one_score_says_yes_from_a_half_on() -> None:
    """And the scores of both classes are told."""
    reading = choose(
        model_spec(X, [NUMBER]), Thresholds(task=Task.CLASSIFICATION, classes=["no", "yes"])
    )
    found = reading.read({"y": np.array([[0.2], [0.5]], np.float32)})
    assert found.classes == ["no", "yes"]
    np.testing.assert_allclose(found.scores, [[0.8, 0.2], [0.5, 0.5]], rtol=1e-6)


def test_the_order_of_scores_is_learned_from_the_class_output() -> None:
    """Whatever order the exporter chose; the one that is never the highest is what is left."""
    reading = choose(model_spec(X, [tensor("label", "BYTES", None), SCORES]), Thresholds())
    names = ColumnNames()
    scores = np.array([[0.1, 0.8, 0.1], [0.7, 0.2, 0.1]], np.float32)
    found = reading.read({"label": np.array(["cat", "dog"], object), "probabilities": scores})
    names.learn(found)
    assert names.names(3, ["cat", "dog", "owl"]) == ["dog", "cat", "owl"]
    assert names.names(3, ["cat", "dog"]) is None
