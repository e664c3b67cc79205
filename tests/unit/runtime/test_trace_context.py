"""Which trace a request belongs to, and which requests are sampled."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_runtime.errors import ErrorKind
from canarium_runtime.tracing.context import TraceContext, parse_context
from canarium_runtime.tracing.trace import MAX_LINKS, MAX_RUNS, BatchRun, Door, Trace, Tracer

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = TraceContext(int(TRACE, 16), int(SPAN, 16), True)
NOT_SAMPLED = TraceContext(int(TRACE, 16), int(SPAN, 16), False)
DOOR = Door(
    name="POST /predict",
    attributes={},
    status_attribute="http.response.status_code",
    statuses=dict.fromkeys(ErrorKind, 500),
    success=200,
    server_errors=lambda status: status >= 500,
)


class Written:
    def __init__(self) -> None:
        self.traces: list[Trace] = []

    def write(self, trace: Trace) -> None:
        self.traces.append(trace)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"00-{TRACE}-{SPAN}-01", SAMPLED),
        (f"00-{TRACE}-{SPAN}-00", NOT_SAMPLED),
        (f"00-{TRACE}-{SPAN}-03", SAMPLED),  # more flags
        (f"00-{TRACE}-{SPAN}-02", NOT_SAMPLED),
        (f" 00-{TRACE}-{SPAN}-01\t", SAMPLED),
        (f"cc-{TRACE}-{SPAN}-01", SAMPLED),  # a future version
        (f"cc-{TRACE}-{SPAN}-01-what-will-be", SAMPLED),
        (f"cc-{TRACE}-{SPAN}-01.what", None),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE[:-1]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"00-{TRACE}-{SPAN}-1", None),
        (f"00-{TRACE}-{SPAN}-0g", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        (f"00-{TRACE}-{SPAN}-0100-{TRACE}-{SPAN}-01", None),  # the header twice
        ("", None),
        ("x" * 10_000, None),
    ],
)
def test_a_traceparent_is_read_as_the_standard_says(
    header: str, expected: TraceContext | None
) -> None:
    """What is not valid is as if there were none."""
    assert parse_context(header.encode()) == expected


@given(st.binary(max_size=80))
def test_no_header_breaks_the_reader(header: bytes) -> None:
    """Whatever comes, it is a context or none."""
    found = parse_context(header, header)
    assert found is None or (found.trace_id and found.span_id)


@pytest.mark.parametrize(
    ("state", "kept"), [(b"a=1,b=2", "a=1,b=2"), (b"a=" + b"x" * 600, ""), (b"\xff", "")]
)
def test_a_state_is_passed_on_unless_it_is_too_long(state: bytes, kept: str) -> None:
    """The trace itself is not lost with it."""
    found = parse_context(f"00-{TRACE}-{SPAN}-01".encode(), state)
    assert found is not None
    assert (found.sampled, found.state) == (True, kept)


@pytest.mark.parametrize(
    ("ratio", "header", "sampled"),
    [
        (0.0, f"00-{TRACE}-{SPAN}-01", True),
        (1.0, f"00-{TRACE}-{SPAN}-00", False),
        (0.0, "", False),
        (1.0, "", True),
        (0.0, "nonsense", False),
        (1.0, "nonsense", True),
    ],
)
def test_the_callers_decision_counts_where_there_is_one(
    ratio: float, header: str, sampled: bool
) -> None:
    """Else the ratio does."""
    trace = Tracer(ratio, Written()).begin(DOOR, header.encode(), b"", 1.0)
    assert (trace is not None) is sampled
    if trace is not None and header.startswith("00-"):
        assert (trace.id, trace.parent) == (TRACE, SAMPLED)
        assert trace.span_id not in (0, SAMPLED.span_id)


def test_about_the_ratio_of_requests_is_sampled() -> None:
    """Of 4000 by a quarter: within six deviations."""
    tracer = Tracer(0.25, Written())
    count = sum(tracer.begin(DOOR, b"", b"", 1.0) is not None for _ in range(4000))
    assert 835 < count < 1165


def make_trace(**more: Any) -> Trace:
    trace = Tracer(1.0, more.pop("writer", Written())).begin(DOOR, b"", b"", 1.0)
    assert trace is not None
    return trace


def test_what_is_noted_is_bounded() -> None:
    """A request of many runs, and a run of many requests."""
    trace = make_trace()
    for at in range(MAX_RUNS + 3):
        trace.ran(None, 1, 1, float(at), 0.1)
    assert (len(trace.runs), trace.more_runs) == (MAX_RUNS, 3)
    run: BatchRun | None = None
    for _ in range(MAX_LINKS + 5):
        run = make_trace().ran(run, 200, 200, 1.0, 0.1)
    assert run is not None
    assert len(run.traces) == MAX_LINKS


def test_a_trace_is_written_once() -> None:
    """Its end is its first end."""
    written = Written()
    trace = make_trace(writer=written)
    trace.end(None, "", 2.0)
    trace.end(ValueError(), "other", 3.0)
    assert [(t.ended_at, t.error, t.fallback) for t in written.traces] == [(2.0, None, "")]
