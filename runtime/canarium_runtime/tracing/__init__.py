"""Distributed tracing of predictions: W3C trace context in, OpenTelemetry spans out.

    context.py     which trace a request belongs to: reads the headers. Pure.
    trace.py       what is noted of a sampled request on its way, and when a request is sampled. No SDK.
    spans.py       makes spans of it after the answer, and exports them by OTLP; only this imports OpenTelemetry.
    exposition.py  the series.

A request that is not sampled has no `Trace`, so all that its way costs is a look whether there is one.
"""
