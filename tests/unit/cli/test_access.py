"""What goes wrong between a user and a cluster is said in words, with the remedy."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.cli.api_server import ApiServer, run, write_kubeconfig
from tests.unit.cli.test_get import other


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on standard error, on one line."""
    return " ".join(capsys.readouterr().err.split())


def test_a_cluster_without_canarium_says_how_to_install_it(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that it may be another cluster than was meant."""
    server.installed = False
    assert run("get") == 1
    words = said(capsys)
    assert "does not know ModelDeployments (modeldeployments.canarium.dev)" in words
    assert "docs/howto/install.md" in words
    assert run("describe", "fraud") == 1
    assert "kubectl apply --server-side -k crds" in said(capsys)


@pytest.mark.parametrize(
    ("verb", "command", "remedy"),
    [
        ("get", ("describe", "fraud"), "missing: the verb get on modeldeployments.canarium.dev -n ml; the role view"),
        ("list", ("get", "-A"), "missing: the verb list on modeldeployments.canarium.dev in all namespaces"),
        ("patch", ("abort", "fraud"), "missing: the verb patch on modeldeployments.canarium.dev -n ml; the roles edit"),
    ],
)  # fmt: skip
def test_who_may_not_is_told_what_right_is_missing(
    server: ApiServer,
    verb: str,
    command: tuple[str, ...],
    remedy: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Verb, resource and namespace, as a Role needs them; and the server's own words."""
    server.forbidden = {(verb, "modeldeployments")}
    assert run(*command) == 1
    words = said(capsys)
    assert 'User "bob" cannot' in words
    assert remedy in words


def test_names_that_are_alike_are_offered(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the namespace, and the same name elsewhere."""
    server.others = [other("shop", "churn"), other("ml", "prices")]
    assert run("describe", "fruad") == 1
    words = said(capsys)
    assert "ModelDeployment ml/fruad does not exist" in words
    assert "did you mean fraud?" in words
    assert run("describe", "churn") == 1
    words = said(capsys)
    assert "there are fraud, prices." in words
    assert "there is one in shop." in words
    assert run("describe", "-n", "empty", "zzz") == 1
    assert "there is none in that namespace of context 'x'" in said(capsys)


def test_near_names_are_left_out_where_they_may_not_be_listed(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error stays that the object is not there."""
    server.forbidden = {("list", "modeldeployments")}
    assert run("describe", "fruad") == 1
    words = said(capsys)
    assert words.endswith("does not exist: check the name, and the namespace (-n)")


def test_a_server_that_does_not_answer_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, with the address that was tried."""
    config = write_kubeconfig(tmp_path / "gone", "http://127.0.0.1:1")
    assert run("get", "--kubeconfig", str(config)) == 1
    words = said(capsys)
    assert "the API server at http://127.0.0.1:1 cannot be reached (" in words
    assert "refused" in words
    assert "--context" in words


@pytest.mark.parametrize("content", ["", "contexts: 7", "{", "apiVersion: v1\nkind: Config\n"])
def test_a_kubeconfig_that_is_none_is_said_to_be_none(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is wrong with it."""
    config = tmp_path / "config"
    config.write_text(content)
    assert run("get", "--kubeconfig", str(config)) == 1
    assert "no usable kubeconfig" in said(capsys)


def test_a_context_that_there_is_not_is_named(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Instead of the current one being taken."""
    assert run("get", "--context", "nowhere") == 1
    assert "nowhere" in said(capsys)


def test_pods_and_events_that_may_not_be_read_are_left_out_of_describe_and_said(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The right to get ModelDeployments is enough for the rest of the story."""
    server.forbidden = {("list", "pods"), ("list", "events")}
    assert run("describe", "fraud") == 0
    out = capsys.readouterr().out
    assert "note: pods are not shown: you may not list them in ml" in out
    assert "note: events are not shown: you may not list them in ml" in out
    assert "Conditions" in out


def test_what_a_cluster_says_does_not_steer_the_terminal(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A message may hold what a pod wrote as it died."""
    server.operates = False
    words = "died: \x1b]0;owned\x07 \x1b[2J"
    server.world = replace(
        server.world, status=server.world.status.model_copy(update={"message": words})
    )
    for command in (("describe", "fraud"), ("status", "fraud"), ("get", "-o", "wide")):
        assert run(*command) == 0
        assert "\x1b" not in capsys.readouterr().out


def test_an_unknown_command_names_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """And not the whole list."""
    assert run("wach") == 2
    assert (
        said(capsys)
        == "canarium: unknown command 'wach': did you mean watch? `canarium --help` lists all"
    )
