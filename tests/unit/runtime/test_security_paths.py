"""What is open to all."""

import pytest

from canarium_api.security_config import OpenPath
from canarium_runtime.security.paths import is_open, kind_of


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/health", OpenPath.HEALTH),
        ("GET", "/health/live", OpenPath.HEALTH),
        ("HEAD", "/v2/health/ready", OpenPath.HEALTH),
        ("GET", "/v2/models/m/ready", OpenPath.HEALTH),
        ("GET", "/v2/models/m/versions/1/ready", OpenPath.HEALTH),
        ("GET", "/metrics", OpenPath.METRICS),
        ("GET", "/v2", OpenPath.METADATA),
        ("GET", "/v2/models/m", OpenPath.METADATA),
        ("GET", "/openapi.json", OpenPath.METADATA),
        ("POST", "/predict", None),
        ("POST", "/v2/models/m/infer", None),
        ("POST", "/v2/health/ready", None),
        ("GET", "/predict/stream", None),
        ("GET", "/jobs/1", None),
        ("GET", "/healthy", None),
        ("GET", "/metrics/../predict", None),
    ],
)
def test_each_path_is_of_one_kind(method: str, path: str, kind: OpenPath | None) -> None:
    """What is of no kind is never open."""
    assert kind_of(method, path) is kind
    assert is_open(method, path, ()) is False
    assert is_open(method, path, tuple(OpenPath)) is (kind is not None)
