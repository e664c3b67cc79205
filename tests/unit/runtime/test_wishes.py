"""What a request says about its turn: how it is read, who may say it, and what comes of it."""

import json
from typing import Any

import pytest

from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.batching.policy import HIGH, LOW, NORMAL
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.rest.http import read_head
from canarium_runtime.rest.wishes import Wishes, wishes_of_headers, wishes_of_parameters
from canarium_runtime.testing import make_service


@pytest.mark.parametrize(
    ("priority", "timeout", "expected"),
    [
        (b"high", b"", Wishes(HIGH, None)),
        (b"Normal", b"", Wishes(NORMAL, None)),
        (b"low", b"250", Wishes(LOW, 0.25)),
        (b"", b"15000", Wishes(None, 15.0)),
        (b"", b"0", Wishes(None, None)),
        (b"highest", b"", "X-Canarium-Priority"),
        (b"1", b"", "X-Canarium-Priority"),
        (b"", b"-1", "X-Envoy-Expected-Rq-Timeout-Ms"),
        (b"", b"1.5", "X-Envoy-Expected-Rq-Timeout-Ms"),
        (b"", b"9" * 40, "X-Envoy-Expected-Rq-Timeout-Ms"),
        (b"low", b"soon", "X-Envoy-Expected-Rq-Timeout-Ms"),
    ],
)
def test_headers_are_read(priority: bytes, timeout: bytes, expected: Wishes | str) -> None:
    """What is wrong names the header."""
    found = wishes_of_headers(priority, timeout)
    if isinstance(expected, str):
        assert isinstance(found, ServingError)
        assert (found.kind, found.field) == (ErrorKind.MALFORMED, expected)
    else:
        assert found == expected


def test_without_such_headers_there_is_nothing_to_look_at() -> None:
    """The common request pays for none of it."""
    assert read_head([(b"content-length", b"5")]).wishes is None


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (None, None),
        ({}, None),
        ({"binary_data_output": True}, None),
        ({"priority": 0, "timeout": 0}, None),
        ({"priority": 1}, Wishes(HIGH, None)),
        ({"priority": 2}, Wishes(NORMAL, None)),
        ({"priority": 3, "timeout": 1500}, Wishes(LOW, 0.0015)),
        ({"timeout": 2_000_000}, Wishes(None, 2.0)),
        ([], "parameters"),
        ({"priority": 4}, "parameters.priority"),
        ({"priority": -1}, "parameters.priority"),
        ({"priority": True}, "parameters.priority"),
        ({"priority": "1"}, "parameters.priority"),
        ({"timeout": -1}, "parameters.timeout"),
        ({"timeout": 1.5}, "parameters.timeout"),
    ],
)
def test_parameters_are_read(parameters: Any, expected: Wishes | str | None) -> None:
    """What is wrong names the field."""
    if isinstance(expected, str):
        with pytest.raises(ServingError) as caught:
            wishes_of_parameters(parameters)
        assert (caught.value.kind, caught.value.field) == (ErrorKind.MALFORMED, expected)
    else:
        assert wishes_of_parameters(parameters) == expected


@pytest.mark.parametrize(
    ("settings", "granted"),
    [
        ({}, False),
        ({"allow_high_priority": True}, True),
        ({"api_keys_path": "/keys"}, True),
        ({"api_keys_path": "/keys", "anonymous": True}, False),
        ({"api_keys_path": "/keys", "allow_high_priority": False}, False),
    ],
)
async def test_only_known_clients_pass_others_unless_the_settings_say_otherwise(
    settings: dict[str, Any], granted: bool
) -> None:
    """Whoever waits behind others by its own wish harms nobody, so low priority is for all."""
    prediction = make_service(**settings).admit()
    prediction.want(LOW, None)
    assert prediction.priority == LOW
    if granted:
        prediction.want(HIGH, None)
        assert prediction.priority == HIGH
        return
    with pytest.raises(ServingError) as caught:
        prediction.want(HIGH, None)
    assert caught.value.kind is ErrorKind.FORBIDDEN
    assert prediction.priority == LOW


async def test_a_timeout_only_ever_shortens_what_a_request_has() -> None:
    """The least of the server's, the header's and the body's counts."""
    prediction = make_service(request_timeout="10s").admit()
    prediction.want(None, 3600.0)
    assert prediction.deadline == pytest.approx(prediction.admitted_at + 10)
    prediction.want(None, 5.0)
    prediction.want(None, 7.0)
    assert prediction.deadline == pytest.approx(prediction.admitted_at + 5)
    with pytest.raises(ServingError) as caught:
        prediction.want(None, 1e-9)
    assert caught.value.kind is ErrorKind.DEADLINE


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [
        ([4, 8, 16], True),
        ([16], True),
        ([8, 4], False),
        ([4, 4], False),
        ([17], False),
        ([0], False),
    ],
)
def test_preferred_sizes_rise_up_to_the_most_rows(sizes: list[int], fits: bool) -> None:
    """Else the server does not start, and says why."""
    environment = {
        "CANARIUM_MODEL_URI": "file:///m.onnx",
        "CANARIUM_MAX_BATCH_SIZE": "16",
        "CANARIUM_PREFERRED_BATCH_SIZES": json.dumps(sizes),
    }
    if fits:
        assert list(RuntimeConfig.from_env(environment).preferred_batch_sizes) == sizes
    else:
        with pytest.raises(ValueError, match=r"PREFERRED_BATCH_SIZES|preferred_batch_sizes"):
            RuntimeConfig.from_env(environment)
