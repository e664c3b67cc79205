"""One suite for the git server in memory and for the real adapter on a real repository: both answer alike."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.git.worlds import MANIFEST, RECORD_FILE, manifest, record, revert
from tests.services.git import Repository

from canarium_operator.adapters.git.writing import write
from canarium_operator.core.outcomes.jobs import GitAccess, GitAnswer, GitJob
from canarium_operator.testing.git import FakeGit

WORK = "canarium/ml/fraud/rev3"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is written one after the other, and how that ends."""

    jobs: Callable[[str], list[GitJob]]
    pushed: str | None = None
    """Version that somebody commits in between."""
    answers: list[str]
    """`new`, `found`, `nothing`, or a problem."""
    version: str
    """In the manifest on main, at the end."""
    recorded: bool = False


ROWS = {
    "a rollback": Row(jobs=lambda url: [revert(url)], answers=["new"], version="2"),
    "a rollback twice": Row(
        jobs=lambda url: [revert(url), revert(url)], answers=["new", "found"], version="2"
    ),
    "a rollback for a request": Row(
        jobs=lambda url: [revert(url, work_branch=WORK), revert(url, work_branch=WORK)],
        answers=["new", "found"],
        version="3",
    ),
    "a second outcome that has nothing to do": Row(
        jobs=lambda url: [revert(url, 7), revert(url, 8)], answers=["new", "nothing"], version="2"
    ),
    "somebody was faster": Row(
        jobs=lambda url: [revert(url)], pushed="4", answers=["nothing"], version="4"
    ),
    "a promotion and a later one": Row(
        jobs=lambda url: [
            record(url, 9, "aaaa", "2026-01-01"),
            record(url, 10, "bbbb", "2026-01-02"),
            record(url, 11, "cccc", "2026-01-01"),
        ],
        answers=["new", "new", "nothing"],
        version="3",
        recorded=True,
    ),
    "no such branch": Row(
        jobs=lambda url: [revert(url, branch="release")], answers=["GitFileUnusable"], version="3"
    ),
    "no such file": Row(
        jobs=lambda url: [revert(url, manifest="x.yaml")], answers=["GitFileUnusable"], version="3"
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
@pytest.mark.parametrize("side", ["fake", "real"])
async def test_both_sides_answer_alike(tmp_path: Path, side: str, row: Row) -> None:
    """The answers, and what the branch holds at the end."""
    found = []
    if side == "fake":
        git = FakeGit({MANIFEST: manifest("3")})
        if row.pushed is not None:
            git.push({MANIFEST: manifest(row.pushed)}, "in between")
        found = [await git.write(job, GitAccess()) for job in row.jobs("")]
        read = git.file
    else:
        repository = Repository(tmp_path)
        repository.push({MANIFEST: manifest("3")}, "version 3")
        if row.pushed is not None:
            repository.push({MANIFEST: manifest(row.pushed)}, "in between")
        found = [write(job, GitAccess()) for job in row.jobs(repository.url)]
        read = repository.file
    assert row.answers == list(map(kind_of, found))
    assert manifest(row.version) == read(MANIFEST)
    assert row.recorded == (read(RECORD_FILE) is not None)


def kind_of(answer: GitAnswer) -> str:
    if answer.commit:
        return "found" if answer.found else "new"
    return "nothing" if answer.nothing else answer.problem
