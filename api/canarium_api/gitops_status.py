"""`status.gitops`: outcomes that are still to be written into git, and those that are."""

from datetime import datetime
from typing import Final

from pydantic import Field

from canarium_api.base import ApiModel
from canarium_api.gitops import EvidenceRow, Lineage

MAX_DUE: Final = 5
"""Outcomes that wait for git; of more, the oldest are given up."""
MAX_WRITTEN: Final = 5
MAX_EDITS: Final = 40


class Edit(ApiModel):
    """One value of the spec that a rollback puts back."""

    path: list[str] = Field(min_length=1, max_length=12)
    """Where it is, from `spec` on: `[model, uri]`."""
    before: str | None = None
    """What the revision that failed had, as JSON; absent: nothing."""
    after: str | None = None
    """What the stable revision has, as JSON; absent: nothing."""


class DueOutcome(ApiModel):
    """The end of one rollout, with all that git shall say of it. It is noted together with the transition itself."""

    epoch: int
    """Number of the transition."""
    outcome: str
    """Deployed, Promoted or RolledBack."""
    reason: str
    message: str
    at: datetime
    who: Lineage
    """The revision that it is about."""
    uri: str = ""
    """Where its model is."""
    version: str | None = None
    """Its version, where the spec says one."""
    other: Lineage | None = None
    """The revision that it replaced, or that serves in its place."""
    evidence: list[EvidenceRow] = Field(default=[], max_length=20)
    edits: list[Edit] = Field(default=[], max_length=MAX_EDITS)
    """What the manifest must say again after a rollback."""
    problem: str | None = None
    """Why it is not in git yet (a reason)."""
    problem_message: str = ""


class WrittenOutcome(ApiModel):
    """An outcome that is settled."""

    epoch: int
    outcome: str
    revision: str
    commit: str | None = None
    """Absent: there was nothing to write."""
    branch: str = ""
    link: str = ""
    """The pull request."""
    message: str = ""
    at: datetime
    """When it was recorded here."""


class SourceCommit(ApiModel):
    """The commit that asked for a revision, as the forge told when its rollout began."""

    revision: str
    commit: str


class GitOpsStatus(ApiModel):
    """What is known of outcomes in git; only with `spec.gitops`."""

    due: list[DueOutcome] = Field(default=[], max_length=MAX_DUE)
    """Still to be written, oldest first."""
    written: list[WrittenOutcome] = Field(default=[], max_length=MAX_WRITTEN)
    """Settled, latest last."""
    source: SourceCommit | None = None
    given_up: int = 0
    """Outcomes that were never written, because too many others waited."""
