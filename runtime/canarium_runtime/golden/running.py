"""Runs of a model over rows: all answers, the rows that fail, and how long one row takes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from canarium_runtime.backends.base import Array, Backend, BackendError, ModelSpec
from canarium_runtime.golden.results import Tally
from canarium_runtime.golden.table import Chunk, DataError, Table

BATCH_ROWS: Final = 32
"""Rows of one run, as in a server by default."""
LATENCY_RUNS: Final = 300
LATENCY_SECONDS: Final = 10.0
"""Longest time that latency is measured for; at least FEWEST_RUNS runs are made."""
FEWEST_RUNS: Final = 20
MAX_FAILURES: Final = 5
"""Failed rows that are named."""
Inputs = dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Times of runs with one row, in milliseconds."""

    runs: int
    p50: float
    p95: float
    p99: float
    histogram: tuple[tuple[float, int], ...]
    """(upper edge, runs) by bin, for a plot."""


def answer(
    table: Table, backend: Backend, tally: Tally, arrays: Inputs, chunk: Chunk
) -> tuple[dict[str, Array], NDArray[np.bool_]]:
    """Run all rows of a chunk; where a run fails, its rows one by one. Rows that failed have any answer."""
    names = tally.reading.outputs
    size = BATCH_ROWS if backend.spec.batchable else _fixed_rows(backend.spec)
    good = np.ones(chunk.rows, bool)
    pieces: list[Sequence[Array] | None] = []
    started = time.perf_counter()
    for first in range(0, chunk.rows, size):
        part = {name: array[first : first + size] for name, array in arrays.items()}
        rows = min(size, chunk.rows - first)
        try:
            pieces.append(_checked(backend.infer(part, names), rows, names))
        except BackendError:
            pieces += _one_by_one(table, backend, tally, part, chunk.first + first, good, first)
    tally.seconds += time.perf_counter() - started
    return _joined(pieces, names), good


def _one_by_one(
    table: Table,
    backend: Backend,
    tally: Tally,
    part: Inputs,
    number: int,
    good: NDArray[np.bool_],
    first: int,
) -> list[Sequence[Array] | None]:
    names = tally.reading.outputs
    found: list[Sequence[Array] | None] = []
    for index in range(len(next(iter(part.values())))):
        try:
            one = {name: array[index : index + 1] for name, array in part.items()}
            outputs = backend.infer(one, names)
            found.append(_checked(outputs, 1, names))
        except BackendError as error:
            good[first + index] = False
            tally.failed += 1
            if len(tally.failures) < MAX_FAILURES:
                why = _short(error)
                tally.failures.append(f"{table.where(number + index)}: {why}")
            found.append(None)
    return found


def _short(error: BackendError) -> str:
    """Give the beginning and the end of a library's message, where the reason stands."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 240 else f"{text[:80]} ... {text[-150:]}"


def _fixed_rows(spec: ModelSpec) -> int:
    """Give the rows of one run of a model whose requests are not joined."""
    sizes = {t.shape[0] for t in spec.inputs if t.shape}
    if sizes - {1} and any(isinstance(size, int) and size != 1 for size in sizes):
        raise DataError(
            f"the model takes exactly {sorted(map(str, sizes))} rows a run, and golden data come row by row"
        )
    return 1


def _checked(outputs: Sequence[Array], rows: int, names: Sequence[str]) -> Sequence[Array]:
    for name, array in zip(names, outputs, strict=True):
        if array.ndim == 0 or array.shape[0] != rows:
            raise DataError(
                f"output {name!r} has shape {list(array.shape)} for {rows} rows: one answer a row is expected"
            )
    return outputs


def _joined(pieces: Sequence[Sequence[Array] | None], names: Sequence[str]) -> dict[str, Array]:
    known = next((piece for piece in pieces if piece is not None), None)
    if known is None:
        return {}
    filled = [p if p is not None else [np.zeros_like(a[:1]) for a in known] for p in pieces]
    return {
        name: np.concatenate([piece[i] for piece in filled], axis=0) for i, name in enumerate(names)
    }


def measure(backend: Backend, examples: Sequence[Inputs]) -> Latency:
    """Measure runs with one row, over some rows in turn."""
    names = backend.spec.output_names
    times: list[float] = []
    until = time.perf_counter() + LATENCY_SECONDS
    while len(times) < LATENCY_RUNS and (len(times) < FEWEST_RUNS or time.perf_counter() < until):
        inputs = examples[len(times) % len(examples)]
        started = time.perf_counter()
        backend.infer(inputs, names)
        times.append((time.perf_counter() - started) * 1000)
    found = np.array(times)
    p50, p95, p99 = (float(v) for v in np.percentile(found, [50, 95, 99]))
    counts, edges = np.histogram(found, np.linspace(0, max(p99 * 1.05, 1e-6), 25))
    return Latency(
        runs=len(times),
        p50=p50,
        p95=p95,
        p99=p99,
        histogram=tuple((float(e), int(c)) for e, c in zip(edges[1:], counts, strict=True)),
    )
