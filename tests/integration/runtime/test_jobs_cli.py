"""`canarium jobs` against the routes, over real HTTP."""

import asyncio
import sys
from pathlib import Path

import pytest
from tests.integration.runtime.test_jobs_api import World, world

from canarium_cli import jobs
from canarium_cli.__main__ import main as canarium
from canarium_runtime.listening import listening


async def run(w: World, *words: str) -> int:
    """Run a command in a thread, since it blocks; the server is in this loop."""
    transport = w.client._transport

    def command() -> int:
        try:
            return canarium(["jobs", *words, "--url", f"http://127.0.0.1:{port}"])
        except SystemExit as left:
            return int(left.code or 0)

    async with listening(transport.app, "127.0.0.1", 0) as port:  # type: ignore[attr-defined]
        return await asyncio.to_thread(command)


async def test_a_job_is_submitted_watched_and_downloaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The id is printed alone, so that a script can keep it; a download leaves no half file."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('[1, 2]\n\n{"x": [3, "no"]}\n[5, 6]\n')
    async with world() as w:
        assert await run(w, "submit", str(rows)) == 0
        job_id = capsys.readouterr().out.strip()
        assert job_id.isalnum()
        await w.work()
        assert await run(w, "watch", job_id) == 0
        shown = capsys.readouterr().out
        assert "succeeded  100.0%  3 of 3 rows, 1 failed" in shown
        assert "row 1: x[1]: expected a number" in shown
        target = tmp_path / "out.csv"
        assert await run(w, "results", job_id, "--format", "csv", "-o", str(target)) == 0
        assert target.read_text().splitlines()[1] == "0,3.0,,"
        assert not target.with_name("out.csv.part").exists()
        assert await run(w, "list") == 0
        assert job_id in capsys.readouterr().out
        assert await run(w, "retry", job_id) == 0
        assert await run(w, "cancel", job_id) == 0
        assert await run(w, "delete", job_id) == 0
        assert await run(w, "watch", job_id) == 1
        assert "refused with 404: no such job" in capsys.readouterr().err


async def test_a_job_that_fails_is_a_failure_of_its_watcher(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the reason."""
    async with world() as w:
        job_id = await w.submit([["no", 1]])
        await w.work()
        assert await run(w, "watch", job_id) == 1
        assert "all 1 rows failed" in capsys.readouterr().out


async def test_wrong_usage_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a file nor a source; a file that is not there, or not JSON."""
    broken = tmp_path / "rows.jsonl"
    broken.write_text("[1]\n{\n")
    async with world() as w:
        assert await run(w, "submit") == 2
        assert await run(w, "submit", str(tmp_path / "missing.jsonl")) == 1
        assert "cannot be read" in capsys.readouterr().err
        assert await run(w, "submit", str(broken)) == 1
        assert "line 2" in capsys.readouterr().err


def test_cells_of_a_csv_are_numbers_where_they_read_as_such(tmp_path: Path) -> None:
    """The server says what an input must be."""
    path = tmp_path / "a.csv"
    path.write_text("x,name\n1,a\n2.5,\n")
    assert list(jobs.rows_of(path)) == [{"x": 1, "name": "a"}, {"x": 2.5, "name": ""}]


def test_a_server_that_is_away_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And so is a URL that is none."""
    for url, words in (
        ("http://127.0.0.1:1", "cannot be reached"),
        ("ftp://h", "expected http://"),
    ):
        monkeypatch.setattr(sys, "argv", ["canarium jobs", "list", "--url", url])
        assert jobs.main() == 1
        assert words in capsys.readouterr().err
