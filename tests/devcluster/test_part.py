"""One part of Flux or Argo CD as a process; that all of them work together are end-to-end tests."""

import sys
from pathlib import Path

import pytest

from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.gitops.part import Part


def part(folder: Path, script: str, says: str) -> Part:
    """Make a part that is a Python script."""
    log = folder / "log"
    return Part("a part", [sys.executable, "-uc", script], {}, log, says=says)


def test_a_part_has_started_when_its_log_says_so(tmp_path: Path) -> None:
    """Ended, it can be started again; its log goes on."""
    log = tmp_path / "log"
    one = part(tmp_path, "import time; print('ready'); time.sleep(60)", "ready")
    for count in (1, 2):
        one.start()
        assert one.process is not None
        process = one.process
        one.kill()
        assert process.returncode == -9
        assert log.read_text() == "ready\n" * count


def test_a_part_that_ends_at_once_fails_with_its_log(tmp_path: Path) -> None:
    """Nobody waits a minute for it."""
    one = part(tmp_path, "print('unknown flag')", "ready")
    with pytest.raises(DevclusterError, match="a part has ended") as failed:
        one.start()
    assert str(tmp_path / "log") in str(failed.value)
    one.stop()
