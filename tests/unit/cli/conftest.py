"""A server for the commands that talk to a cluster, and a kubeconfig that leads to it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.api_server import ApiServer, serving, write_kubeconfig

from canarium_operator.testing.scenario import Scenario, make_spec

STEPS = [{"weight": 10, "pause": "1m", "approval": True}, {"weight": 50, "pause": "1m"}]


def during_a_rollout() -> Scenario:
    """Version 2 is a canary at its first step, which needs an approval."""
    parts: dict[str, Any] = {"canary": {"steps": STEPS}, "analysis": {"metrics": []}}
    return Scenario().settle().change(make_spec("2", rollout=parts)).settle()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """An API server with a rollout under way, and a kubeconfig that leads to it."""
    found = ApiServer(during_a_rollout())
    config = str(write_kubeconfig(tmp_path / "config", found.url))
    monkeypatch.setattr("canarium_cli.commands._POLL", 0.0)
    monkeypatch.setenv("KUBECONFIG", config)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", config)
    monkeypatch.setenv("COLUMNS", "160")
    with serving(found):
        yield found
