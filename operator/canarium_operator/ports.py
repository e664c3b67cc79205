"""What the operator needs of the world: small protocols, each with a real adapter and a fake.

One contract suite (tests/contract) runs against both sides, so that the fakes stay honest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from canarium_api.gitops import ForgeKind
from canarium_api.status import SignatureStatus
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.outcomes.jobs import GitAccess, GitAnswer, GitJob
from canarium_operator.core.rollout.queries import Query, Vector

Manifest = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """One Event of a transition. Its name is made of the object's uid, the epoch and what it is about: posting it
    twice leaves one.
    """

    epoch: int
    reason: str
    message: str
    warning: bool
    at: datetime
    about: str = ""
    """Part of the name, where there is more to tell of a transition than itself."""


class Cluster(Protocol):
    """The Kubernetes API, as far as the operator uses it. Methods raise `errors.ClusterError`s alone."""

    async def get(self, ref: ObjectRef, *, fresh: bool = False) -> Manifest | None:
        """Read a ModelDeployment; None where there is none.

        What others changed a moment ago may be missing, what this process wrote is there. `fresh` asks the API server
        itself. Nothing in the answer may be changed.
        """

    async def children(self, ref: ObjectRef) -> Sequence[Manifest]:
        """List all objects labelled as children, pods included, of every kind that the operator makes.

        What others changed a moment ago may be missing, what this process wrote is there. Nothing in the answer may be
        changed.
        """

    async def reread(self, manifest: Manifest) -> Manifest | None:
        """Read a child from the API server itself; None where there is none of its kind and name."""

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply with force, under the operator's field manager.

        Raises RejectedError for an object of the same name that belongs to nobody of ours: it is never taken over.
        """

    async def apply_status(self, manifest: Manifest) -> Manifest:
        """Server-side apply of `.status`; raises ConflictError when `metadata.resourceVersion` is no longer current."""

    async def scale(self, manifest: Manifest, replicas: int) -> None:
        """Raise the replicas of a Deployment through its scale subresource, as an autoscaler would; never lowers
        them.
        """

    async def resize(self, manifest: Manifest, replicas: int) -> None:
        """Set the replicas of a Deployment through its scale subresource, up or down; gone already is fine."""

    async def objects_of_jobs(self) -> Sequence[Manifest]:
        """List the Deployments and ConfigMaps labelled `naming.JOBS_LABEL`, of all ModelDeployments; see `children`."""

    async def copies(self, namespace: str) -> Sequence[Manifest]:
        """List the copies of memories in a namespace, as they are now."""

    async def delete(self, manifest: Manifest) -> None:
        """Delete an object, only if its uid is still the same; dependents go in the background. Gone already
        is fine.
        """

    async def template(self, namespace: str | None, name: str) -> Manifest | None:
        """Read an AnalysisTemplate, or without a namespace a ClusterAnalysisTemplate; None where there is none."""

    async def gateway_class(self, namespace: str, name: str) -> Manifest | None:
        """Read the GatewayClass of a Gateway; None where either of the two is not there, or may not be read."""

    async def secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Read a Secret's texts; None where there is none."""

    async def signature(
        self, ref: ObjectRef, revision: str, model: str, *, tls: bool = False
    ) -> SignatureStatus:
        """Ask a ready pod of a revision, through its Service, for the inputs and outputs of its model.

        Args:
            ref: the ModelDeployment.
            revision: whose pods are asked.
            model: its name in URLs.
            tls: whether the pods speak TLS.

        Raises:
            errors.ProbeError: none answered in time, or the answer is something else.
        """

    async def record_event(self, ref: ObjectRef, event: EventRecord) -> None:
        """Post an Event about the ModelDeployment, unless it was posted before."""


class MetricSource(Protocol):
    """Prometheus."""

    async def query(self, query: Query) -> Vector:
        """Evaluate an instant query; an empty vector where there is no data.

        Raises:
            errors.MetricSourceError: unreachable, timed out, refused, or no instant vector.
        """


class Webhooks(Protocol):
    """Outside systems."""

    async def post(
        self, url: str, token: str | None, body: Mapping[str, Any], timeout: float
    ) -> tuple[int, Any]:
        """Post a JSON document; give the status and the answer as JSON, None where it is none.

        Raises:
            errors.WebhookError: no answer within the timeout, in seconds.
        """


class GitWriter(Protocol):
    """A git server."""

    async def write(self, job: GitJob, access: GitAccess) -> GitAnswer:
        """Write an outcome, unless it is there already: afterwards there is one commit of it, or none.

        Takes a bounded time; what goes wrong is an answer too. May be cut off at any moment.
        """


@dataclass(frozen=True, kw_only=True)
class ForgeAccess:
    """Whose API, which repository, and with what."""

    kind: ForgeKind
    url: str
    """Base of the API, without a slash at its end."""
    project: str
    token: str = field(repr=False)


class CommitState(StrEnum):
    """How the rollout of a commit stands."""

    PENDING = "pending"
    SUCCESS = "success"
    FAILURE = "failure"


class Forge(Protocol):
    """The API of GitHub or GitLab. Methods raise `errors.ForgeError`s alone."""

    async def commit_of(self, access: ForgeAccess, branch: str, path: str) -> str | None:
        """Find the newest commit of a branch that changed a file, and that is not the operator's own."""

    async def mark(
        self, access: ForgeAccess, commit: str, context: str, state: CommitState, words: str
    ) -> None:
        """Say on a commit how its rollout stands; saying it twice is fine."""

    async def request(
        self, access: ForgeAccess, *, source: str, target: str, commit: str, title: str, body: str
    ) -> str:
        """Open a pull request for a branch, unless there is one; gives its address.

        Args:
            access: whose.
            source: the branch.
            target: where it shall be merged.
            commit: head of the branch: a request for it that was closed is not opened anew.
            title: one line.
            body: Markdown.
        """


class Clock(Protocol):
    """Time, so that tests can be in charge of it."""

    def now(self) -> datetime:
        """Give the present instant, in UTC."""
