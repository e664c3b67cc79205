"""The operator is ended by `kill -9` around the git write, again and again: each outcome is one commit.

`make git-kills` for two hundred of them, with figures.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from tests.integration.git.worlds import MANIFEST, manifest
from tests.services.git import Repository
from tests.services.processes import children_of

KILLS: Final = int(os.environ.get("GIT_KILLS", "12"))
SEED: Final = int(os.environ.get("SEED", "6"))
LIVES_TO_KILL: Final = 6
"""Of one outcome; then the operator is left alone."""
WAYS: Final = (
    {"onPromotion": "Nothing", "onRollback": "Commit"},
    {"onPromotion": "Commit", "onRollback": "Nothing"},
    {"onPromotion": "Nothing", "onRollback": "PullRequest"},
)
pytestmark = pytest.mark.timeout(60 + 10 * KILLS)


@dataclass
class Tally:
    """What happened."""

    kills: int = 0
    outcomes: int = 0
    unseen: int = 0
    """Kills after the push and before the status: the next operator must find the commit."""
    orphans: int = 0
    """Kills that left the git process behind, which then goes on beside the next operator."""
    where: Counter[str] = field(default_factory=Counter)


class Lives:
    """The program that forks operators."""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.git.lives"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                bufsize=1,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    def tell(self, command: Any) -> str:
        """Give a command; gives its first answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        return self.answer()

    def answer(self) -> str:
        """Wait for a line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the program ended: see its log"
        return line

    def answers_within(self, seconds: float) -> bool:
        """Wait for a line, but no longer."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


@contextmanager
def lives_in(folder: Path) -> Iterator[Lives]:
    lives = Lives(folder / "log")
    try:
        yield lives
    except AssertionError as error:
        msg = f"{error}\nrerun with SEED={SEED} GIT_KILLS={KILLS}\n{(folder / 'log').read_text()[-3000:]}"
        raise AssertionError(msg) from error
    finally:
        lives.close()


def test_each_outcome_is_one_commit_wherever_the_operator_is_killed(tmp_path: Path) -> None:
    """A rollback as a commit, a promotion's record, a rollback for a pull request, in turn, on a bare repository."""
    random, tally = Random(SEED), Tally()
    repository = Repository(tmp_path)
    repository.push({MANIFEST: manifest("first")}, "first")
    began = time.monotonic()
    with lives_in(tmp_path) as lives:
        while tally.kills < KILLS:
            play(lives, repository, tmp_path, random, tally)
    repository.git("fsck", "--strict")
    print(f"{tally} in {time.monotonic() - began:.0f} s, seed {SEED}")
    assert tally.unseen > 0, "no kill came between push and status: nothing was proved"


def play(lives: Lives, repository: Repository, folder: Path, random: Random, tally: Tally) -> None:
    """Have one rollout end, with kills, and look at what git has of it."""
    number = tally.outcomes
    way = WAYS[number % len(WAYS)]
    bad = way["onRollback"] != "Nothing"
    uid, version = f"{number:08d}-uid", f"n{number}"
    world = folder / f"world-{number}"
    world.mkdir()
    gitops = {"url": "https://git.example.com/models.git", "manifest": MANIFEST, **way}
    repository.push({MANIFEST: manifest(version)}, f"version {version}")
    made = {"folder": str(world), "uid": uid, "versions": [f"o{number}", version], "bad": bad}
    revision = json.loads(lives.tell({"make": {**made, "gitops": gitops}}))
    branch = "main" if way["onRollback"] != "PullRequest" else f"canarium/ml/fraud/{revision}"
    ours = f"ml/fraud/{uid}/"
    orphans: set[int] = set()
    for life in range(LIVES_TO_KILL + 1):
        head = head_of(repository, branch)
        pid = int(lives.tell({"live": str(world), "url": repository.url}))
        if life == LIVES_TO_KILL or tally.kills >= KILLS:
            assert int(lives.answer()) == 0
            break
        if wait_for_the_moment(lives, repository, branch, head, random, tally):
            assert int(lives.answer()) == 0
            break
        orphans |= kill(pid, random, tally)
        ended = int(lives.answer())
        if ended == 0:
            break  # it was over a moment before
        assert ended == -signal.SIGKILL
        tally.kills += 1
        tally.unseen += any(line.startswith(ours) for line in repository.outcomes())
    wait_until_gone(orphans)
    tally.outcomes += 1
    found = [line for line in repository.outcomes() if line.startswith(ours)]
    assert len(found) == 1, f"{branch}: {found}"
    text = repository.file(MANIFEST, branch) or ""
    assert (f"fraud/o{number}/" in text) == bad


def wait_for_the_moment(
    lives: Lives,
    repository: Repository,
    branch: str,
    head: str,
    random: Random,
    tally: Tally,
) -> bool:
    """Wait for a random moment: some time after the start, or right after the push; tells whether the life is over."""
    how = random.choice(("time", "push"))
    until = time.monotonic() + (random.uniform(0.0, 1.5) if how == "time" else 60.0)
    while time.monotonic() < until:
        if lives.answers_within(0.002):
            return True
        if how == "push" and head_of(repository, branch) != head:
            over = lives.answers_within(random.uniform(0.0, 0.15))
            tally.where[how] += not over
            return over
    tally.where[how] += 1
    return False


def head_of(repository: Repository, branch: str) -> str:
    """Read a branch from disk: quicker than asking git, and the push writes it there."""
    path = repository.path / "refs" / "heads" / branch
    return path.read_text() if path.exists() else ""


def kill(pid: int, random: Random, tally: Tally) -> set[int]:
    """End an operator, with its git process or without; gives what is left behind."""
    children = set(children_of(pid))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    if random.random() < 0.5:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    elif children:
        tally.orphans += 1
    return children


def wait_until_gone(pids: set[int]) -> None:
    """Wait until what was left behind has ended, or is a zombie that nobody fetches."""

    def runs(pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] != "Z"

    while any(map(runs, pids)):
        time.sleep(0.01)
