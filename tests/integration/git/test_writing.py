"""Outcomes written to real git servers: over https, over ssh, on disk; and what they have against it."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.integration.git.worlds import (
    MANIFEST,
    RECORD_FILE,
    commit_of,
    manifest,
    record,
    revert,
)
from tests.services.git import PASSWORD, USER, HttpsServer, Repository, SshServer, make_key

from canarium_operator.adapters.git.process import GitProcess
from canarium_operator.adapters.git.writing import DEPTHS, MAX_TRIES, write
from canarium_operator.core.outcomes.jobs import GitAccess

WORK = "canarium/ml/fraud/rev3"


def no_sleep(_seconds: float) -> None:
    """Do not wait between tries."""


def https_access(server: HttpsServer) -> GitAccess:
    return GitAccess(username=USER, password=PASSWORD, authority=server.authority)


def ssh_access(server: SshServer) -> GitAccess:
    return GitAccess(identity=server.identity, known_hosts=server.known_hosts)


def test_a_rollback_is_one_commit_that_puts_the_version_back(repository: Repository) -> None:
    """The manifest is as it was, with its comments; the commit says what happened, and that it is an outcome."""
    answer = write(revert(repository.url), GitAccess())
    assert repository.git("rev-parse", "main") == commit_of(answer)
    assert repository.file(MANIFEST) == manifest("2")
    assert repository.file("README.md") == "models\n"
    assert repository.messages()[0] == (
        "fraud: take v3 back to v2 (AnalysisFailed)\n\n"
        "v3 taken back at step 1/2 (10%): error-rate 40%\n\n"
        "Canarium-Outcome: ml/fraud/uid-1/7\n"
    )
    repository.git("fsck", "--strict")


def test_the_same_outcome_is_written_once(repository: Repository) -> None:
    """The second time finds it, whatever others have pushed since."""
    first = write(revert(repository.url), GitAccess())
    for number in range(3):
        repository.push({"README.md": f"{number}\n"}, f"work {number}")
    again = write(revert(repository.url), GitAccess())
    assert (again.commit, again.found) == (first.commit, True)
    assert repository.outcomes() == ["ml/fraud/uid-1/7"]


def test_a_promotion_is_recorded_beside_the_manifest(repository: Repository) -> None:
    """A later one replaces it, an earlier one and a first deployment do not, and neither does the same revision."""
    url = repository.url
    commit_of(write(record(url, 9, "aaaa", "2026-01-05", only_first=True), GitAccess()))
    written = yaml.safe_load(repository.file(RECORD_FILE) or "")
    assert written["spec"]["rollout"]["lastGood"]["version"] == "3"
    assert written["metadata"] == {"name": "fraud", "namespace": "ml"}
    for job, words in (
        (record(url, 10, "bbbb", "2026-01-04"), "has a later promotion"),
        (record(url, 11, "aaaa", "2026-01-06"), "names aaaa already"),
        (record(url, 12, "cccc", "2026-01-06", only_first=True), "has a record already"),
    ):
        assert words in write(job, GitAccess()).nothing
    commit_of(write(record(url, 13, "dddd", "2026-01-07"), GitAccess()))
    assert repository.outcomes() == ["ml/fraud/uid-1/13", "ml/fraud/uid-1/9"]


def test_a_rollback_for_a_pull_request_leaves_the_branch_alone(repository: Repository) -> None:
    """It is found on its own branch, and after the merge on the other one, even if its branch is gone."""
    before = repository.git("rev-parse", "main")
    job = revert(repository.url, work_branch=WORK)
    answer = write(job, GitAccess())
    assert (answer.branch, answer.found) == (WORK, False)
    assert repository.git("rev-parse", "main") == before
    assert repository.git("rev-parse", f"{WORK}~1") == before
    assert write(job, GitAccess()).found
    repository.git("update-ref", "refs/heads/main", commit_of(answer))
    repository.git("update-ref", "-d", f"refs/heads/{WORK}")
    again = write(job, GitAccess())
    assert (again.found, again.branch) == (True, "main")


def test_a_second_failure_of_the_same_revision_takes_over_its_branch(
    repository: Repository,
) -> None:
    """Nobody merged the first request: the branch then has the second outcome alone."""
    write(revert(repository.url, 7, work_branch=WORK), GitAccess())
    repository.push({"README.md": "more\n"}, "work")
    commit_of(write(revert(repository.url, 15, work_branch=WORK), GitAccess()))
    assert repository.outcomes(WORK) == ["ml/fraud/uid-1/15"]
    assert repository.git("rev-parse", f"{WORK}~1") == repository.git("rev-parse", "main")


def test_a_manifest_that_moved_on_is_left_alone(repository: Repository) -> None:
    """Somebody has committed version 4 meanwhile: there is nothing to take back."""
    repository.push({MANIFEST: manifest("4")}, "version 4")
    answer = write(revert(repository.url), GitAccess())
    assert "fraud/4/model.onnx" in answer.nothing
    assert repository.outcomes() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"manifest": "elsewhere.yaml"}, "elsewhere.yaml on main does not exist"),
        ({"manifest": "README.md"}, "has 0 ModelDeployments"),
        ({"branch": "release"}, "there is no branch release"),
    ],
    ids=["no file", "another file", "no branch"],
)
def test_what_is_not_there_is_said(
    repository: Repository, changes: dict[str, str], words: str
) -> None:
    """The message names the field or the file."""
    answer = write(revert(repository.url, **changes), GitAccess())
    assert answer.problem == "GitFileUnusable"
    assert words in answer.message


def test_a_conflict_is_built_anew_on_the_new_head(repository: Repository) -> None:
    """Somebody pushes between the look and the push, at each of the first tries."""
    pushes = iter(range(3))

    def interfere(_seconds: float = 0) -> None:
        number = next(pushes, None)
        if number is not None:
            repository.push({"README.md": f"{number}\n"}, f"in between {number}")

    answer = write_with(interfere, repository)
    assert repository.git("rev-parse", "main") == commit_of(answer)
    assert repository.file("README.md") == "2\n"
    assert repository.file(MANIFEST) == manifest("2")
    assert repository.outcomes() == ["ml/fraud/uid-1/7"]


def test_a_branch_that_never_stands_still_is_given_up_for_now(repository: Repository) -> None:
    """After a bounded number of tries it says so; a later try is the scribe's."""

    def interfere(_seconds: float = 0) -> None:
        repository.push({}, "in between")

    answer = write_with(interfere, repository)
    assert answer.problem == "GitConflict"
    assert f"{MAX_TRIES} times" in answer.message
    assert repository.outcomes() == []


def write_with(interfere: Callable[[], None], repository: Repository) -> object:
    """Write, while somebody does something after each look at the branches."""
    from canarium_operator.adapters.git import remote

    class Watched(remote.Remote):
        def push(self, *args: object) -> None:
            interfere()
            super().push(*args)  # type: ignore[arg-type]

    from canarium_operator.adapters.git import writing

    original = writing.Remote
    writing.Remote = Watched  # type: ignore[misc]
    try:
        return write(revert(repository.url), GitAccess(), no_sleep)
    finally:
        writing.Remote = original  # type: ignore[misc]


def test_a_history_that_is_younger_than_the_outcome_is_searched_deeper(
    repository: Repository,
) -> None:
    """The outcome lies under more commits than are fetched at first."""
    first = write(revert(repository.url), GitAccess())
    commands = "".join(
        f"commit refs/heads/main\ncommitter x <x@y> {2_000_000_000 + n} +0000\ndata 1\nx\n"
        + ("from refs/heads/main^0\n" if n == 0 else "")
        for n in range(DEPTHS[0] + 10)
    )
    subprocess.run(
        ["git", "fast-import", "--quiet"], cwd=repository.path, input=commands.encode(), check=True
    )
    again = write(revert(repository.url), GitAccess())
    assert (again.found, again.commit) == (True, first.commit)


def test_https_with_a_password_and_an_authority(repository: Repository, https: HttpsServer) -> None:
    """The whole way through `git http-backend`, in the process that the operator starts."""
    job = revert(https.url(repository))
    answer = write(job, https_access(https))
    assert repository.git("rev-parse", "main") == commit_of(answer)
    assert write(job, https_access(https)).found
    assert write(replace(job, outcome="x/y/z/1", work_branch=WORK), https_access(https)).nothing


def test_a_repository_that_was_renamed_is_followed(
    repository: Repository, https: HttpsServer
) -> None:
    """The server redirects to its new name."""
    url = https.url(repository).replace("models.git", "renamed.git")
    answer = write(revert(url), https_access(https))
    assert repository.git("rev-parse", "main") == commit_of(answer)


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"password": "wrong"}, "GitAccessDenied", "401"),
        ({"username": "", "password": ""}, "GitAccessDenied", "401"),
        ({"authority": ""}, "GitUnreachable", "certificate verify failed"),
        ({"authority": "nonsense"}, "GitSecretUnusable", "ca.crt"),
    ],
    ids=["wrong password", "no password", "unknown authority", "no certificate"],
)
def test_https_refuses_who_is_not_known(
    repository: Repository,
    https: HttpsServer,
    changes: dict[str, str],
    reason: str,
    words: str,
) -> None:
    """Each has a reason and words of its own, and none of them shows the password."""
    answer = write(revert(https.url(repository)), replace(https_access(https), **changes))
    assert answer.problem == reason
    assert words in answer.message
    assert PASSWORD not in answer.to_json()
    assert repository.outcomes() == []


def test_lost_rights_and_a_lost_repository_are_told_apart(
    repository: Repository, https: HttpsServer
) -> None:
    """403 at the push, and 404."""
    access = https_access(https)
    https.forbidden = {"git-receive-pack"}
    answer = write(revert(https.url(repository)), access)
    assert (answer.problem, "403" in answer.message) == ("GitAccessDenied", True)
    gone = write(revert(https.url(repository) + "-gone"), access)
    assert (gone.problem, "404" in gone.message) == ("GitAccessDenied", True)


@pytest.mark.parametrize("way", ["disk", "https", "ssh"])
def test_a_protected_branch_is_said_with_the_servers_own_words(
    repository: Repository, way: str, request: pytest.FixtureRequest
) -> None:
    """A pre-receive hook refuses; nothing is written, and a later try succeeds."""
    repository.hook("pre-receive", 'echo "main is protected: open a request" >&2; exit 1')
    url, access = repository.url, GitAccess()
    if way == "https":
        server = request.getfixturevalue("https")
        url, access = server.url(repository), https_access(server)
    if way == "ssh":
        server = request.getfixturevalue("sshd")
        url, access = server.url(repository), ssh_access(server)
    answer = write(revert(url), access, no_sleep)
    assert answer.problem == "GitRefused"
    assert "pre-receive hook declined" in answer.message
    assert "main is protected: open a request" in answer.message
    assert repository.outcomes() == []
    (repository.path / "hooks" / "pre-receive").unlink()
    commit_of(write(revert(url), access))


@pytest.mark.filterwarnings(
    "ignore:unclosed Protocol"
)  # dulwich, after a hang-up; the process ends then
def test_ssh_with_a_key_and_known_hosts(repository: Repository, sshd: SshServer) -> None:
    """The whole way through OpenSSH's server."""
    job = revert(sshd.url(repository))
    answer = write(job, ssh_access(sshd))
    assert repository.git("rev-parse", "main") == commit_of(answer)
    assert write(job, ssh_access(sshd)).found
    gone = write(replace(job, url=job.url + "-gone"), ssh_access(sshd))
    assert gone.problem == "GitAccessDenied"


def test_ssh_trusts_nobody_that_is_not_named(
    repository: Repository, sshd: SshServer, tmp_path: Path
) -> None:
    """Another host key, no known_hosts, another key of ours, and a key that is none."""
    good = ssh_access(sshd)
    other = make_key(tmp_path / "other")
    public = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    locked = make_key(tmp_path / "locked", passphrase="open sesame")
    rows = (
        (replace(good, known_hosts=f"[127.0.0.1]:{sshd.port} {public}"), "GitAccessDenied"),
        (replace(good, known_hosts=f"example.com {public}"), "GitSecretUnusable"),
        (replace(good, known_hosts="# nobody\n"), "GitSecretUnusable"),
        (replace(good, identity=other), "GitAccessDenied"),
        (replace(good, identity="no key"), "GitSecretUnusable"),
        (replace(good, identity=locked), "GitSecretUnusable"),
        (replace(good, identity=locked, password="wrong"), "GitSecretUnusable"),
    )
    for access, reason in rows:
        answer = write(revert(sshd.url(repository)), access)
        assert (answer.problem, answer.message != "") == (reason, True)
        assert "sesame" not in answer.message
    assert repository.outcomes() == []


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_git_itself_verifies_the_signature(
    repository: Repository, tmp_path: Path, kind: str
) -> None:
    """With a passphrase, and for each kind of key."""
    key = make_key(tmp_path / "signer", kind, "open sesame")
    access = GitAccess(signing_key=key, signing_password="open sesame")
    commit = commit_of(write(revert(repository.url), access))
    signers = tmp_path / "signers"
    public = (tmp_path / "signer.pub").read_text()
    signers.write_text(f'noreply@canarium.dev namespaces="git" {public}')
    repository.git("config", "gpg.ssh.allowedSignersFile", str(signers))
    repository.git("config", "gpg.format", "ssh")
    repository.git("verify-commit", commit)  # fails where the signature is not good
    signers.write_text("")
    with pytest.raises(AssertionError, match="verify-commit"):
        repository.git("verify-commit", commit)


async def test_a_server_that_hangs_is_left_in_time(repository: Repository) -> None:
    """It takes the connection and says nothing: the process is killed at its deadline, and nothing is left of it."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=lambda: taken.append(listener.accept()[0]))
        accepting.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/models.git"
        answer = await GitProcess(deadline_seconds=2).write(revert(url), GitAccess())
        accepting.join()
    assert (answer.problem, answer.message) == ("GitUnreachable", "no end within 2 s")
    taken[0].settimeout(10)
    while taken[0].recv(65536):
        pass  # until the other end is closed: the process is gone
    taken[0].close()


async def test_a_server_that_is_not_there_is_said(repository: Repository) -> None:
    """In the process that the operator starts, with nothing of the operator's own environment."""
    os.environ["CANARIUM_SECRET_OF_THE_OPERATOR"] = "x"
    answer = await GitProcess().write(revert("https://127.0.0.1:9/models.git"), GitAccess())
    assert answer.problem == "GitUnreachable"
    assert "127.0.0.1 cannot be reached" in answer.message


async def test_a_process_that_dies_is_no_answer_and_no_crash() -> None:
    """Whatever ends it, the outcome is tried again later."""
    dying = GitProcess(command=("python3", "-c", "import os; os.abort()"))
    answer = await dying.write(revert("https://127.0.0.1:9/models.git"), GitAccess())
    assert (answer.problem, "-6" in answer.message) == ("GitUnreachable", True)
