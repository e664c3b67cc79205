"""From a source to rows: JSON lines and CSV by the standard library, Parquet by pyarrow where it is installed.

Everything here blocks: call it in a thread. A file is read as a stream; no more than a line or a record batch of it is
in memory.
"""

import csv
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import unquote, urlsplit

import orjson

from canarium_api.jobs_config import JobsConfig
from canarium_runtime.backends.base import ModelSpec, TensorSpec
from canarium_runtime.errors import LoadError
from canarium_runtime.jobs.chunks import MAX_CHUNK_BYTES, Failure, Row
from canarium_runtime.jobs.errors import SourceError, UnreachableError
from canarium_runtime.jobs.network import AddressRules, GuardedTransport
from canarium_runtime.jobs.record import Format, Source
from canarium_runtime.repository import Repository, redact

_SUFFIXES: Final = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".csv": Format.CSV,
    ".parquet": Format.PARQUET,
}
_BATCH_ROWS: Final = 1024


def format_of(source: Source) -> Format:
    """Tell the format: what was said, or what the path ends with.

    Raises:
        SourceError: neither tells.
    """
    if source.format is not None:
        return source.format
    suffix = Path(urlsplit(source.uri).path).suffix.lower()
    if suffix not in _SUFFIXES:
        msg = f"source.format: expected jsonl, csv or parquet, since {redact(source.uri)} does not end in one of them"
        raise SourceError(msg)
    return _SUFFIXES[suffix]


@dataclass(frozen=True, kw_only=True)
class Opener:
    """Gets sources to this machine.

    Args:
        config: settings.
        rules: which addresses may be reached.
        stop: when set, fetching is given up.
    """

    config: JobsConfig
    rules: AddressRules
    stop: threading.Event = field(default_factory=threading.Event)

    def open(self, source: Source) -> tuple[Path, bool]:
        """Give the file, and whether it is a copy that the caller must delete.

        Raises:
            SourceError: it cannot be had.
            canarium_runtime.repository.Stopped: fetching was given up.
        """
        parts = urlsplit(source.uri)
        if parts.scheme == "file":
            return self._local(Path(unquote(parts.path)), source), False
        transport = GuardedTransport(self.rules, allow_http=source.sha256 is not None)
        try:
            return self._repository(transport).fetch(source.uri, source.sha256).path, True
        except (LoadError, UnreachableError) as error:
            raise SourceError(str(error).replace("model.sha256", "source.sha256")) from error
        finally:
            transport.close()

    def _repository(self, transport: GuardedTransport | None = None) -> Repository:
        return Repository(
            directory=Path(self.config.download_dir),
            timeout=self.config.source_timeout,
            max_bytes=self.config.max_job_bytes,
            stop=self.stop,
            transport=transport,
        )

    def _local(self, path: Path, source: Source) -> Path:
        allowed = self.config.file_directory
        if allowed is None:
            msg = "source.uri: file:// is not allowed: CANARIUM_JOBS_FILE_DIRECTORY names no directory for it"
            raise SourceError(msg)
        # Links are followed before the check, so that none leads out of the directory.
        resolved = path.resolve()
        if not resolved.is_relative_to(Path(allowed).resolve()):
            msg = f"source.uri: {path} is not in {allowed}, the directory that sources may be read from"
            raise SourceError(msg)
        try:
            return self._repository().fetch(resolved.as_uri(), source.sha256).path
        except LoadError as error:
            raise SourceError(str(error).replace("model.sha256", "source.sha256")) from error


def read_rows(path: Path, source: Source, spec: ModelSpec) -> Iterator[Row]:
    """Read the rows of a file.

    Args:
        path: the file.
        source: for the format and the columns.
        spec: for the names and types of the model's inputs.

    Raises:
        SourceError: the file is not of its format.
    """
    kind = format_of(source)
    try:
        if kind is Format.JSONL:
            with path.open("rb") as file:
                yield from _json_lines(file)
        elif kind is Format.CSV:
            yield from _csv_rows(path, _columns(source, spec), spec)
        else:
            yield from _parquet_rows(path, _columns(source, spec), spec)
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the source cannot be read as {kind}: {error}"
        raise SourceError(msg) from error


def _json_lines(file: BinaryIO) -> Iterator[Row]:
    while line := file.readline(MAX_CHUNK_BYTES + 2):
        text = line.strip()
        if len(text) > MAX_CHUNK_BYTES:
            msg = f"a line has more than {MAX_CHUNK_BYTES} bytes: is it one JSON value a line?"
            raise SourceError(msg)
        if text:
            yield check_row(text)


def check_row(text: bytes) -> Row:
    """Tell a row that is JSON from one that is not."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return Failure("malformed_request", f"the row is not valid JSON: {error.msg}")
    return text


Columns = Mapping[str, str | Sequence[str]]


def _columns(source: Source, spec: ModelSpec) -> Columns:
    names = [tensor.name for tensor in spec.inputs]
    if source.columns is None:
        return {name: name for name in names}
    if sorted(source.columns) != sorted(names):
        msg = f"source.columns: expected the model's inputs {names}, got {sorted(source.columns)}"
        raise SourceError(msg)
    return source.columns


def _needed(columns: Columns, present: Sequence[str]) -> list[str]:
    wanted = [c for part in columns.values() for c in ([part] if isinstance(part, str) else part)]
    missing = [column for column in wanted if column not in present]
    if missing:
        msg = (
            f"the source has no column {missing[0]!r}; it has {list(present)[:50]}: let source.columns name the "
            "columns of each of the model's inputs"
        )
        raise SourceError(msg)
    return wanted


def _csv_rows(path: Path, columns: Columns, spec: ModelSpec) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="", strict=True)
        try:
            _needed(columns, reader.fieldnames or [])
            for record in reader:
                if None in record:
                    yield Failure("malformed_request", "the row has more cells than the header")
                else:
                    yield _assemble(record, columns, spec, _from_text)
        except csv.Error as error:
            msg = f"the source is not CSV, near line {reader.line_num + 1}: {error}"
            raise SourceError(msg) from error


def _parquet_rows(path: Path, columns: Columns, spec: ModelSpec) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        msg = "source.format: parquet needs pyarrow (canarium[parquet]), which this image lacks: use csv or jsonl"
        raise SourceError(msg) from error
    try:
        with parquet.ParquetFile(path) as file:
            needed = _needed(columns, file.schema_arrow.names)
            batches = file.iter_batches(batch_size=_BATCH_ROWS, columns=list(dict.fromkeys(needed)))
            for batch in batches:
                for record in batch.to_pylist():
                    yield _assemble(record, columns, spec, _as_it_is)
    except ArrowException as error:
        msg = f"the source is not Parquet: {error}"
        raise SourceError(msg) from error


def _as_it_is(value: Any, datatype: str) -> Any:
    return value


def _from_text(text: Any, datatype: str) -> Any:
    """Read a cell as the input's datatype; what it is not stays text, which validation will name."""
    if datatype == "BYTES":
        return text
    if datatype == "BOOL":
        return {"true": True, "false": False, "1": True, "0": False}.get(text.lower(), text)
    if text == "":
        return None
    try:
        return float(text) if datatype.startswith("FP") else int(text)
    except ValueError:
        return text


def _assemble(record: Mapping[str, Any], columns: Columns, spec: ModelSpec, convert: Any) -> Row:
    row = {
        tensor.name: _value(record, columns[tensor.name], tensor, convert) for tensor in spec.inputs
    }
    try:
        return orjson.dumps(row)
    except TypeError as error:
        return Failure("malformed_request", f"the row has a value that JSON has not: {error}")


def _value(
    record: Mapping[str, Any], part: str | Sequence[str], tensor: TensorSpec, convert: Any
) -> Any:
    if not isinstance(part, str):
        return [convert(record[column], tensor.datatype) for column in part]
    value = convert(record[part], tensor.datatype)
    # One column for an input of shape [rows, 1]: the cell is the row's only element.
    return [value] if tensor.shape[1:] == (1,) and not isinstance(value, list) else value
