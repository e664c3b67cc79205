"""`FakeGit`: a git server in memory, with the semantics that the operator depends on; and a forge that only remembers.

One contract suite (tests/integration/git) holds `FakeGit` to what the real adapter does with a real repository.
"""

import asyncio
import hashlib
from dataclasses import dataclass, field

from canarium_operator.core.outcomes.jobs import GitAccess, GitAnswer, GitJob, is_outcome
from canarium_operator.core.outcomes.tree import compose
from canarium_operator.ports import CommitState, ForgeAccess


@dataclass(frozen=True, kw_only=True)
class FakeCommit:
    """One commit and the files after it."""

    name: str
    message: str
    files: dict[str, str]


class FakeGit:
    """`ports.GitWriter` in memory."""

    def __init__(self, files: dict[str, str], branch: str = "main") -> None:
        self.branches: dict[str, list[FakeCommit]] = {branch: []}
        """Commits of each branch, oldest first."""
        self.trouble: GitAnswer | None = None
        """What is answered in place of anything else, before the push."""
        self.lost_answer: GitAnswer | None = None
        """What is answered after the push, in place of the commit."""
        self.held: asyncio.Event | None = None
        """When set, a write waits for it."""
        self.accesses: list[GitAccess] = []
        """What each write came with."""
        self.push(files, "first", branch)

    def push(self, files: dict[str, str], message: str, branch: str = "main") -> None:
        """Have somebody push."""
        before = self.branches[branch][-1].files if self.branches[branch] else {}
        self.branches[branch].append(_commit(message, {**before, **files}))

    def file(self, path: str, branch: str = "main") -> str | None:
        """Give a file as it is now."""
        return self.branches[branch][-1].files.get(path)

    async def write(self, job: GitJob, access: GitAccess) -> GitAnswer:
        """Write an outcome, unless it is there already."""
        self.accesses.append(access)
        if self.held is not None:
            await self.held.wait()
        await asyncio.sleep(0)
        if self.trouble is not None:
            return self.trouble
        for branch in filter(None, (job.branch, job.work_branch)):
            for commit in self.branches.get(branch, []):
                if is_outcome(commit.message, job.outcome):
                    return GitAnswer(commit=commit.name, branch=branch, found=True)
        if job.branch not in self.branches:
            message = f"there is no branch {job.branch}: correct spec.gitops.branch"
            return GitAnswer(problem="GitFileUnusable", message=message)
        base = self.branches[job.branch]
        files = base[-1].files
        composed = compose(job, lambda path: files[path].encode() if path in files else None)
        if composed.problem:
            return GitAnswer(problem="GitFileUnusable", message=composed.problem)
        if not composed.files:
            return GitAnswer(nothing=composed.nothing)
        changed = {path: content.decode() for path, content in composed.files.items()}
        commit = _commit(job.message, {**files, **changed})
        self.branches[job.work_branch or job.branch] = [*base, commit]
        if self.lost_answer is not None:
            return self.lost_answer
        return GitAnswer(commit=commit.name, branch=job.work_branch or job.branch)


def _commit(message: str, files: dict[str, str]) -> FakeCommit:
    name = hashlib.sha1(repr((message, sorted(files.items()))).encode()).hexdigest()  # noqa: S324 - a name
    return FakeCommit(name=name, message=message, files=files)


@dataclass
class FakeForge:
    """`ports.Forge` that remembers what it was told."""

    newest: str | None = "c0ffee"
    """The commit that last changed any file."""
    trouble: Exception | None = None
    """Raised by each call."""
    marks: list[tuple[str, str, CommitState]] = field(default_factory=list)
    """(commit, context, state)."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """(source, target, commit)."""
    tokens: set[str] = field(default_factory=set)

    async def commit_of(self, access: ForgeAccess, branch: str, path: str) -> str | None:
        """Give the newest commit."""
        self._enter(access)
        return self.newest

    async def mark(
        self, access: ForgeAccess, commit: str, context: str, state: CommitState, words: str
    ) -> None:
        """Remember a state."""
        self._enter(access)
        self.marks.append((commit, context, state))

    async def request(
        self, access: ForgeAccess, *, source: str, target: str, commit: str, title: str, body: str
    ) -> str:
        """Remember a request, once for each branch and commit."""
        self._enter(access)
        if (source, target, commit) not in self.requests:
            self.requests.append((source, target, commit))
        return f"https://forge.example.com/requests/{len(self.requests)}"

    def _enter(self, access: ForgeAccess) -> None:
        self.tokens.add(access.token)
        if self.trouble is not None:
            raise self.trouble
