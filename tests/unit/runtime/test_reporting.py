"""What the server tells people and the kubelet: health, logs, the termination log, statuses."""

import json
import logging
import sys
from pathlib import Path

import orjson
import pytest

from canarium_api.metric_names import PredictionStatus
from canarium_api.runtime_config import LoadFailure
from canarium_runtime import cgroup, health, termination
from canarium_runtime.errors import ErrorKind, QueueFullError, invalid
from canarium_runtime.logs import JsonFormatter
from canarium_runtime.rest.errors import STATUS_OF_KIND, error_body
from canarium_runtime.service import status_of
from canarium_runtime.testing import make_models


async def test_health_names_each_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ready server with room passes."""
    monkeypatch.setattr(cgroup, "memory_bytes", lambda: (50 << 20, 100 << 20))
    healthy, document = health.report(make_models())
    assert healthy
    assert document["status"] == "pass"
    assert document["checks"]["memory"] == {"status": "pass", "reason": "50 of 100 MiB used"}
    assert document["checks"]["queue"]["reason"] == "0 of at most 512 requests wait"


async def test_health_fails_while_loading() -> None:
    """The reason is the state's."""
    healthy, document = health.report(make_models(serving=False))
    assert not healthy
    assert document["checks"]["model"] == {
        "status": "fail",
        "reason": "Loading: the model is being loaded",
    }


async def test_health_warns_of_memory_and_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly full is a warning, full is a failure."""
    monkeypatch.setattr(cgroup, "memory_bytes", lambda: (95, 100))
    models = make_models(queue_size=10)
    service = models.primary
    assert health.report(models)[1]["status"] == "warn"
    for waiting, status in ((7, "pass"), (8, "warn"), (10, "fail")):
        monkeypatch.setattr(type(service), "waiting", waiting)
        assert health.report(models)[1]["checks"]["queue"]["status"] == status


def record(**extra: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": "n",
            "levelname": "WARNING",
            "msg": "hello %s",
            "args": ("you",),
            "created": 0.5,
            **extra,
        }
    )


def test_a_log_line_is_one_json_object() -> None:
    """Time, level, logger, message and what `extra` holds."""
    line = json.loads(JsonFormatter().format(record(request_id="a", path=Path("/p"))))
    assert line == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "warning",
        "logger": "n",
        "message": "hello you",
        "request_id": "a",
        "path": "/p",
    }


def test_an_exception_stays_on_its_line() -> None:
    """A stack trace does not break the one-line rule."""
    try:
        raise ValueError("x\ny")
    except ValueError:
        text = JsonFormatter().format(record(exc_info=sys.exc_info()))
    assert "\n" not in text
    assert "ValueError" in json.loads(text)["exception"]


def test_the_termination_log_holds_a_load_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator reads what the server writes, cut to what the kubelet passes on."""
    path = tmp_path / "log"
    monkeypatch.setenv(termination.VARIABLE, str(path))
    termination.write(
        LoadFailure(reason="ModelUnreadable", message="ü\u0001" * 5000, permanent=True)
    )
    assert path.stat().st_size <= 4096
    read = LoadFailure.model_validate_json(path.read_bytes())
    assert (read.reason, read.permanent) == ("ModelUnreadable", True)


def test_a_missing_termination_log_is_not_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Outside of a pod there is none."""
    monkeypatch.setenv(termination.VARIABLE, str(tmp_path / "no" / "log"))
    termination.write(LoadFailure(reason="r", message="m"))
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_every_kind_has_a_status_of_its_side(kind: ErrorKind) -> None:
    """Client's mistakes are 4xx and count as invalid; 5xx and a full queue never do."""
    status = STATUS_OF_KIND[kind]
    counted = status_of(invalid("f", "e", "g", kind=kind))
    assert (counted is PredictionStatus.INVALID) == (
        status < 500 and kind is not ErrorKind.QUEUE_FULL
    )


def test_an_unforeseen_exception_counts_as_an_error() -> None:
    """Whatever is not a ServingError is ours."""
    assert status_of(RuntimeError()) is PredictionStatus.ERROR


def test_an_error_body_is_for_people_and_programs() -> None:
    """One sentence, and its parts; absent parts are left out."""
    assert orjson.loads(error_body(invalid("a[1]", "a number", "null"), "id1")) == {
        "error": "a[1]: expected a number, got null",
        "code": "invalid_input",
        "request_id": "id1",
        "field": "a[1]",
        "expected": "a number",
        "got": "null",
    }
    assert set(orjson.loads(error_body(QueueFullError(3), "id1"))) == {
        "error",
        "code",
        "request_id",
    }
