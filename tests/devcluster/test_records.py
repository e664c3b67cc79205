"""Clusters on disk, progress lines, and programs that fail."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from canarium_devcluster import addresses, cluster, processes
from canarium_devcluster.cache import Cache
from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.progress import Progress, spoken


@pytest.fixture(autouse=True)
def _no_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests do not depend on what runs on this machine."""
    monkeypatch.setattr(addresses, "machine_routes", list)


def test_a_cluster_keeps_its_slot_until_it_is_removed(tmp_path: Path) -> None:
    """Certificates and stored Services name its addresses."""
    first = cluster.open_or_create(tmp_path, "one")
    second = cluster.open_or_create(tmp_path, "two")
    assert (first.slot, second.slot) == (0, 1)
    assert cluster.open_or_create(tmp_path, "two") == second
    for file in first.directory.iterdir():
        file.unlink()
    first.directory.rmdir()
    assert cluster.open_or_create(tmp_path, "three").slot == 0


@pytest.mark.parametrize("name", ["", "Upper", "9x", "a_b", "x/../y", "a" * 32, "x-"])
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    """Names become folders, interfaces and cgroups."""
    with pytest.raises(DevclusterError, match="cannot name a cluster"):
        cluster.open_or_create(tmp_path, name)


@pytest.mark.parametrize("name", ["a", "canarium", "a-rather-long-cluster-name-31ch"])
def test_interface_names_fit_the_kernel(tmp_path: Path, name: str) -> None:
    """At most 15 characters, whatever the cluster's name."""
    mine = cluster.Cluster(name=name, directory=tmp_path, slot=0)
    assert len(mine.host_interface) <= 15


def test_a_path_that_is_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    """The kernel would refuse it much later, in containerd."""
    with pytest.raises(DevclusterError, match="CANARIUM_STATE_DIR"):
        cluster.open_or_create(tmp_path / ("x" * 90), "one")


def test_a_recycled_pid_is_not_the_node(tmp_path: Path) -> None:
    """The start time tells the node from a stranger with its pid."""
    mine = cluster.open_or_create(tmp_path, "one")
    (mine.directory / "run").mkdir()
    record = mine.directory / "run/node.json"
    stat = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()
    pid = int(Path("/proc/self").resolve().name)
    record.write_text(json.dumps({"pid": pid, "startTime": stat[19]}))
    assert mine.node() is not None
    record.write_text(json.dumps({"pid": pid, "startTime": "1"}))
    assert mine.node() is None


def test_a_failing_program_shows_its_last_lines_and_its_log(tmp_path: Path) -> None:
    """The reason is on the screen, the rest one path away."""
    script = "print('\\n'.join(map(str, range(100)))); raise SystemExit(3)"
    log = tmp_path / "build.log"
    with pytest.raises(DevclusterError) as caught:
        processes.run_logged([sys.executable, "-c", script], log, what="Building x")
    lines = str(caught.value).splitlines()
    assert lines[-2] == "99"
    assert "Building x failed (exit status 3)" in lines[-1]
    assert str(log) in lines[-1]
    assert "0" not in lines


def test_plain_progress_says_what_and_how_long_it_took_last_time(tmp_path: Path) -> None:
    """A log without a terminal can be followed."""
    out = io.StringIO()
    store = Cache(tmp_path)
    store.remember_seconds("x", 342)
    progress = Progress(Console(file=out), store)
    with progress.step("Building x", remember="x"):
        pass
    first, second = out.getvalue().splitlines()
    assert first == "Building x (last time 5m42s) ..."
    assert second.startswith("Building x: done in ")


@pytest.mark.parametrize(("seconds", "text"), [(0.44, "0.4s"), (12.3, "12s"), (342, "5m42s")])
def test_durations_are_spoken_shortly(seconds: float, text: str) -> None:
    """Nobody reads milliseconds of a build."""
    assert spoken(seconds) == text
