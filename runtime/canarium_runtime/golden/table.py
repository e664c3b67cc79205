"""CSV, JSON lines and Parquet as chunks of rows, each with the number by which a person finds it."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

CHUNK_ROWS: Final = 1024
MAX_ROWS: Final = 1_000_000
"""Rows that are read of a file; what is left out is said."""
MAX_COLUMNS: Final = 10_000
MAX_LINE_BYTES: Final = 16 * 1024**2


class DataError(Exception):
    """Data cannot be used; the message names file, row and column, and what to do."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows."""

    first: int
    """Number of the first row, from 1; a CSV file's header is none."""
    columns: dict[str, list[Any]]
    """Values by column; text in CSV, whatever JSON and Parquet have elsewhere."""
    rows: int


class Table:
    """A file of rows.

    Args:
        path: its name ends in .csv, .jsonl, .ndjson or .parquet.
        max_rows: rows that are read.
        name: of the file, where the path's own says nothing.

    Raises:
        DataError: it cannot be read, or has no rows.
    """

    def __init__(self, path: Path, max_rows: int = MAX_ROWS, name: str | None = None) -> None:
        self.path = path
        self.name = path.name if name is None else name
        """For messages."""
        self._suffix = Path(self.name).suffix.lower()
        self._max_rows = max_rows
        readers = {
            ".csv": _csv_rows,
            ".jsonl": _json_rows,
            ".ndjson": _json_rows,
            ".parquet": _parquet_rows,
        }
        if self._suffix not in readers:
            raise DataError(
                f"{self.name}: the name must end in .csv, .jsonl or .parquet, to tell what it is"
            )
        self._reader = readers[self._suffix]
        self.columns = self._first_columns()

    def where(self, row: int, column: str | None = None) -> str:
        """Name a place: `golden.csv, row 17 (line 18), column 'age'`."""
        line = f" (line {row + 1})" if self._suffix == ".csv" else ""
        place = f"{self.name}, row {row}{line}"
        return place if column is None else f"{place}, column {column!r}"

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """Give all rows, some at a time; call it again to read again."""
        found = islice(self._rows(), self._max_rows)
        first = 1
        while some := list(islice(found, rows)):
            yield Chunk(first, self._turned(some, first), len(some))
            first += len(some)

    def is_cut(self) -> bool:
        """Whether the file has more rows than are read."""
        rows = islice(self._rows(), self._max_rows, self._max_rows + 1)
        return next(rows, None) is not None

    def _first_columns(self) -> list[str]:
        first = next(self._rows(), None)
        if first is None:
            raise DataError(f"{self.name}: has no rows")
        names = list(first)
        if len(names) > MAX_COLUMNS:
            raise DataError(f"{self.name}: has {len(names)} columns, more than {MAX_COLUMNS}")
        return names

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self._reader(self.path)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.name}: cannot be read: {error}") from error

    def _turned(self, rows: Sequence[dict[str, Any]], first: int) -> dict[str, list[Any]]:
        """Turn rows into columns; each row must have them all."""
        try:
            return {name: [row[name] for row in rows] for name in self.columns}
        except KeyError as error:
            name = error.args[0]
            at = next(i for i, row in enumerate(rows) if name not in row)
            raise DataError(
                f"{self.where(first + at)}: has no {name!r}, as the first row does: give each row every column"
            ) from error


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            _check_header(path, header)
            for number, row in enumerate(reader, 1):
                if len(row) != len(header):
                    if not row:
                        raise DataError(f"{path.name}, line {reader.line_num}: is empty: remove it")
                    raise DataError(
                        f"{path.name}, row {number} (line {reader.line_num}): has {len(row)} cells, and the header "
                        f"{len(header)}"
                    )
                yield dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise DataError(f"{path.name}, line {reader.line_num}: is not CSV: {error}") from error


def _check_header(path: Path, header: Sequence[str]) -> None:
    if not header:
        raise DataError(
            f"{path.name}: has no header: write the names of its columns into the first line"
        )
    for index, name in enumerate(header):
        if not name.strip():
            raise DataError(
                f"{path.name}: column {index + 1} has no name in the header: give it one"
            )
        if name in header[:index]:
            raise DataError(f"{path.name}: two columns are called {name!r}: rename one")


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        number = 0
        for line_number in range(1, 10**12):
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line:
                return
            if len(line) > MAX_LINE_BYTES:
                raise DataError(
                    f"{path.name}, line {line_number}: is longer than {MAX_LINE_BYTES} bytes"
                )
            if not line.strip():
                continue
            number += 1
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{path.name}, row {number} (line {line_number}): is not JSON: {error}"
                ) from error
            if not isinstance(row, dict):
                raise DataError(
                    f"{path.name}, row {number} (line {line_number}): an object is expected, such as "
                    '{"age": 30, "label": "yes"}'
                )
            yield row


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(
            f"{path.name}: reading Parquet needs pyarrow: pip install 'canarium[parquet]', or use CSV or JSON lines"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=CHUNK_ROWS):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path.name}: is not Parquet: {error}") from error
