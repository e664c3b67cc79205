"""Preflight: one clear sentence for each thing that is wrong, with the remedy."""

import dataclasses
import subprocess
from pathlib import Path

import pytest

from canarium_devcluster import preflight
from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.preflight import GIB, Probes

GOOD = Probes(
    uid=lambda: 0,
    has_tool=lambda _name: True,
    has_headers=lambda _name: True,
    go_version=lambda: "1.26.8",
    free_disk_bytes=lambda _path: 100 * GIB,
    memory_bytes=lambda: 16 * GIB,
    cgroup_v1=lambda: True,
    registries_answer=lambda: True,
)


def problems(must_build: bool = True, **changed: object) -> list[str]:
    probes = dataclasses.replace(GOOD, **changed)  # type: ignore[arg-type]
    found = preflight.check(
        probes,
        must_build=must_build,
        wanted_go="1.26.7",
        cache=Path("/cache"),
        state=Path("/state"),
    )
    return [str(p) for p in found]


def test_a_good_machine_has_no_problems() -> None:
    """Nothing is said when nothing is wrong."""
    assert problems() == []


@pytest.mark.parametrize(
    ("changed", "sentence", "remedy"),
    [
        ({"uid": lambda: 1000}, "only root makes", "run the command as root"),
        ({"cgroup_v1": lambda: False}, "no cgroup v1", "--with kind"),
        (
            {"has_tool": lambda name: name != "iptables"},
            "Debian packages are missing (iptables)",
            "apt-get install -y iptables",
        ),
        (
            {"has_tool": lambda name: name != "pkg-config"},
            "(libseccomp-dev, pkg-config)",
            "apt-get install -y libseccomp-dev pkg-config",
        ),
        (
            {"has_headers": lambda _name: False},
            "(libseccomp-dev)",
            "apt-get install -y libseccomp-dev",
        ),
        ({"go_version": lambda: ""}, "no `go` on the PATH", "install Go 1.26.7"),
        ({"go_version": lambda: "1.9.9"}, "Go 1.9.9 is older", "install Go 1.26.7"),
        (
            {"free_disk_bytes": lambda _path: 5 * GIB},
            "Only 5.0 GiB are free for /cache",
            "free at least 12 GiB",
        ),
        (
            {"memory_bytes": lambda: GIB},
            "Only 1.0 GiB of memory are available",
            "a machine with 4 GiB free",
        ),
        (
            {"registries_answer": lambda: False},
            "the registries of Go modules and Python packages do not answer",
            "connect this machine",
        ),
    ],
)
def test_each_problem_is_one_sentence_with_its_remedy(
    changed: dict[str, object], sentence: str, remedy: str
) -> None:
    """The user learns what is wrong and what to do, and nothing else."""
    (found,) = problems(**changed)
    assert sentence in found
    assert remedy in found


@pytest.mark.parametrize(
    "changed",
    [
        {"go_version": lambda: ""},
        {"registries_answer": lambda: False},
        {"has_headers": lambda _name: False},
        {"free_disk_bytes": lambda _path: 5 * GIB},
    ],
)
def test_what_only_a_build_needs_is_not_asked_of_a_built_cluster(
    changed: dict[str, object],
) -> None:
    """A machine without network starts a cluster that is built."""
    assert problems(must_build=False, **changed) == []


def test_the_network_is_not_asked_when_something_else_is_wrong() -> None:
    """That question may take half a minute."""

    def never() -> bool:
        raise AssertionError("asked")

    assert len(problems(uid=lambda: 1000, registries_answer=never)) == 1


def test_all_problems_come_at_once() -> None:
    """Nobody should fix one thing only to learn of the next."""
    with pytest.raises(DevclusterError) as caught:
        preflight.require(
            preflight.check(
                dataclasses.replace(GOOD, uid=lambda: 1, memory_bytes=lambda: 0),
                must_build=False,
                wanted_go="1.26.7",
                cache=Path("/"),
                state=Path("/"),
            )
        )
    assert len(str(caught.value).splitlines()) == 2


def test_the_wanted_go_version_comes_from_go_mod(tmp_path: Path) -> None:
    """There is one place that says it."""
    (tmp_path / "go.mod").write_text("module x\n\ngo 1.30.1\n")
    assert preflight.wanted_go(tmp_path) == "1.30.1"


def test_services_of_tests_are_no_condition_of_a_cluster() -> None:
    """Redis, PostgreSQL, sshd and a browser are installed with the rest where that is asked for, and no cluster
    misses them.
    """

    def has_tool(name: str) -> bool:
        return name not in {"redis-server", "postgres", "chromium-headless-shell", "sshd"}

    assert problems(has_tool=has_tool) == []
    probes = dataclasses.replace(GOOD, has_tool=has_tool)
    missing = preflight.missing_packages(probes, must_build=True, for_tests=True)
    assert missing == ["chromium-headless-shell", "openssh-server", "postgresql", "redis-server"]


@pytest.mark.parametrize(
    ("lacks", "refused", "fails"),
    [("chromium-headless-shell", "chromium-headless-shell", False), ("gcc", "gcc", True)],
    ids=["a browser of the tests", "what a cluster needs"],
)
def test_a_package_that_a_relative_of_debian_lacks_stops_only_what_needs_it(
    lacks: str, refused: str, *, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo and the cluster need no browser; the tests that do say so themselves."""
    ran: list[list[str]] = []

    def run(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        code = 100 if refused in command else 0
        return subprocess.CompletedProcess(command, code, "", f"Unable to locate {refused}")

    probes = dataclasses.replace(GOOD, has_tool=lambda name: name != lacks)
    monkeypatch.setattr(preflight, "machine_probes", lambda: probes)
    monkeypatch.setattr(preflight.subprocess, "run", run)
    monkeypatch.setattr(preflight.os, "getuid", lambda: 0)
    said: list[str] = []
    if fails:
        with pytest.raises(DevclusterError, match="install the packages by hand"):
            preflight.ensure_system_packages(said.append)
    else:
        preflight.ensure_system_packages(said.append)
        assert "the tests that need it are skipped" in said[-1]
    assert ran[0] == ["apt-get", "update"]
    assert ran[-1][-1] == refused
