"""Results as a file: JSON lines as they were kept, or CSV. No IO; one chunk at a time."""

import csv
import io
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import orjson

from canarium_runtime.jobs.chunks import result_lines


class ResultFormat(StrEnum):
    """Formats of a download."""

    JSONL = "jsonl"
    CSV = "csv"


MEDIA_TYPE = {
    ResultFormat.JSONL: "application/x-ndjson",
    ResultFormat.CSV: "text/csv; charset=utf-8; header=present",
}


def csv_head(outputs: Sequence[str]) -> bytes:
    """Write the first line: the row's number, each output, the error."""
    return _lines([["row", *outputs, "error", "field"]])


def csv_lines(blob: bytes, outputs: Sequence[str]) -> bytes:
    """Write a chunk's results. An output that is one number or text is written as such, anything else as JSON."""
    rows = []
    for line in result_lines(blob).splitlines():
        document = orjson.loads(line)
        told, error = document.get("outputs", {}), document.get("error", {})
        cells = [_cell(told.get(name)) for name in outputs]
        rows.append([document["row"], *cells, error.get("message", ""), error.get("field", "")])
    return _lines(rows)


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, (int, float, str)) else orjson.dumps(value).decode()


def _lines(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
