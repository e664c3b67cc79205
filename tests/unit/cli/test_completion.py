"""Shell completion: commands, options and values, names from the cluster, and a real bash that uses them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.unit.cli.api_server import ApiServer, run, write_kubeconfig

from canarium_cli import completing
from canarium_cli.__main__ import complete
from canarium_cli.completing import candidates
from canarium_cli.describing import Parameter, describe
from canarium_cli.table import COMMANDS

ASKED: list[Mapping[str, str]] = []


def told(given: Mapping[str, str], _start: str) -> list[str]:
    """Names, wherever a name is asked for."""
    ASKED.append(dict(given))
    return ["fraud", "churn"]


SOURCES = {("argument", "name"): told, ("option", "namespace"): lambda _g, _s: ["ml", "shop"]}


def words(*line: str) -> list[str]:
    """The words that are offered."""
    return [word for word, _ in candidates(line, SOURCES)]


def test_the_first_word_is_a_command() -> None:
    """With what it does."""
    assert words("") == list(COMMANDS)
    assert candidates(["descr"]) == [("describe", COMMANDS["describe"].summary)]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (("get", ""), ["fraud", "churn"]),
        (("describe", "f"), ["fraud"]),
        (("describe", "fraud", ""), []),
        (("describe", "-n", ""), ["ml", "shop"]),
        (("describe", "--namespace=s"), ["--namespace=shop"]),
        (("get", "-o", ""), ["json", "yaml", "wide", "name"]),
        (("get", "--output", "y"), ["yaml"]),
        (("get", "--all"), ["--all-namespaces"]),
        (("abort", "fraud", "--st"), ["--step"]),
        (("watch", "fraud", "-n", "ml", "--pl"), ["--plain"]),
        (("keys", ""), ["new", "hash"]),
        (("keys", "new", ""), []),
        (("jobs", "subm"), ["submit"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("cluster", "kubec"), ["kubeconfig"]),
        (("serve", ""), []),
        (("nothing", ""), []),
    ],
)
def test_the_next_words_follow_from_the_commands_own_signatures(
    line: tuple[str, ...], offered: list[str]
) -> None:
    """Options that take a value, flags, choices, and commands below commands."""
    assert words(*line) == offered


def test_an_option_that_is_there_already_is_not_offered_again() -> None:
    """And its value is given to who looks names up."""
    assert "--namespace" not in words("describe", "-n", "shop", "--")
    ASKED.clear()
    words("describe", "-n", "shop", "--context", "x", "")
    assert ASKED == [{"namespace": "shop", "context": "x"}]


def test_what_a_cluster_does_not_say_is_no_candidate(tmp_path: Path) -> None:
    """And no error in the middle of a line."""
    config = str(write_kubeconfig(tmp_path / "gone", "http://127.0.0.1:1"))
    assert candidates(["describe", "--kubeconfig", config, ""]) == []


def test_names_come_from_the_namespace_that_is_meant(server: ApiServer) -> None:
    """That of the option, of the word, or of the context."""
    assert candidates(["describe", ""]) == [("fraud", "")]
    assert candidates(["describe", "ml/"]) == [("ml/fraud", "")]
    assert candidates(["describe", "-n", "shop", ""]) == []
    assert candidates(["describe", "-n", ""]) == [("ml", ""), ("shop", "")]
    assert candidates(["describe", "--context", ""]) == [("x", "")]
    lists = [path for path in server.asked if "modeldeployments" in path]
    assert all("limit=500" in path for path in lists)


def test_a_cluster_that_hangs_is_not_waited_for() -> None:
    """A shell that does not answer is worse than one that does not know."""
    assert completing.TIMEOUT_SECONDS <= 2


def test_kubectl_gets_what_it_gets_from_other_plugins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines with a tab, and the directive that no names of files are meant."""
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-canarium", "hist"])
    assert complete() == 0
    assert capsys.readouterr().out == f"history\t{COMMANDS['history'].summary}\n:4\n"


def test_every_command_that_is_described_can_be(capsys: pytest.CaptureFixture[str]) -> None:
    """So that the reference has all of them, each with a help for every option."""
    import importlib

    for name, command in COMMANDS.items():
        if not command.typed:
            continue
        found = describe(importlib.import_module(command.module).application(name), name)
        assert found.help, name
        for one in (found, *found.commands):
            silent = [p.name for p in one.parameters if not p.help]
            assert not silent or name == "cluster", (name, one.name, silent)
    assert capsys.readouterr().out == ""


def test_parameters_are_read_as_typer_reads_them() -> None:
    """Short and long flags, choices, defaults, and what is needed."""
    from canarium_cli import get

    found = {p.name: p for p in describe(get.app, "get").parameters}
    assert found["everywhere"] == Parameter(
        name="everywhere",
        flags=("-A", "--all-namespaces"),
        help="In all namespaces.",
        choices=(),
        takes_value=False,
        many=False,
        required=False,
        default="",
        is_path=False,
        metavar="",
    )
    assert found["output"].choices == ("json", "yaml", "wide", "name")
    assert found["name"].flags == ()


@pytest.fixture
def shell_path(tmp_path: Path) -> str:
    """A PATH on which `canarium` is this checkout's."""
    script = tmp_path / "bin" / "canarium"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m canarium_cli "$@"\n')
    script.chmod(0o755)
    return f"{script.parent}{os.pathsep}{os.environ['PATH']}"


def test_bash_completes(server: ApiServer, shell_path: str) -> None:
    """The real shell, the real script, the real command."""
    bash = shutil.which("bash")
    assert bash is not None, "bash is part of every system that the tests run on"
    line = """
        source <(canarium completion bash)
        complete_words() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _canarium
            printf '%s,' "${COMPREPLY[@]}"; echo
        }
        complete_words canarium desc
        complete_words canarium describe -n ml ''
    """
    environment = {**os.environ, "PATH": shell_path}
    done = subprocess.run(
        [bash, "--norc", "-c", line], env=environment, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.stdout.splitlines() == ["describe,", "fraud,"], done.stderr


def test_the_scripts_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """For the three shells, and an unknown one is a mistake."""
    for shell in ("bash", "zsh", "fish"):
        assert run("completion", shell) == 0
        assert "canarium __complete" in capsys.readouterr().out
    assert run("completion", "csh") == 2


def test_lists_and_completion_do_without_what_is_slow_to_import() -> None:
    """A TAB waits for it: the types of specs and statuses, and the client, take longer than an API server."""
    slow = ("canarium_operator", "canarium_api.", "kubernetes")
    program = (
        "import sys, canarium_cli.get, canarium_cli.completing; "
        f"sys.exit(', '.join(m for m in sys.modules if m.startswith({slow})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.strip() == ""


def test_help_needs_no_library() -> None:
    """It is there whichever extras are installed, and at once."""
    program = (
        "import sys; from canarium_cli.__main__ import main; main(['--help']); "
        "sys.exit(', '.join({'typer', 'rich', 'kubernetes', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.strip() == ""
    assert "watch " in done.stdout


def test_the_package_installs_what_kubectl_looks_for() -> None:
    """Names on the PATH, and functions that there are."""
    import importlib
    import tomllib

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert {"canarium", "kubectl-canarium", "kubectl_complete-canarium"} <= set(project["scripts"])
    for target in project["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_messages_name_the_command_that_was_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who types `kubectl canarium` is told of that."""
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/kubectl-canarium"])
    assert run("wach") == 2
    assert capsys.readouterr().err.startswith("kubectl canarium: unknown command 'wach'")
    assert run("--help") == 0
    assert capsys.readouterr().out.startswith("usage: kubectl canarium COMMAND")
