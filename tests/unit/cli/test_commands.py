"""The verbs of the command line, against an API server on loopback that plays the operator, too."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.api_server import ApiServer, run

from canarium_api.commands import signature
from canarium_operator.core.rollout.commands import parse
from canarium_operator.testing.scenario import Scenario, make_spec


def test_a_command_is_one_annotation_with_who_when_and_for_what(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else is written: the right to patch ModelDeployments is enough."""
    assert run("approve", "fraud", "-m", "as agreed") == 0
    [(kind, patch)] = server.patches
    assert kind == "application/merge-patch+json"
    assert list(patch["metadata"]["annotations"]) == ["canarium.dev/approve"]
    command = parse("approve", patch["metadata"]["annotations"]["canarium.dev/approve"])
    assert server.world.status.canary is not None
    assert (command.by, command.step, command.note) == ("alice@example.com", 1, "as agreed")
    assert server.world.status.canary.revision.startswith(command.revision)
    out = capsys.readouterr().out
    assert "approved by alice@example.com (as agreed)" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("pause", "ml/fraud"), "held at 10% by alice@example.com"),
        (("skip", "fraud", "-n", "ml", "--step", "1"), "step 1/3 of v2@6a7e947d skipped by alice"),
        (("abort", "fraud"), "aborted by alice@example.com at 10%"),
        (("promote", "fraud"), "goes to 100% without further checks, promoted by alice"),
    ],
)
def test_each_verb_does_what_it_says(
    server: ApiServer, words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 0, and the operator's own words."""
    assert run(*words) == 0
    assert says in capsys.readouterr().out
    assert server.world.status.actions[-1].verb == words[0]


@pytest.mark.parametrize(("verb", "step"), [("abort", None), ("pause", None), ("skip", 1)])
def test_only_what_is_meant_for_a_step_names_it(
    server: ApiServer, verb: str, step: int | None
) -> None:
    """An abort must not miss because the next step has begun meanwhile."""
    assert run(verb, "fraud") == 0
    [(_, patch)] = server.patches
    assert parse(verb, patch["metadata"]["annotations"][f"canarium.dev/{verb}"]).step == step


def test_a_refused_command_is_an_error_in_the_operators_words(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when an earlier command of the same kind was carried out."""
    assert run("approve", "fraud") == 0
    assert run("approve", "fraud") == 1
    assert "step 1 is approved already" in capsys.readouterr().err
    assert run("skip", "fraud", "--step", "2") == 1
    assert "names step 2, but step 1 is under way" in capsys.readouterr().err


def test_what_somebody_else_did_a_moment_before_is_not_taken_for_the_answer(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bob's skip was carried out, so that of alice, for the step that she saw, is refused; she is told so."""
    patched = server.patched

    def after_bob(kind: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        server.world = replace(server.world, commands={"skip": "bob 1"}).step()
        return patched(kind, body)

    server.patched = after_bob  # type: ignore[method-assign]
    assert run("skip", "fraud") == 1
    told = capsys.readouterr()
    assert "skipped by bob" not in told.out
    assert told.err


def test_without_a_rollout_nothing_is_asked_and_the_state_is_told(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command must not wait for the next rollout."""
    server.world = Scenario().settle()
    assert run("abort", "fraud") == 1
    assert "no rollout is under way; ml/fraud is Promoted: v1@" in capsys.readouterr().err
    assert server.patches == []


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        (
            "other",
            0,
            "ModelDeployment ml/other does not exist: check the name, and the namespace",
        ),
        ("fraud", 403, "not allowed: etcd is on fire"),
        ("fraud", 500, "500: etcd is on fire"),
    ],
)
def test_what_the_api_server_refuses_is_explained(
    server: ApiServer, name: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a traceback."""
    server.broken = code
    assert run("pause", name) == 1
    assert words in capsys.readouterr().err
    assert run("status", name) == 1


def test_an_operator_that_is_away_is_not_waited_for_for_ever(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command stays set; how to take it back is told."""
    server.operates = False
    assert run("abort", "fraud", "--wait", "0.05") == 1
    err = capsys.readouterr().err
    assert "has not answered within 0.05 s" in err
    assert "kubectl annotate mdep fraud -n ml canarium.dev/abort-" in err
    assert run("abort", "fraud", "--wait", "0") == 0


def test_a_message_that_would_be_cut_is_refused(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is recorded is what was written."""
    assert run("abort", "fraud", "-m", "x" * 61) == 2
    assert "at most 60" in capsys.readouterr().err
    assert server.patches == []


def test_the_longest_command_fits_into_what_the_operator_reads(server: ApiServer) -> None:
    """Or the operator would note another value than the one that is waited for."""
    server.user = "arn:aws:sts::123456789012:assumed-role/" + "x" * 200
    assert run("approve", "fraud", "-m", "y" * 60) == 0


@pytest.mark.parametrize(
    ("user", "by"),
    [
        ("alice@example.com", "alice@example.com"),
        ("kubernetes admin", "kubernetes_admin"),
        ("system:serviceaccount:ci:deployer", "system:serviceaccount:ci:deployer"),
        ("4711", "user:4711"),
        ("Jörg=x", "J_rg_x"),
    ],
)
def test_every_user_has_a_name_that_the_operator_reads(user: str, by: str) -> None:
    """One word, whatever the identity provider calls people."""
    assert signature(user) == by
    assert parse("abort", f"{signature(user)} 2026-01-01T00:00:00Z").by == by


def test_without_a_kubeconfig_the_remedy_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is named by an option."""
    assert run("pause", "fraud", "--kubeconfig", str(tmp_path / "none")) == 1
    assert "Name one with --kubeconfig FILE" in capsys.readouterr().err


def test_status_shows_where_it_stands(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Phase, message, both revisions, and who did what; or everything as JSON."""
    assert run("pause", "fraud") == 0
    capsys.readouterr()
    assert run("status", "ml/fraud") == 0
    out = capsys.readouterr().out
    for words in ("ml/fraud  Paused", "paused by alice@example.com", "canary", "10%", "pause: v2@"):
        assert words in out
    assert run("status", "fraud", "--json") == 0
    assert json.loads(capsys.readouterr().out)["phase"] == "Paused"


def test_status_shows_the_checks(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    """With what each says."""
    server.world = Scenario().settle().change(make_spec("2")).settle().later(31).settle()
    assert run("status", "fraud") == 0
    out = capsys.readouterr().out
    assert "error-rate" in out
    assert "Pass" in out
