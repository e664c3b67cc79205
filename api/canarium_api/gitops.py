"""`spec.gitops`: the outcome of a rollout, written into the git repository that the manifest came from."""

from enum import StrEnum

from pydantic import Field

from canarium_api.base import ApiModel, rules

_PATH_PATTERN = r"^([A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*\.ya?ml$"
_BRANCH_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$"


class WriteMode(StrEnum):
    """How an outcome gets into git."""

    COMMIT = "Commit"
    """One commit on the branch itself."""
    PULL_REQUEST = "PullRequest"
    """One commit on a branch of its own, `canarium/NAMESPACE/NAME/REVISION`, for somebody to merge."""
    NOTHING = "Nothing"
    """Nothing is written."""


class ForgeKind(StrEnum):
    """What serves the repository, and its API."""

    GITHUB = "GitHub"
    """GitHub, GitHub Enterprise, or what speaks the same API."""
    GITLAB = "GitLab"
    """GitLab."""


class ForgeSpec(ApiModel):
    """The API of GitHub or GitLab: opens pull requests, and marks commits with the state of their rollout."""

    kind: ForgeKind
    """Whose API it is."""
    url: str | None = Field(default=None, max_length=2048, pattern=r"^https?://[^/@\s]+(/\S*)?$")
    """Base of the API. Default: `https://api.github.com`, or `https://gitlab.com/api/v4`."""
    project: str = Field(
        min_length=3, max_length=255, pattern=r"^[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)+$"
    )
    """Path of the repository there: `owner/name`, or `group/subgroup/name`."""
    secret: str = Field(min_length=1, max_length=253)
    """Name of a Secret in the same namespace whose key `token` may use the API."""
    pull_requests: bool = True
    """Open a pull request (GitLab: merge request) for each branch that is pushed."""
    commit_statuses: bool = False
    """Mark the commit that last changed `manifest` with the state of its rollout: pending, success or failure."""


class SigningSpec(ApiModel):
    """With which key commits are signed."""

    secret: str = Field(min_length=1, max_length=253)
    """Name of a Secret in the same namespace: its key `identity` is a private SSH key (OpenSSH or PEM), `password` its
    passphrase where it has one. It may be that of `gitops.secret`."""


class AuthorSpec(ApiModel):
    """Who the commits are by."""

    name: str = Field(default="Canarium", min_length=1, max_length=100, pattern=r"^[^<>\n]+$")
    """Name."""
    email: str = Field(
        default="noreply@canarium.dev", min_length=3, max_length=254, pattern=r"^[^<>\s]+@[^<>\s]+$"
    )
    """Address. A forge shows a signed commit as verified where the key belongs to the account of this address."""


class GitOpsSpec(ApiModel):
    """Write each promotion and each rollback into git, as one commit. What cannot be written is said in the condition
    `OutcomeRecorded`; it never holds a rollout.
    """

    model_config = rules(
        (
            "has(self.manifest) || (has(self.onRollback) && self.onRollback == 'Nothing')",
            "gitops.manifest is required where a rollback is written to git: name the file that holds this "
            "ModelDeployment, or set onRollback to Nothing",
        ),
        (
            "self.url.startsWith('https://') || has(self.secret)",
            "gitops.secret is required with an ssh:// URL: name a Secret with the keys identity and known_hosts",
        ),
        (
            "!has(self.forge) || !has(self.forge.commitStatuses) || !self.forge.commitStatuses || has(self.manifest)",
            "gitops.manifest is required with forge.commitStatuses: it tells which commit is meant",
        ),
    )

    url: str = Field(
        max_length=2048, pattern=r"^(https://[^/@\s]+/\S+|ssh://([A-Za-z0-9._-]+@)?[^/@\s]+/\S+)$"
    )
    """The repository: `https://host/path` or `ssh://git@host/path`. Without a password: that comes from `secret`."""
    branch: str = Field(default="main", min_length=1, max_length=200, pattern=_BRANCH_PATTERN)
    """The branch that is deployed."""
    secret: str | None = Field(default=None, min_length=1, max_length=253)
    """Name of a Secret in the same namespace, with the keys that Flux uses: `username` and `password` for https, and
    `ca.crt` for an authority of your own; `identity` (a private key), `known_hosts` and, for its passphrase, `password`
    for ssh. Required for ssh: without `known_hosts` no host is trusted."""
    manifest: str | None = Field(default=None, max_length=1024, pattern=_PATH_PATTERN)
    """File with this ModelDeployment, or with the kustomize patch of it that names its model. A rollback is undone
    there."""
    record: str | None = Field(default=None, max_length=1024, pattern=_PATH_PATTERN)
    """File that a promotion is recorded in. Default: `released/NAME.yaml`, in the folder of `manifest`."""
    on_promotion: WriteMode = WriteMode.COMMIT
    """What becomes of a promotion: the record in git."""
    on_rollback: WriteMode = WriteMode.PULL_REQUEST
    """What becomes of a rollback: the manifest as it was before, in git."""
    author: AuthorSpec = AuthorSpec()
    """Who the commits are by."""
    signing: SigningSpec | None = None
    """Sign the commits. Default: they are not signed."""
    forge: ForgeSpec | None = None
    """API of GitHub or GitLab. Default: git alone is used."""


class EvidenceRow(ApiModel):
    """What one check said in the end, for the record in git."""

    name: str = Field(max_length=100)
    """Name of the check."""
    verdict: str = Field(max_length=40)
    """What it said."""
    value: float | None = None
    """The revision's value."""
    baseline: float | None = None
    """The value of the revision that it replaced."""
    limit: str | None = Field(default=None, max_length=500)
    """What it was held against."""
    samples: int | None = None
    """Requests that it rests on."""
    p_value: float | None = None
    """Chance to see evidence as strong if both were as good."""


class Lineage(ApiModel):
    """One revision, as the record names it."""

    revision: str = Field(max_length=63)
    """Hash of everything that decides a prediction."""
    version: str = Field(max_length=63)
    """Version for people."""
    sha256: str | None = Field(default=None, max_length=64)
    """Digest of the model, where it is pinned."""


class ReleaseRecord(ApiModel):
    """What the operator wrote of a promotion. Nothing is decided by it."""

    outcome: str = Field(max_length=400)
    """Which one: `NAMESPACE/NAME/UID/EPOCH`."""
    revision: str = Field(max_length=63)
    """Hash of everything that decides a prediction."""
    released_at: str = Field(max_length=40)
    """When it became the stable revision, UTC."""
    message: str = Field(default="", max_length=1000)
    """The promotion in a sentence."""
    replaces: Lineage | None = None
    """The revision before it."""
    commit: str | None = Field(default=None, max_length=64)
    """Commit that asked for it, where the forge has told."""
    evidence: list[EvidenceRow] = Field(default=[], max_length=20)
    """Its checks, as they stood."""
