"""`canarium describe` and `canarium history`: the commands around the story."""

import json

import pytest
import yaml
from tests.unit.cli.api_server import ApiServer, event, run
from tests.unit.cli.films import situation


def test_describe_reads_pods_and_events_besides(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Events oldest first, whatever order the API server gives."""
    server.events = [event("StepStarted", "later", 30), event("RolloutStarted", "earlier", 5)]
    assert run("describe", "ml/fraud") == 0
    out = capsys.readouterr().out
    assert out.index("earlier") < out.index("later")
    for pod in ("fraud-6a7e947dbc-7d9f-a6a7e", "fraud-26cfa01c6c-7d9f-a26cf"):
        assert pod in out
    asked = [path for path in server.asked if "/events?" in path]
    assert "involvedObject.name%3Dfraud" in asked[0]


def test_programs_get_the_object(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    """As kubectl gives it; other forms there are not."""
    assert run("describe", "fraud", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "ModelDeployment"
    assert run("describe", "fraud", "-o", "wide") == 2


def test_history_shows_endings_and_what_failed_with_its_checks(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says how to try again."""
    server.world = situation("08-failed-and-serving")
    assert run("history", "fraud") == 0
    out = capsys.readouterr().out
    for words in ("Deployed", "RolledBack", "AnalysisFailed", "+19.9%", "canarium retry NAME"):
        assert words in out
    assert run("history", "fraud", "-o", "yaml", "--limit", "1") == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert [entry["outcome"] for entry in found["history"]] == ["RolledBack"]
    assert found["failedRevisions"][0]["reason"] == "AnalysisFailed"


def test_a_history_without_endings_says_so(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty table would look like an error."""
    server.world = situation("01-loading")
    server.operates = False
    assert run("history", "fraud") == 0
    assert capsys.readouterr().out == "no rollout has ended yet\n"
