"""Exactly one commit an outcome, whatever dies and whoever else pushes.

The commit carries the outcome's name in a trailer. Before one is made, the branch is searched for it, and the commit
is pushed on condition that the branch is still where it was searched. So each history that a branch ever has holds the
outcome at most once: a push that succeeded unseen is found by the next try, and of two writers one is refused, looks
again, and finds the other's commit.
"""

import random
import time
from collections.abc import Callable
from typing import Final

from dulwich.object_store import tree_lookup_path
from dulwich.objects import Blob, Commit, ObjectID, ShaFile, Tree

from canarium_operator.adapters.git.problems import MovedError, RemoteError
from canarium_operator.adapters.git.remote import Remote
from canarium_operator.core.outcomes.jobs import GitAccess, GitAnswer, GitJob, is_outcome
from canarium_operator.core.outcomes.tree import Composition, compose

MAX_TRIES: Final = 8
"""How often a commit is made anew because others pushed meanwhile."""
DEPTHS: Final = (32, 256, 2048, 16384)
"""Generations of commits that are fetched; more, while all of them are younger than the outcome."""
CLOCKS_DIFFER_SECONDS: Final = 24 * 3600
"""A commit this much older than the outcome cannot be it, even where clocks are wrong."""

Sleep = Callable[[float], None]


def write(job: GitJob, access: GitAccess, sleep: Sleep = time.sleep) -> GitAnswer:
    """Write an outcome, unless it is there already.

    Args:
        job: what to write where.
        access: credentials.
        sleep: waits so many seconds between tries.
    """
    try:
        remote = Remote(job.url, access)
        refusal: RemoteError | None = None
        heads: tuple[ObjectID | None, ...] = ()
        for attempt in range(MAX_TRIES):
            if attempt:
                sleep(random.uniform(0.05, 0.2) * 2 ** min(attempt, 4))  # noqa: S311 - spreads tries, no secret
            before, heads = heads, _heads(remote, job)
            answer = _settled(remote, job, heads)
            if answer is not None:
                return answer
            if refusal is not None and before == heads:
                raise refusal  # nobody was faster: it is refused as such
            try:
                return _push(remote, job, access, heads)
            except MovedError:
                refusal = None
            except RemoteError as error:
                if error.reason != "GitRefused":
                    raise
                refusal = error
    except RemoteError as error:
        return GitAnswer(problem=error.reason, message=str(error))
    message = f"others pushed to {job.branch} {MAX_TRIES} times meanwhile"
    return GitAnswer(problem="GitConflict", message=message)


def _heads(remote: Remote, job: GitJob) -> tuple[ObjectID | None, ...]:
    """Give the heads of the branch, and of the branch for a pull request where one is wanted."""
    refs = remote.refs()
    names = [job.branch, *([job.work_branch] if job.work_branch else [])]
    heads = tuple(refs.get(_ref(name)) for name in names)
    if heads[0] is None:
        msg = f"there is no branch {job.branch}: correct spec.gitops.branch"
        raise RemoteError("GitFileUnusable", msg)
    return heads


def _settled(remote: Remote, job: GitJob, heads: tuple[ObjectID | None, ...]) -> GitAnswer | None:
    """Find the outcome where it is already."""
    wanted = [head for head in heads if head is not None]
    branches = [job.branch, job.work_branch]
    for depth in DEPTHS:
        remote.fetch(wanted, depth)
        more = False
        for branch, head in zip(branches, heads, strict=False):
            if head is None:
                continue
            found, cut = _search(remote, job, head)
            if found is not None:
                return GitAnswer(commit=found.decode(), branch=branch, found=True)
            more = more or cut
        if not more:
            return None
    msg = f"{job.branch} has more than {DEPTHS[-1]} commits since the outcome: it cannot be told whether one is it"
    raise RemoteError("GitFileUnusable", msg)


def _search(remote: Remote, job: GitJob, head: ObjectID) -> tuple[ObjectID | None, bool]:
    """Look at all that was fetched.

    Returns:
        The commit of the outcome, if it is there; whether the history was cut off before commits were old enough.
    """
    seen: set[ObjectID] = set()
    waiting = [head]
    cut = False
    while waiting:
        sha = waiting.pop()
        if sha in seen:
            continue
        seen.add(sha)
        commit = remote.commit(sha)
        if commit is None:
            continue
        if is_outcome(commit.message.decode("utf-8", "replace"), job.outcome):
            return sha, False
        missing = any(remote.commit(parent) is None for parent in commit.parents)
        young = commit.commit_time >= job.at - CLOCKS_DIFFER_SECONDS
        cut = cut or (missing and young)
        waiting += commit.parents
    return None, cut


def _push(
    remote: Remote, job: GitJob, access: GitAccess, heads: tuple[ObjectID | None, ...]
) -> GitAnswer:
    """Make the commit and push it, or say that there is nothing to write."""
    head = heads[0]
    assert head is not None  # noqa: S101 - see _heads
    base = remote.commit(head)
    assert base is not None  # noqa: S101 - it was fetched
    composition = compose(job, lambda path: _read(remote, base, path))
    if composition.problem:
        raise RemoteError("GitFileUnusable", composition.problem)
    if not composition.files:
        return GitAnswer(nothing=composition.nothing)
    commit, objects = _make(remote, job, base, composition)
    if access.signing_key:
        from canarium_operator.adapters.git import signing

        signing.sign(commit, access.signing_key, access.signing_password)
    branch = job.work_branch or job.branch
    remote.push(_ref(branch), heads[-1], commit.id, [*objects, commit])
    return GitAnswer(commit=commit.id.decode(), branch=branch)


def _ref(branch: str) -> bytes:
    return b"refs/heads/" + branch.encode()


def _read(remote: Remote, base: Commit, path: str) -> bytes | None:
    store = remote.repo.object_store
    try:
        _, sha = tree_lookup_path(store.__getitem__, base.tree, path.encode())
        found = store[sha]
    except (KeyError, NotADirectoryError):
        return None
    return found.data if isinstance(found, Blob) else None


def _make(
    remote: Remote, job: GitJob, base: Commit, composition: Composition
) -> tuple[Commit, list[ShaFile]]:
    """Make the commit, and all objects that the server does not have."""
    objects: list[ShaFile] = []
    tree_id = base.tree
    for path, content in composition.files.items():
        blob = Blob.from_string(content)
        objects.append(blob)
        tree_id = _put(remote, tree_id, path.encode().split(b"/"), blob, objects)
    commit = Commit()
    commit.tree = tree_id
    commit.parents = [base.id]
    commit.author = commit.committer = job.author.encode()
    # The outcome's own time for the author, the present for the committer: a history stays in order.
    commit.author_time, commit.commit_time = job.at, max(int(time.time()), base.commit_time)
    commit.author_timezone = commit.commit_timezone = 0
    commit.encoding = b"UTF-8"
    commit.message = job.message.encode()
    return commit, objects


def _put(
    remote: Remote, tree_id: ObjectID | None, path: list[bytes], blob: Blob, objects: list[ShaFile]
) -> ObjectID:
    """Give the tree with a file put into it; the trees on the way are made anew."""
    known = {each.id: each for each in objects}
    before = Tree()
    if tree_id is not None:
        found = known.get(tree_id) or remote.repo.object_store[tree_id]
        if not isinstance(found, Tree):
            msg = "a folder on the way to the file is a file itself"
            raise RemoteError("GitFileUnusable", msg)
        before = found
    tree = Tree()
    for entry in before.items():
        tree.add(entry.path, entry.mode, entry.sha)
    name, *rest = path
    if rest:
        below = before[name][1] if name in before else None
        tree[name] = (0o040000, _put(remote, below, rest, blob, objects))
    else:
        mode = before[name][0] if name in before else 0o100644
        tree[name] = (mode, blob.id)
    objects.append(tree)
    return tree.id
