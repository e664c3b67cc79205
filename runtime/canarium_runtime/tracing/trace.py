"""What is noted of a sampled request on its way, and which requests are sampled. Knows no SDK.

Nothing is made of a span while a request is answered: the stages leave the instants that they have anyway, and the
spans are made when the answer is written.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.tracing.context import TraceContext, parse_context

MAX_RUNS = 16
"""Runs that are noted of one request; a request with more rows than that has more, which are only counted."""
MAX_LINKS = 128
"""Requests that the span of a run is linked to."""
_LOW_63_BITS = (1 << 63) - 1
_TRACE_ID_BITS, _SPAN_ID_BITS = 128, 64


@dataclass(frozen=True, kw_only=True)
class Door:
    """By what protocol requests came, in the words of OpenTelemetry's semantic conventions."""

    name: str
    """Name of the server's spans: `POST /predict`."""
    attributes: Mapping[str, Any]
    """Those that all requests of this door have."""
    status_attribute: str
    """`http.response.status_code`, or what the protocol has in its place."""
    statuses: Mapping[ErrorKind, Any]
    """Its value for each failure."""
    success: Any
    """Its value for an answer."""
    server_errors: Callable[[Any], bool]
    """Whether a status is the server's mistake, not the client's: only then has the span the status Error."""


@dataclass(slots=True, eq=False)
class BatchRun:
    """One run of the model."""

    rows: int
    requests: int
    started_at: float
    """Instant of `time.monotonic()`."""
    seconds: float
    span_id: int
    traces: "list[Trace]" = field(default_factory=list)
    """Sampled requests in it, at most MAX_LINKS; its span is in the trace of the first."""


class Writer(Protocol):
    """Takes what is noted of a request that was answered."""

    def write(self, trace: "Trace") -> None:
        """Take it. Never waits, never raises."""
        ...


@dataclass(slots=True, eq=False)
class Trace:
    """A sampled request."""

    door: Door
    writer: Writer
    trace_id: int
    span_id: int
    """Of the server's own span."""
    parent: TraceContext | None
    arrived_at: float
    """Instant of `time.monotonic()`, as all others."""
    request_id: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Attributes of the model that was asked."""
    rows: int = 0
    queued_at: float = 0.0
    runs: list[BatchRun] = field(default_factory=list)
    more_runs: int = 0
    cache: str = ""
    """`hit`, `joined` an equal request, or `miss`; empty where there is no cache."""
    ended_at: float = 0.0
    error: BaseException | None = None
    fallback: str = ""
    """Who answered in the model's stead."""

    @property
    def id(self) -> str:
        """The trace's id, as logs show it."""
        return f"{self.trace_id:032x}"

    def ran(
        self, run: BatchRun | None, rows: int, requests: int, at: float, secs: float
    ) -> BatchRun:
        """Note a run that the request was in.

        Args:
            run: what another request of the same run was given; None: this is the first.
            rows: rows of the run.
            requests: requests in it.
            at: when it began.
            secs: how long it took.
        """
        if run is None:
            run = BatchRun(rows, requests, at, secs, random.getrandbits(_SPAN_ID_BITS) or 1)
        if len(run.traces) < MAX_LINKS:
            run.traces.append(self)
        if len(self.runs) < MAX_RUNS:
            self.runs.append(run)
        else:
            self.more_runs += 1
        return run

    def end(self, error: BaseException | None, fallback: str, now: float) -> None:
        """Note the end, and hand it on to be written. A second call does nothing."""
        if self.ended_at:
            return
        self.ended_at = now
        self.error = error
        self.fallback = fallback
        self.writer.write(self)

    @property
    def failure(self) -> ErrorKind | None:
        """How it failed, as the client was told; None: it did not."""
        if self.error is None:
            return None
        return self.error.kind if isinstance(self.error, ServingError) else ErrorKind.INTERNAL


class Tracer:
    """Decides which requests are sampled.

    The caller's decision counts where there is one, so that a trace is whole or not at all. Of other requests a part is
    sampled, by chance; the ids are the dice, as OpenTelemetry's own samplers have it.

    Args:
        ratio: of requests without a trace context, 0 to 1.
        writer: takes what was noted.
    """

    def __init__(self, ratio: float, writer: Writer) -> None:
        self._bound = round(ratio * (1 << 63))
        self._writer = writer

    def begin(self, door: Door, traceparent: bytes, tracestate: bytes, now: float) -> Trace | None:
        """Begin the trace of a request; None: it is not sampled.

        Args:
            door: by which it came.
            traceparent: its header, or gRPC metadata, of that name; empty: none.
            tracestate: likewise.
            now: when it came.
        """
        parent = parse_context(traceparent, tracestate) if traceparent else None
        if parent is not None:
            if not parent.sampled:
                return None
            trace_id = parent.trace_id
        else:
            if not self._bound:
                return None
            trace_id = random.getrandbits(_TRACE_ID_BITS) or 1
            if trace_id & _LOW_63_BITS >= self._bound:
                return None
        span_id = random.getrandbits(_SPAN_ID_BITS) or 1
        return Trace(door, self._writer, trace_id, span_id, parent, now)
