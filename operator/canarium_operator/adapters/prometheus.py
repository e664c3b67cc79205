"""`ports.MetricSource` over Prometheus' HTTP API, by way of prometheus-api-client.

An answer is one finite number, nothing, or an error; a gate must never mistake one for another. No series and NaN (0
/ 0: no requests) are nothing. An infinite value is an error, since it comes from a division by zero and compares as
"above" or "below" whatever was meant.
"""

import ast
import asyncio
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from prometheus_api_client import PrometheusApiClientException, PrometheusConnect
from requests import RequestException
from urllib3.util.retry import Retry

from canarium_operator.errors import MetricSourceError

_THREADS: Final = 8
"""Queries at the same time. The library blocks, so each takes a thread."""
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

    async def query(self, promql: str, at: datetime) -> float | None:
        """Evaluate an instant query.

        Raises:
            MetricSourceError: no answer in time, a refusal, or an answer that is not one finite number.
        """
        loop = asyncio.get_running_loop()
        params = {"time": f"{at.timestamp():.3f}"}
        try:
            # A thread that outlives this wait ends by the library's own timeout, and its answer is dropped.
            answer = loop.run_in_executor(self._threads, self._client.custom_query, promql, params)
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


def parse_result(result: Any) -> float | None:
    """Read `data.result` of an answer: a vector of one series, or a scalar.

    Raises:
        MetricSourceError: several series, a range, text, or an infinite value.
    """
    if not isinstance(result, list):
        msg = "the answer has no result"
        raise MetricSourceError(msg)
    if not result:
        return None
    sample: Any = result
    if isinstance(result[0], dict):
        if len(result) > 1:
            msg = f"{len(result)} series where one number is needed: wrap the query in sum(...), avg(...) or max(...)"
            raise MetricSourceError(msg)
        sample = result[0].get("value")
    try:
        _, text = sample
        value = float(text)
    except (TypeError, ValueError) as error:
        msg = "the query gives no number: it must be an instant vector or a scalar, not a range or a string"
        raise MetricSourceError(msg) from error
    if math.isinf(value):
        msg = f"the query gives {value:+}: it divides by zero; guard the divisor with (... > 0)"
        raise MetricSourceError(msg)
    return None if math.isnan(value) else value


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
