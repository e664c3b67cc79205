"""What the process that writes into git is told, and what it answers. Plain values that travel as JSON.

No type of the API is used here, so that what travels is exactly what is listed.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

TRAILER: Final = "Canarium-Outcome"
"""Trailer of a commit that says which outcome it is: what is found is never written again."""
REVERT: Final = "revert"
RECORD: Final = "record"


@dataclass(frozen=True, kw_only=True)
class GitEdit:
    """One value of the manifest: `before` and `after` as JSON, None where there is none."""

    path: tuple[str, ...]
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class GitAccess:
    """Credentials; never in a repr, so that no log can have them."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    """For https; for ssh the passphrase of the key."""
    authority: str = field(default="", repr=False)
    """PEM of a certificate authority."""
    identity: str = field(default="", repr=False)
    known_hosts: str = field(default="", repr=False)
    signing_key: str = field(default="", repr=False)
    signing_password: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class GitJob:
    """One outcome to write."""

    url: str
    branch: str
    work_branch: str = ""
    """Branch for a pull request; empty: the commit goes onto `branch`."""
    kind: str
    """REVERT or RECORD."""
    outcome: str
    """`NAMESPACE/NAME/UID/EPOCH`."""
    at: int
    """When it happened, seconds since the epoch: no older commit can be it."""
    name: str
    """Of the ModelDeployment."""
    subject: str
    body: str
    author: str
    """`Name <address>`."""
    manifest: str = ""
    record: str = ""
    only_first: bool = False
    """The record is written only where there is none."""
    content: dict[str, Any] = field(default_factory=dict)
    """The record, without the name of its object."""
    edits: tuple[GitEdit, ...] = ()

    @property
    def message(self) -> str:
        """The whole message of the commit."""
        return f"{self.subject}\n\n{self.body.rstrip()}\n\n{TRAILER}: {self.outcome}\n"


@dataclass(frozen=True, kw_only=True)
class GitAnswer:
    """What became of a job. Exactly one of commit, nothing and problem is set."""

    commit: str = ""
    branch: str = ""
    found: bool = False
    """The commit was there already."""
    nothing: str = ""
    """Why there is nothing to write."""
    problem: str = ""
    """A reason of `conditions.Reason`."""
    message: str = ""
    """The problem in words."""

    def to_json(self) -> str:
        """Write it as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read it; raises ValueError or TypeError for anything else."""
        return cls(**json.loads(text))


def to_json(job: GitJob, access: GitAccess) -> str:
    """Write what the process is told."""
    return json.dumps({"job": asdict(job), "access": asdict(access)})


def from_json(text: str) -> tuple[GitJob, GitAccess]:
    """Read it; raises ValueError, KeyError or TypeError for anything else."""
    told = json.loads(text)
    edits = tuple(
        GitEdit(path=tuple(edit["path"]), before=edit["before"], after=edit["after"])
        for edit in told["job"].pop("edits")
    )
    return GitJob(**told["job"], edits=edits), GitAccess(**told["access"])


def is_outcome(message: str, outcome: str) -> bool:
    """Tell whether a commit's message has the trailer; a squashed merge has it somewhere in its middle."""
    wanted = f"{TRAILER}: {outcome}"
    return any(line.strip() == wanted for line in message.splitlines())
