"""Rows as they wait: cut into chunks, compressed.

A chunk is `{"first": N, "rows": [...], "bad": [...]}`: `rows` are the client's own, and where one of them could not be
read there is null, and the reason in `bad`. Results are JSON lines, one for each row. No IO.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from canarium_runtime.jobs.errors import SourceError
from canarium_runtime.jobs.record import MAX_ERRORS, RowError

MAX_CHUNK_BYTES: Final = 4 * 1024**2
"""Of JSON: rows that are large make chunks that are short. Also the most that one row may have."""
_LEVEL: Final = 1
"""Of compression: rows of numbers shrink to a third, at the speed of a network."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no answer."""

    code: str
    message: str
    field: str | None = None

    def of_row(self, row: int) -> RowError:
        """Say it of a row."""
        return RowError(row=row, code=self.code, message=self.message, field=self.field)


Row = bytes | Failure
"""A row as JSON, or why it is none."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Rows that are answered together."""

    first: int
    """Number of the first row in its job."""
    rows: Sequence[Any]
    bad: Mapping[int, Failure] = field(default_factory=dict)
    """Rows that could not be read, by their place in the chunk."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A chunk as it waits."""

    blob: bytes
    rows: int


def split(
    rows: Iterable[Row], *, chunk_rows: int, max_rows: int, max_bytes: int
) -> Iterator[Packed]:
    """Cut rows into chunks, and keep no more than one of them.

    Args:
        rows: of one job.
        chunk_rows: most rows in a chunk.
        max_rows: most rows of the job.
        max_bytes: most bytes of all chunks.

    Raises:
        SourceError: there are more rows or bytes than may be.
    """
    first = size = 0
    held: list[bytes] = []
    bad: list[tuple[int, Failure]] = []
    for total, row in enumerate(rows, 1):
        if total > max_rows:
            msg = f"the job has more than {max_rows} rows: split it"
            raise SourceError(msg)
        found = row
        if isinstance(found, bytes) and len(found) > MAX_CHUNK_BYTES:
            text = f"the row has {len(found)} bytes, where {MAX_CHUNK_BYTES} may be"
            found = Failure("body_too_large", text)
        length = len(found) if isinstance(found, bytes) else 4
        if held and (len(held) == chunk_rows or size + length > MAX_CHUNK_BYTES):
            packed = _pack(first, held, bad)
            max_bytes = _within(max_bytes, packed)
            yield packed
            first, held, bad, size = first + len(held), [], [], 0
        if isinstance(found, Failure):
            bad.append((len(held), found))
            held.append(b"null")
        else:
            held.append(found)
        size += length
    if held:
        packed = _pack(first, held, bad)
        _within(max_bytes, packed)
        yield packed


def _within(left: int, packed: Packed) -> int:
    left -= len(packed.blob)
    if left < 0:
        msg = "the job's rows take more bytes than may wait: split the job, or raise CANARIUM_JOBS_MAX_JOB_BYTES"
        raise SourceError(msg)
    return left


def _pack(first: int, rows: Sequence[bytes], bad: Sequence[tuple[int, Failure]]) -> Packed:
    told = orjson.dumps([[at, f.code, f.message, f.field] for at, f in bad])
    text = b'{"first":%d,"bad":%b,"rows":[%b]}' % (first, told, b",".join(rows))
    return Packed(blob=zlib.compress(text, _LEVEL), rows=len(rows))


def unpack(blob: bytes) -> Chunk:
    """Read a chunk that `split` made."""
    document = orjson.loads(zlib.decompress(blob))
    bad = {at: Failure(code, message, path) for at, code, message, path in document["bad"]}
    return Chunk(first=document["first"], rows=document["rows"], bad=bad)


Outputs = Mapping[int, Mapping[str, Any]]
"""Outputs by number of the row."""
Answer = Mapping[str, Any] | Failure
"""Outputs of a row by name, or why there are none."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Answers of a chunk, ready to be kept."""

    blob: bytes
    rows: int
    failed: int
    errors: tuple[RowError, ...]
    """The first; at most MAX_ERRORS."""


def pack_results(first: int, answers: Sequence[Answer]) -> Results:
    """Write the answers of a chunk.

    Args:
        first: number of its first row.
        answers: one for each row, in order.
    """
    lines: list[bytes] = []
    errors: list[RowError] = []
    failed = 0
    for number, answer in enumerate(answers, first):
        if isinstance(answer, Failure):
            failed += 1
            error = answer.of_row(number)
            if len(errors) < MAX_ERRORS:
                errors.append(error)
            told = error.model_dump(exclude={"row"}, exclude_none=True)
            lines.append(orjson.dumps({"row": number, "error": told}))
        else:
            line = {"row": number, "outputs": answer}
            lines.append(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY))
    lines.append(b"")
    return Results(
        blob=zlib.compress(b"\n".join(lines), _LEVEL),
        rows=len(answers),
        failed=failed,
        errors=tuple(errors),
    )


def result_lines(blob: bytes) -> bytes:
    """Give the JSON lines of a chunk's results."""
    return zlib.decompress(blob)


def answered(blob: bytes) -> dict[int, Mapping[str, Any]]:
    """Give the outputs that a chunk's results have, by number of the row."""
    documents = map(orjson.loads, result_lines(blob).splitlines())
    return {d["row"]: d["outputs"] for d in documents if "outputs" in d}
