"""W3C trace context (https://www.w3.org/TR/trace-context/): reads `traceparent` and `tracestate`. Pure.

Example: `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01` is version 0, a trace id, the span that asks, and the
flag that this trace is recorded.
"""

import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01
_MAX_STATE_BYTES = 512
"""What everybody must pass on; a longer state is dropped whole, as the standard allows."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The span that asks."""

    trace_id: int
    span_id: int
    sampled: bool
    """Whether whoever began the trace records it."""
    state: str = ""
    """The vendors' own list, passed on as it came."""


def parse_context(traceparent: bytes, tracestate: bytes = b"") -> TraceContext | None:
    """Read a request's trace context; None: it has none that is valid, so the request begins a trace.

    A future version is read as far as version 0 goes, and may be longer; the version ff is none.

    Args:
        traceparent: the header; two of them, joined, are none.
        tracestate: all headers of that name, joined by commas.
    """
    match = _TRACEPARENT.fullmatch(traceparent.strip(b" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    trace, span = int(trace_id, 16), int(span_id, 16)
    if not trace or not span:
        return None
    state = tracestate if len(tracestate) <= _MAX_STATE_BYTES and tracestate.isascii() else b""
    return TraceContext(trace, span, bool(int(flags, 16) & _SAMPLED), state.decode("ascii"))
