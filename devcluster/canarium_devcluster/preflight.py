"""Checks the machine before anything starts: one sentence for each problem, with the remedy.

What is asked of the machine goes through ``Probes``, so that tests can play any machine.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from canarium_devcluster import processes
from canarium_devcluster.errors import DevclusterError

GIB = 1 << 30
DISK_TO_BUILD_BYTES = 12 * GIB  # Go's own cache takes most of it
DISK_TO_RUN_BYTES = 3 * GIB
MEMORY_BYTES = 4 * GIB

# Tool -> Debian package; needed to run, and to build.
_TO_RUN = {"iptables": "iptables", "mount": "mount"}
_TO_BUILD = {"gcc": "gcc", "pkg-config": "pkg-config"}
# Needed by tests alone: real services, and a browser, that they start by themselves.
_TO_TEST = {
    "redis-server": "redis-server",
    "postgres": "postgresql",
    "chromium-headless-shell": "chromium-headless-shell",
    "sshd": "openssh-server",
}
_HEADERS = {"libseccomp": "libseccomp-dev"}  # pkg-config name -> package
_INSTALL = ["apt-get", "install", "-y", "--no-install-recommends"]
_NETWORK_SECONDS = 25.0
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # not on every root's PATH
_POSTGRESQL = "/usr/lib/postgresql"  # Debian keeps each version's programs below it, off the PATH


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probes:
    """Questions to the machine."""

    uid: Callable[[], int]
    has_tool: Callable[[str], bool]
    has_headers: Callable[[str], bool]
    go_version: Callable[[], str]  # "1.26.8", empty when there is no go
    free_disk_bytes: Callable[[Path], int]
    memory_bytes: Callable[[], int]
    cgroup_v1: Callable[[], bool]
    registries_answer: Callable[[], bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong, and what to do."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}."


def check(
    probes: Probes, *, must_build: bool, wanted_go: str, cache: Path, state: Path
) -> list[Problem]:
    """All problems of this machine; the network is asked last, since it may take a while."""
    problems = [
        *_rights(probes),
        *_tools(probes, must_build=must_build, wanted_go=wanted_go),
        *_space(probes, must_build=must_build, cache=cache, state=state),
    ]
    if must_build and not problems and not probes.registries_answer():
        problems.append(
            Problem(
                what="Something must still be built, and the registries of Go modules and Python "
                "packages do not answer",
                remedy="connect this machine, or set GOPROXY and PIP_INDEX_URL to mirrors that "
                "it reaches",
            )
        )
    return problems


def require(problems: Iterable[Problem]) -> None:
    """Raise one error that lists them all."""
    lines = [str(p) for p in problems]
    if lines:
        raise DevclusterError("\n".join(lines))


def _rights(probes: Probes) -> Iterable[Problem]:
    if probes.uid() != 0:
        yield Problem(
            what="A cluster needs namespaces, mounts and network interfaces, which only root makes",
            remedy="run the command as root (`sudo -E`)",
        )
    if not probes.cgroup_v1():
        yield Problem(
            what="This machine has no cgroup v1 hierarchies, and the embedded cluster is made for "
            "those",
            remedy="use `--with kind` on a machine with docker",
        )


def _tools(probes: Probes, *, must_build: bool, wanted_go: str) -> Iterable[Problem]:
    packages = missing_packages(probes, must_build=must_build)
    if packages:
        yield Problem(
            what=f"Debian packages are missing ({', '.join(packages)})",
            remedy=f"run `apt-get install -y {' '.join(packages)}`",
        )
    if must_build:
        version = probes.go_version()
        if not version:
            yield Problem(
                what="There is no `go` on the PATH",
                remedy=f"install Go {wanted_go} or newer",
            )
        elif _numbers(version) < _numbers(wanted_go):
            yield Problem(
                what=f"Go {version} is older than devcluster/go.mod wants",
                remedy=f"install Go {wanted_go} or newer",
            )


def _space(probes: Probes, *, must_build: bool, cache: Path, state: Path) -> Iterable[Problem]:
    disk = DISK_TO_BUILD_BYTES if must_build else DISK_TO_RUN_BYTES
    for place in (cache, state):
        free = probes.free_disk_bytes(place)
        if free < disk:
            yield Problem(
                what=f"Only {free / GIB:.1f} GiB are free for {place}",
                remedy=f"free at least {disk / GIB:.0f} GiB",
            )
            break  # both are usually on the same disk
    memory = probes.memory_bytes()
    if memory < MEMORY_BYTES:
        yield Problem(
            what=f"Only {memory / GIB:.1f} GiB of memory are available",
            remedy=f"end other programs, or use a machine with {MEMORY_BYTES / GIB:.0f} GiB free",
        )


def missing_packages(probes: Probes, *, must_build: bool, for_tests: bool = False) -> list[str]:
    """Debian packages that must be installed."""
    tools = {
        **_TO_RUN,
        **(_TO_BUILD if must_build else {}),
        **(_TO_TEST if for_tests else {}),
    }
    missing = {package for tool, package in tools.items() if not probes.has_tool(tool)}
    if must_build and "pkg-config" not in missing:
        missing |= {p for name, p in _HEADERS.items() if not probes.has_headers(name)}
    elif must_build:
        missing |= set(_HEADERS.values())
    return sorted(missing)


def ensure_system_packages(say: Callable[[str], None] = print) -> None:
    """Install missing Debian packages where this is possible; `make setup` calls it."""
    probes = machine_probes()
    needed = missing_packages(probes, must_build=True)
    wanted = missing_packages(probes, must_build=True, for_tests=True)
    if not wanted:
        return
    if os.getuid() != 0 or not probes.has_tool("apt-get"):
        command = " ".join([*_INSTALL, *wanted])
        say(f"Missing for cluster and tests: {', '.join(wanted)}; as root: {command}")
        return
    say(f"Installing Debian packages for cluster and tests: {', '.join(wanted)}")
    _run(["apt-get", "update"])
    if needed:
        _run([*_INSTALL, *needed])
    for package in sorted(set(wanted) - set(needed)):
        # A relative of Debian may not have all of them; what misses one says so itself.
        try:
            _run([*_INSTALL, package])
        except DevclusterError as problem:
            say(f"{problem.problem}: the tests that need it are skipped, and fail in CI")


def _run(command: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise DevclusterError(
            f"`{' '.join(command)}` failed",
            "install the packages by hand",
            details=(done.stdout + done.stderr)[-2000:],
        )


def wanted_go(source: Path) -> str:
    """The Go version that go.mod asks for."""
    found = re.search(r"^go (\S+)$", (source / "go.mod").read_text(), re.M)
    return found[1] if found else "1.0"


def machine_probes() -> Probes:
    """The real machine."""
    return Probes(
        uid=os.getuid,
        has_tool=_has_tool,
        has_headers=lambda name: (
            processes.answer(["pkg-config", "--exists", name], timeout_seconds=10) is not None
        ),
        go_version=_go_version,
        free_disk_bytes=_free_disk_bytes,
        memory_bytes=_memory_bytes,
        cgroup_v1=lambda: any(Path("/sys/fs/cgroup").glob("*/cgroup.procs")),
        registries_answer=_registries_answer,
    )


def _has_tool(name: str) -> bool:
    places = [os.environ.get("PATH", ""), _SBIN, *map(str, Path(_POSTGRESQL).glob("*/bin"))]
    return shutil.which(name, path=":".join(places)) is not None


def _go_version() -> str:
    return (processes.answer(["go", "env", "GOVERSION"], timeout_seconds=30) or "")[2:].strip()


def _free_disk_bytes(place: Path) -> int:
    existing = next(p for p in (place, *place.parents) if p.exists())
    return shutil.disk_usage(existing).free


def _memory_bytes() -> int:
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)
    return int(found[1]) * 1024 if found else MEMORY_BYTES


def _registries_answer() -> bool:
    """Ask both by their ordinary clients, wherever these are configured to look."""
    go = processes.answer(
        ["go", "list", "-mod=mod", "-m", "-versions", "golang.org/x/sys"],
        timeout_seconds=_NETWORK_SECONDS,
        cwd=Path("/"),
    )
    pip = processes.answer(
        [
            *(sys.executable, "-m", "pip", "index", "versions", "--retries", "1"),
            *("--disable-pip-version-check", "pip"),
        ],
        timeout_seconds=_NETWORK_SECONDS,
    )
    return bool(go) and bool(pip)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])
