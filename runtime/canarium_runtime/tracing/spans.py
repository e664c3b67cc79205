"""Spans of answered requests, by OpenTelemetry's SDK, and their export by OTLP over HTTP.

Requests hand over what they noted; at the end of that turn of the event loop, when their answers are written, spans are
made of it. The SDK's thread sends them. Whatever the collector does, a request never waits: what does not fit into the
bounds, or could not be sent, is dropped and counted.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.span import TraceState
from opentelemetry.trace.status import Status, StatusCode
from prometheus_client import Metric

from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.tracing import exposition
from canarium_runtime.tracing.trace import BatchRun, Trace
from canarium_runtime.version import server_version

_log = logging.getLogger(__name__)
_MAX_WAITING_SPANS = 2048
_SPANS_AN_EXPORT = 512
_MAX_TURN = 256
"""Requests that are made spans of in one turn of the loop; more are dropped."""
_EXPORT_TIMEOUT_SECONDS = 5
_LINGER_MILLISECONDS = 2000
"""Longest that a server which ends tries to send what is left."""
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_EMPTY = Context()
"""Not that of whoever runs just now."""
_K8S = {
    "K8S_POD_NAME": "k8s.pod.name",
    "K8S_NAMESPACE_NAME": "k8s.namespace.name",
    "K8S_NODE_NAME": "k8s.node.name",
}


def resource_of(config: RuntimeConfig, environment: Mapping[str, str] = os.environ) -> Resource:
    """Say whose spans these are; `OTEL_RESOURCE_ATTRIBUTES` adds to it."""
    namespace, _, name = config.deployment.rpartition("/")
    given = {key: environment[v] for v, key in _K8S.items() if environment.get(v)}
    instance = environment.get("K8S_POD_NAME") or environment.get("HOSTNAME")
    return Resource.create(
        {
            "service.name": name,
            **({"service.namespace": namespace} if namespace else {}),
            "service.version": config.revision,
            **({"service.instance.id": instance} if instance else {}),
            "process.pid": os.getpid(),  # a pod may have several
            "canarium.server.version": server_version(),
            **given,
        }
    )


class _GivenIds(IdGenerator):
    """Ids that were given out before there was a span: logs and links name them."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _Counting(SpanExporter):
    """Counts what another exporter is given, and what it could not send."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.taken = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        try:
            result = self._inner.export(spans)
        except Exception:
            self.failed += len(spans)
            raise
        if result is not SpanExportResult.SUCCESS:
            self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


class SpanWriter:
    """See the module; a `Writer`. Call on the event loop.

    Args:
        exporter: where spans go.
        resource: whose they are.
    """

    def __init__(self, exporter: SpanExporter, resource: Resource) -> None:
        self._exporter = _Counting(exporter)
        self._ids = _GivenIds()
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=_MAX_WAITING_SPANS,
            max_export_batch_size=_SPANS_AN_EXPORT,
        )
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=resource,
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("canarium_runtime", server_version())
        self._ended: list[Trace] = []
        self._handed = 0
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Spans that did not fit, or could not be sent."""
        return self._dropped + self._exporter.failed

    def families(self, identity: Sequence[str]) -> Iterator[Metric]:
        """Give the series."""
        return exposition.families(self.dropped, identity)

    def write(self, trace: Trace) -> None:
        """See `Writer`."""
        if len(self._ended) >= _MAX_TURN:
            self._dropped += 1
            return
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._make_all)
        self._ended.append(trace)

    async def close(self) -> None:
        """Send what is left, within a bound."""
        self._make_all()
        await asyncio.to_thread(self._processor.force_flush, _LINGER_MILLISECONDS)
        await asyncio.to_thread(self._provider.shutdown)

    def _make_all(self) -> None:
        ended, self._ended = self._ended, []
        # Spans have the time of the day; the clock may have been set since the last turn.
        offset = time.time_ns() - time.monotonic_ns()
        for trace in ended:
            if self._handed - self._exporter.taken > _MAX_WAITING_SPANS - 2 - 2 * len(trace.runs):
                self._dropped += 2 + len(trace.runs)
                continue
            try:
                self._make(trace, offset)
            except Exception:  # noqa: BLE001 - logged
                _log.exception(
                    "a trace could not be written", extra={"request_id": trace.request_id}
                )

    def _make(self, trace: Trace, offset: int) -> None:
        """Make the spans of one request."""
        door = trace.door
        attributes = {**door.attributes, **trace.model, "canarium.request.id": trace.request_id}
        failure = trace.failure
        status = door.success
        if failure is not None:
            attributes["error.type"] = failure.value
            status = door.statuses[failure]
        attributes[door.status_attribute] = status
        more = {
            "canarium.rows": trace.rows,
            "canarium.cache": trace.cache,
            "canarium.fallback": trace.fallback,
        }
        attributes |= {key: value for key, value in more.items() if value}
        if trace.runs:
            attributes["canarium.batch.size"] = trace.runs[0].rows
            attributes["canarium.batch.count"] = len(trace.runs) + trace.more_runs
        parent = None
        if trace.parent is not None:
            parent = _context(trace.trace_id, trace.parent.span_id, trace.parent.state, remote=True)
        span = self._span(
            trace, door.name, trace.span_id, parent, trace.arrived_at, trace.ended_at, offset,
            attributes, kind=SpanKind.SERVER,
            failed=failure is not None and door.server_errors(status),
        )  # fmt: skip
        if trace.queued_at:
            until = trace.runs[0].started_at if trace.runs else trace.ended_at
            self._span(trace, "queue", 0, span, trace.queued_at, until, offset, {})
        for run in trace.runs:
            self._run(trace, run, span, offset)

    def _run(self, trace: Trace, run: BatchRun, parent: SpanContext, offset: int) -> None:
        """Make the span of a run, once; the other requests in it have one that links to that."""
        attributes = {"canarium.batch.size": run.rows, "canarium.batch.requests": run.requests}
        ends = run.started_at + run.seconds
        first = run.traces[0]
        if trace is first:
            links = [Link(_context(t.trace_id, t.span_id)) for t in run.traces]
            name, span_id = "run batch", run.span_id
        else:
            links = [Link(_context(first.trace_id, run.span_id))]
            name, span_id = "run in batch", 0
        self._span(
            trace, name, span_id, parent, run.started_at, ends, offset, attributes, links=links
        )

    def _span(
        self,
        trace: Trace,
        name: str,
        span_id: int,
        parent: SpanContext | None,
        starts: float,
        ends: float,
        offset: int,
        attributes: Mapping[str, Any],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[Link] = (),
        failed: bool = False,
    ) -> SpanContext:
        ids = self._ids
        ids.trace_id = trace.trace_id
        ids.span_id = span_id or _fresh_id()
        around = _EMPTY if parent is None else set_span_in_context(NonRecordingSpan(parent), _EMPTY)
        span = self._tracer.start_span(
            name,
            around,
            kind=kind,
            attributes=attributes,
            links=links,
            start_time=_nanoseconds(starts) + offset,
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(_nanoseconds(max(starts, ends)) + offset)
        self._handed += 1
        return span.get_span_context()


def _fresh_id() -> int:
    return random.getrandbits(64) or 1


def _nanoseconds(instant: float) -> int:
    return round(instant * 1e9)


def _context(trace_id: int, span_id: int, state: str = "", *, remote: bool = False) -> SpanContext:
    given = TraceState.from_header([state]) if state else None
    return SpanContext(trace_id, span_id, remote, _SAMPLED, given)


def make_writer(config: RuntimeConfig) -> SpanWriter:
    """Make what sends spans to the collector that the settings name; only where they name one."""
    assert config.tracing_endpoint is not None  # noqa: S101 - for the type checker
    exporter = OTLPSpanExporter(
        endpoint=traces_url(config.tracing_endpoint), timeout=_EXPORT_TIMEOUT_SECONDS
    )
    return SpanWriter(exporter, resource_of(config))


def traces_url(endpoint: str) -> str:
    """Give the URL that spans are posted to: a collector's address alone means its usual path."""
    scheme, _, rest = endpoint.partition("://")
    host, _, path = rest.partition("/")
    return endpoint if path else f"{scheme}://{host}/v1/traces"
