"""`canarium record`: writes what Prometheus knows of a rollout, as the file that `canarium plan` reads."""

import json
import math
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from canarium_api import metric_names
from canarium_api.duration import parse_duration
from canarium_api.metric_names import PredictionStatus
from canarium_api.status import ModelDeploymentStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_cli import options
from canarium_cli.access import AccessError, connect, status_of
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.rollout import promql
from canarium_operator.core.rollout.queries import BASELINE_WINDOW, templates

_SERVED: Final = ("Deployed", "Promoted")
_ENDED: Final = ("Promoted", "RolledBack")
_TIMEOUT: Final = 60
"""Seconds for one query."""
MAX_POINTS: Final = 10_000
"""Points of one query; Prometheus itself refuses more than 11,000."""

Source = Callable[[str], list[tuple[Mapping[str, str], list[tuple[float, float]]]]]
"""PromQL to series: labels, and (Unix time, value) at each step."""


class RecordError(Exception):
    """Nothing can be recorded; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """One rollout: who, and from when to when."""

    canary: str
    stable: str
    start: datetime
    end: datetime


def span_of(status: ModelDeploymentStatus, now: datetime) -> Span:
    """Find the rollout under way, else the latest one that has ended.

    Raises:
        RecordError: there was none.
    """
    if status.canary is not None and status.stable is not None and status.rollout is not None:
        return Span(
            canary=status.canary.revision,
            stable=status.stable.revision,
            start=status.rollout.started_at,
            end=now,
        )
    for index in range(len(status.history) - 1, -1, -1):
        entry = status.history[index]
        before = [e for e in status.history[:index] if e.outcome in _SERVED]
        if entry.outcome in _ENDED and entry.started_at is not None and before:
            return Span(
                canary=entry.revision,
                stable=before[-1].revision,
                start=entry.started_at,
                end=entry.finished_at,
            )
    msg = "no rollout is under way, and none has ended that the history knows of"
    raise RecordError(msg)


def samples_of(
    ref: ObjectRef, spec: ModelDeploymentSpec, span: Span, source: Source, step: timedelta
) -> list[dict[str, Any]]:
    """Make the samples of a rollout, with ten minutes of stable before it.

    What was counted in each step is added up, so that restarts of pods lose nothing.

    Args:
        ref: the ModelDeployment.
        spec: for the queries of its checks.
        span: the rollout.
        source: answers range queries.
        step: time between two samples; at least twice Prometheus' scrape interval.
    """
    roles = {span.stable: "stable", span.canary: "canary"}
    revisions = tuple(roles)
    counts = _table(source(promql.counts_query(ref, revisions, step)), metric_names.STATUS_LABEL)
    buckets = _table(source(promql.buckets_query(ref, revisions, step)), "le")
    values = _values(ref, spec, revisions, source, step)
    samples: list[dict[str, Any]] = []
    for revision, role in roles.items():
        totals: dict[str, float] = defaultdict(float)
        bins: dict[str, float] = defaultdict(float)
        others: dict[str, float] = defaultdict(float)
        moments = sorted(counts[revision])
        if moments:
            # What the first step counted began at nothing; a counter that is seen once tells no increase.
            before = moments[0] - step.total_seconds() - span.start.timestamp()
            samples.append(
                _sample(
                    before, role, {}, dict.fromkeys(buckets[revision].get(moments[0], {}), 0.0), {}
                )
            )
        for at in moments:
            _add(totals, counts[revision][at])
            _add(bins, buckets[revision].get(at, {}))
            gauges = _grown(others, values[revision].get(at, {}))
            samples.append(_sample(at - span.start.timestamp(), role, totals, bins, gauges))
    return sorted(samples, key=lambda sample: (sample["at"], sample["revision"]))


_Table = dict[str, dict[float, dict[str, float]]]
"""Revision, time, and label or name to value."""


def _table(series: list[tuple[Mapping[str, str], list[tuple[float, float]]]], label: str) -> _Table:
    found: _Table = defaultdict(lambda: defaultdict(dict))
    for labels, points in series:
        for at, value in points:
            if math.isfinite(value):
                revision = labels.get(metric_names.REVISION_LABEL, "")
                found[revision][at][labels.get(label, "")] = max(0.0, value)
    return found


def _values(
    ref: ObjectRef,
    spec: ModelDeploymentSpec,
    revisions: tuple[str, ...],
    source: Source,
    step: timedelta,
) -> _Table:
    """Ask for the checks of the user's own."""
    found: _Table = defaultdict(lambda: defaultdict(dict))
    for metric in spec.rollout.analysis.metrics:
        for part, template in templates(metric).items():
            name = metric.name if part == "query" else f"{metric.name}.{part}"
            for revision in revisions:
                series = source(promql.fill(template, ref, revision, step))
                if len(series) != 1:
                    continue  # no data, or no single number: the check will say so
                for at, value in series[0][1]:
                    if math.isfinite(value):
                        found[revision][at][name] = value
    return found


def _add(totals: dict[str, float], step: Mapping[str, float]) -> None:
    for name, value in step.items():
        totals[name] += value


def _grown(totals: dict[str, float], step: Mapping[str, float]) -> dict[str, float]:
    """Add counters (`NAME.part`) up, and leave the numbers of queries as they are."""
    _add(totals, {name: value for name, value in step.items() if "." in name})
    return {**{name: value for name, value in step.items() if "." not in name}, **totals}


def _sample(
    at: float,
    role: str,
    totals: Mapping[str, float],
    bins: Mapping[str, float],
    values: Mapping[str, float],
) -> dict[str, Any]:
    invalid = totals.get(PredictionStatus.INVALID, 0.0)
    failed = sum(totals.get(status, 0.0) for status in metric_names.FAILED_STATUSES)
    ordered = sorted(bins.items(), key=lambda item: float(item[0]))
    highest, cumulative = 0.0, {}
    for bound, count in ordered:
        highest = max(highest, count)
        cumulative["+Inf" if math.isinf(float(bound)) else bound] = round(highest, 3)
    return {
        "at": round(at, 3),
        "revision": role,
        "requests": round(sum(totals.values()) - invalid, 3),
        "errors": round(failed, 3),
        "invalid": round(invalid, 3),
        "latency_seconds_buckets": cumulative,
        "values": dict(values),
    }


def prometheus(url: str, start: datetime, end: datetime, step: timedelta) -> Source:
    """Answer range queries by Prometheus' HTTP API.

    Args:
        url: base URL.
        start: first instant.
        end: last instant that must be covered: the last point is there or less than a step later, as what a rollout was
            decided by came in its last moments.
        step: time between two points.
    """
    end = start + step * math.ceil((end - start) / step)

    def ask(query: str) -> list[tuple[Mapping[str, str], list[tuple[float, float]]]]:
        words = {
            "query": query,
            "start": f"{start.timestamp():.3f}",
            "end": f"{end.timestamp():.3f}",
            "step": f"{step.total_seconds():g}",
        }
        address = f"{url.rstrip('/')}/api/v1/query_range?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:  # noqa: S310 - the user's own URL
                result = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            msg = (
                f"Prometheus refused with {error.code}: {error.read(300).decode(errors='replace')}"
            )
            raise RecordError(msg) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"no answer of Prometheus at --prometheus: {error}"
            raise RecordError(msg) from error
        return [
            (series["metric"], [(float(at), float(value)) for at, value in series["values"]])
            for series in result
        ]

    return ask


def record(
    name: options.Name,
    prometheus_url: Annotated[
        str, typer.Option("--prometheus", help="Base URL of the Prometheus that the gates query.")
    ],
    namespace: options.Namespace = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")] = Path(
        "recorded.json"
    ),
    step: Annotated[
        str, typer.Option(help="Time between samples; at least twice the scrape interval.")
    ] = "30s",
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Write what Prometheus knows of the rollout under way, or of the latest one, for `canarium plan`."""
    space, _, short = name.rpartition("/")
    try:
        access = connect(kubeconfig, context)
        ref = ObjectRef(namespace=space or namespace or access.namespace, name=short)
        body = access.read(ref.namespace, ref.name)
        samples = _recorded(ref, body, prometheus_url, parse_duration(step))
        output.write_text("[\n" + ",\n".join(map(json.dumps, samples)) + "\n]\n", encoding="utf-8")
    except (AccessError, RecordError, ValueError, OSError) as error:
        print(f"canarium record: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(f"{len(samples)} samples in {output}; canarium plan -f mdep.yaml --metrics {output}")


def _recorded(
    ref: ObjectRef, body: dict[str, Any], url: str, step: timedelta
) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    span = span_of(status_of(body), now)
    start = span.start - BASELINE_WINDOW
    spec = ModelDeploymentSpec.from_manifest(body["spec"])
    # A point tells of the step before it, and a plan looks at it at its next check: these still tell of the rollout.
    end = min(span.end + step + spec.rollout.analysis.interval, now)
    if (end - start) / step > MAX_POINTS:
        msg = f"--step is too short for a rollout of {span.end - span.start}: name a longer one"
        raise RecordError(msg)
    samples = samples_of(ref, spec, span, prometheus(url, start, end, step), step)
    if not {"stable", "canary"} <= {sample["revision"] for sample in samples}:
        msg = (
            "Prometheus has no requests of both revisions in that time: is it the one that scrapes them, "
            "and does it keep data for so long?"
        )
        raise RecordError(msg)
    return samples


app = options.new_app()
app.command()(record)


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name=options.program())
    return 0
