"""`spec.serving.tracing`: which requests leave a trace, and where it goes."""

from pydantic import Field

from canarium_api.base import ApiModel


class TracingSpec(ApiModel):
    """Traces of requests, for a collector of OpenTelemetry."""

    endpoint: str = Field(max_length=1024, pattern=r"^https?://[^\s/@]+(/\S*)?$")
    """Where the collector takes OTLP over HTTP: `http://HOST:4318`, or the whole URL; without a password."""
    ratio: float = Field(default=0.01, ge=0, le=1)
    """Part of the requests without a `traceparent` that is traced; with one, its own flag decides."""
