"""Errors that cross a port. No error of a library gets past its adapter.

OperatorError
├── ClusterError
│   ├── TransientClusterError   the API server is down, slow or throttling: try again later
│   ├── ConflictError           somebody wrote in between: observe again
│   ├── NotFoundError           the object is gone
│   ├── RejectedError           the API server refuses this object: only a change of the spec helps
│   └── ForbiddenError          RBAC: only an administrator helps
├── MetricSourceError           the query could not be answered
├── ProbeError                  a pod did not tell its model's inputs and outputs
├── WebhookError                an outside system did not answer
└── ForgeError                  the API of GitHub or GitLab refused, or did not answer
"""


class OperatorError(Exception):
    """Base of all errors that the operator handles."""


class ClusterError(OperatorError):
    """The cluster could not do what was asked."""


class TransientClusterError(ClusterError):
    """Unreachable, timed out, 5xx or throttled.

    Attributes:
        retry_after: seconds that the API server asked to wait, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ConflictError(ClusterError):
    """The object changed since it was read (409)."""


class NotFoundError(ClusterError):
    """The object does not exist (404, 410)."""


class RejectedError(ClusterError):
    """The API server refused the object (400, 422, or 403 by an admission plugin such as a quota)."""


class ForbiddenError(ClusterError):
    """The operator's service account may not do this (401, 403)."""


class MetricSourceError(OperatorError):
    """The query could not be answered: unreachable, timed out, refused, or an answer that is not one number."""


class ProbeError(OperatorError):
    """A pod did not tell its model's inputs and outputs: unreachable, slow, or an answer that is something else."""


class WebhookError(OperatorError):
    """An outside system did not answer; the message holds no URL, since a webhook's URL is a secret."""


class ForgeError(OperatorError):
    """The API of GitHub or GitLab refused, or did not answer; the message holds no token."""
