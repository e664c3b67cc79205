"""`ports.MetricSource` over Prometheus' HTTP API, by way of prometheus-api-client.

An answer is a vector of series, nothing, or an error; a gate must never mistake one for another. What the numbers mean
is for `core.rollout.measurement` to say.
"""

import ast
import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from prometheus_api_client import PrometheusApiClientException, PrometheusConnect
from requests import RequestException
from urllib3.util.retry import Retry

from canarium_operator.core.rollout.queries import Query, Series, Vector
from canarium_operator.errors import MetricSourceError

_THREADS: Final = 8
"""Queries at the same time. The library blocks, so each takes a thread."""
_MAX_SERIES: Final = 10_000
"""Far above what two revisions have, far below what would fill the memory."""
_MAX_MESSAGE: Final = 300
"""Characters of Prometheus' own words."""
_REFUSAL: Final = re.compile(r"HTTP Status Code (\d+) \((b['\"].*['\"])\)\Z", re.DOTALL)


class PrometheusMetrics:
    """A Prometheus, or whatever speaks its query API."""

    def __init__(self, url: str, timeout: timedelta = timedelta(seconds=10)) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: base URL; may carry `user:password@`.
            timeout: for one query, with the wait for a free thread.
        """
        self._timeout = timeout.total_seconds()
        base, auth = _split_credentials(url)
        # No retries of its own: the gate asks again at its next interval, and until then says that it knows nothing.
        self._client = PrometheusConnect(
            url=base, auth=auth, timeout=self._timeout, retry=Retry(total=0)
        )
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="prometheus")

    async def query(self, query: Query) -> Vector:
        """Evaluate an instant query.

        Raises:
            MetricSourceError: no answer in time, a refusal, or an answer that is no instant vector.
        """
        loop = asyncio.get_running_loop()
        params = {"time": f"{query.at.timestamp():.3f}"}
        try:
            # A thread that outlives this wait ends by the library's own timeout, and its answer is dropped.
            answer = loop.run_in_executor(
                self._threads, self._client.custom_query, query.promql, params
            )
            result = await asyncio.wait_for(answer, self._timeout)
        except TimeoutError as error:
            msg = f"no answer within {self._timeout:g} s"
            raise MetricSourceError(msg) from error
        except PrometheusApiClientException as error:
            raise MetricSourceError(_refusal(str(error))) from error
        except RequestException as error:
            msg = f"cannot be reached: {_root_cause(error)}"[:_MAX_MESSAGE]
            raise MetricSourceError(msg) from error
        except (ValueError, KeyError, TypeError) as error:
            msg = "the answer is not Prometheus': check CANARIUM_PROMETHEUS_URL"
            raise MetricSourceError(msg) from error
        return parse_result(result)

    def close(self) -> None:
        """Let go of threads and connections; queries under way are abandoned."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()


def parse_result(result: Any) -> Vector:
    """Read `data.result` of an answer: an instant vector, or a scalar as a vector of one series without labels.

    Raises:
        MetricSourceError: a range, text, or more series than any check could mean.
    """
    if not isinstance(result, list):
        msg = "the answer has no result"
        raise MetricSourceError(msg)
    if len(result) > _MAX_SERIES:
        msg = (
            f"{len(result)} series, where at most {_MAX_SERIES} are read: sum them up in the query"
        )
        raise MetricSourceError(msg)
    if result and not isinstance(result[0], dict):
        return (Series(value=_value(result)),)
    return tuple(
        Series(labels=sample.get("metric") or {}, value=_value(sample.get("value")))
        for sample in result
    )


def _value(sample: Any) -> float:
    try:
        _, text = sample
        return float(text)
    except (TypeError, ValueError) as error:
        msg = "the query gives no number: it must be an instant vector or a scalar, not a range or a string"
        raise MetricSourceError(msg) from error


def _split_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """Take the credentials out of a URL, so that no message or log of a library can show them."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    base = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
    if parts.username is None:
        return base, None
    return base, (unquote(parts.username), unquote(parts.password or ""))


def _refusal(message: str) -> str:
    """Find Prometheus' own words in the library's exception, which quotes the body as Python bytes."""
    match = _REFUSAL.match(message)
    if match is None:
        return message[:_MAX_MESSAGE]
    body: bytes = ast.literal_eval(match[2])
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace")
    return f"refused with {match[1]}: {' '.join(text.split())}"[:_MAX_MESSAGE]


def _root_cause(error: BaseException) -> str:
    """Go to the innermost reason: requests and urllib3 wrap `Connection refused` three times."""
    reason: Any = error
    while True:
        inner = getattr(reason, "reason", None) or (
            reason.args[0] if getattr(reason, "args", None) else None
        )
        if not isinstance(inner, BaseException):
            return str(reason)
        reason = inner
