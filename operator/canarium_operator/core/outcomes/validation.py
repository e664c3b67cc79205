"""Checks of `spec.gitops` across its fields: the CRD's own rules, for where there is no API server to hold them."""

from canarium_api.gitops import WriteMode
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.problems import Problem


def validate_gitops(spec: ModelDeploymentSpec) -> list[Problem]:
    """Check where outcomes are written."""
    gitops = spec.gitops
    if gitops is None:
        return []
    problems = []
    if spec.rollout.fixed is not None:
        message = (
            "writes promotions and rollbacks, and rollout.fixed has none: remove one of the two"
        )
        problems.append(Problem(field="spec.gitops", message=message))
    if gitops.manifest is None and gitops.on_rollback is not WriteMode.NOTHING:
        message = (
            "is required where a rollback is written to git: name the file that holds this ModelDeployment, or set "
            "onRollback to Nothing"
        )
        problems.append(Problem(field="spec.gitops.manifest", message=message))
    if gitops.manifest is None and gitops.forge is not None and gitops.forge.commit_statuses:
        message = "is required with forge.commitStatuses: it tells which commit is meant"
        problems.append(Problem(field="spec.gitops.manifest", message=message))
    if gitops.url.startswith("ssh:") and gitops.secret is None:
        message = (
            "is required with an ssh:// URL: name a Secret with the keys identity and known_hosts"
        )
        problems.append(Problem(field="spec.gitops.secret", message=message))
    return problems
