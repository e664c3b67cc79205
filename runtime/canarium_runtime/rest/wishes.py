"""What a request says about its turn, in headers or in V2's `parameters`: how urgent it is, how long its client waits.

`priority` and `timeout` of `parameters` are those of the schedule policy extension: a whole number with 0 for the
default and 1 for the highest, and microseconds. The header with the client's patience is the one that Envoy, and the
gateways made of it, add to each request by themselves: what their route still allows, in milliseconds.
"""

from dataclasses import dataclass
from typing import Any

from canarium_runtime.batching.policy import HIGH, LOW, NORMAL
from canarium_runtime.errors import ErrorKind, ServingError, invalid
from canarium_runtime.validation import malformed

PRIORITY = b"x-canarium-priority"
TIMEOUT = b"x-envoy-expected-rq-timeout-ms"
_NAMED = {b"high": HIGH, b"normal": NORMAL, b"low": LOW}
_NUMBERED = (None, HIGH, NORMAL, LOW)
_MAX_DIGITS = 18
_MAX_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request says about its turn; None: nothing."""

    priority: int | None = None
    """HIGH, NORMAL or LOW of `batching.policy`."""
    timeout_seconds: float | None = None
    """From its arrival."""


def wishes_of_headers(priority: bytes, timeout: bytes) -> Wishes | ServingError:
    """Read the headers' values; empty ones are absent. What is wrong comes as the error for the client."""
    level = _NAMED.get(priority.lower())
    if priority and level is None:
        return _wrong("X-Canarium-Priority", "high, normal or low", priority)
    if timeout and not (timeout.isdigit() and len(timeout) <= _MAX_DIGITS):
        return _wrong("X-Envoy-Expected-Rq-Timeout-Ms", "a whole number of milliseconds", timeout)
    milliseconds = int(timeout) if timeout else 0
    return Wishes(level, milliseconds / 1e3 if milliseconds else None)


def wishes_of_parameters(parameters: Any) -> Wishes | None:
    """Read V2's `parameters` of a request; 0 is as good as absent.

    Raises:
        ServingError: MALFORMED.
    """
    if parameters is None:
        return None
    if type(parameters) is not dict:
        raise malformed("parameters", "an object", parameters)
    level = parameters.get("priority")
    if level is not None and (type(level) is not int or not 0 <= level < len(_NUMBERED)):
        expected = "0 (default), 1 (high), 2 (normal) or 3 (low)"
        raise malformed("parameters.priority", expected, level)
    microseconds = parameters.get("timeout")
    if microseconds is not None and (type(microseconds) is not int or microseconds < 0):
        raise malformed("parameters.timeout", "a whole number of microseconds", microseconds)
    if not level and not microseconds:
        return None
    return Wishes(_NUMBERED[level or 0], microseconds / 1e6 if microseconds else None)


def _wrong(field: str, expected: str, value: bytes) -> ServingError:
    return invalid(
        field, expected, repr(value.decode("latin-1")[:_MAX_SHOWN]), kind=ErrorKind.MALFORMED
    )
