"""Rows in chunks, and results as files."""

import csv
import io
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_runtime.jobs import chunks, results
from canarium_runtime.jobs.chunks import MAX_CHUNK_BYTES, Answer, Failure, Row
from canarium_runtime.jobs.errors import SourceError
from canarium_runtime.jobs.record import MAX_ERRORS

BAD = Failure("malformed_request", "the row is not valid JSON")
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def split(rows: list[Row], **limits: int) -> list[chunks.Chunk]:
    bounds = {"chunk_rows": 3, "max_rows": 1000, "max_bytes": 10**9, **limits}
    return [chunks.unpack(packed.blob) for packed in chunks.split(rows, **bounds)]


@given(rows=st.lists(values | st.just(BAD), max_size=30), size=st.integers(1, 7))
def test_every_row_is_in_one_chunk_at_its_place(rows: list[Any], size: int) -> None:
    """Split and unpacked, they are the same rows, in order, with their numbers."""
    given_rows = [row if isinstance(row, Failure) else orjson.dumps(row) for row in rows]
    found: list[Any] = []
    for chunk in split(given_rows, chunk_rows=size):
        assert chunk.first == len(found)
        assert 0 < len(chunk.rows) <= size
        found += [chunk.bad.get(at, row) for at, row in enumerate(chunk.rows)]
    assert rows == found


def test_large_rows_make_short_chunks_and_one_that_is_too_large_fails_alone() -> None:
    """No chunk is larger than one row may be."""
    large = b'"' + b"x" * (MAX_CHUNK_BYTES // 2) + b'"'
    found = split([large, large, large + b" " * MAX_CHUNK_BYTES, b"1"], chunk_rows=100)
    assert [len(chunk.rows) for chunk in found] == [1, 3]
    assert found[1].bad[1].code == "body_too_large"


@pytest.mark.parametrize(
    ("limits", "message"),
    [({"max_rows": 5}, "more than 5 rows"), ({"max_bytes": 50}, "more bytes than may wait")],
)
def test_a_job_that_is_too_large_is_refused(limits: dict[str, int], message: str) -> None:
    """With the remedy."""
    with pytest.raises(SourceError, match=message) as caught:
        split([b"1"] * 6, **limits)
    assert "split" in str(caught.value)


ANSWERS: list[Answer] = [
    {"y": 1.5, "label": 'a,\n"b"', "scores": [0.25, 0.75]},
    Failure("invalid_input", "x: expected a number, got null", "x[0]"),
    {"y": None, "label": "", "scores": []},
]


def test_results_are_a_json_line_for_each_row() -> None:
    """With its number, and outputs or an error."""
    packed = chunks.pack_results(40, ANSWERS)
    assert (packed.rows, packed.failed) == (3, 1)
    lines = [orjson.loads(line) for line in chunks.result_lines(packed.blob).splitlines()]
    assert lines == [
        {"row": 40, "outputs": ANSWERS[0]},
        {
            "row": 41,
            "error": {
                "code": "invalid_input",
                "message": "x: expected a number, got null",
                "field": "x[0]",
            },
        },
        {"row": 42, "outputs": ANSWERS[2]},
    ]
    assert chunks.answered(packed.blob) == {40: ANSWERS[0], 42: ANSWERS[2]}


def test_the_first_failed_rows_are_named() -> None:
    """As many as a record holds."""
    packed = chunks.pack_results(0, [BAD] * (MAX_ERRORS + 5))
    assert [error.row for error in packed.errors] == list(range(MAX_ERRORS))
    assert packed.failed == MAX_ERRORS + 5


def test_a_csv_has_a_column_for_each_output_and_for_the_error() -> None:
    """What is not one value is JSON; texts are quoted as CSV wants it."""
    outputs = ("y", "label", "scores")
    packed = chunks.pack_results(0, ANSWERS)
    text = (results.csv_head(outputs) + results.csv_lines(packed.blob, outputs)).decode()
    assert list(csv.reader(io.StringIO(text))) == [
        ["row", "y", "label", "scores", "error", "field"],
        ["0", "1.5", 'a,\n"b"', "[0.25,0.75]", "", ""],
        ["1", "", "", "", "x: expected a number, got null", "x[0]"],
        ["2", "", "", "[]", "", ""],
    ]
