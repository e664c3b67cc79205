"""Credentials for git and for forges, out of the Secrets that `spec.gitops` names.

They are read for each try and kept nowhere, so that a Secret that was corrected counts at once.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from canarium_api.gitops import ForgeKind, ForgeSpec, GitOpsSpec
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.outcomes.jobs import GitAccess
from canarium_operator.errors import ForbiddenError
from canarium_operator.ports import Cluster, ForgeAccess

_APIS: Final = {
    ForgeKind.GITHUB: "https://api.github.com",
    ForgeKind.GITLAB: "https://gitlab.com/api/v4",
}


class SecretError(Exception):
    """A Secret cannot be used; the message names it, and the key that is missing."""


class Credentials:
    """Reads them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def git(self, ref: ObjectRef, spec: GitOpsSpec) -> GitAccess:
        """Read what git and signatures need; raises SecretError, or a ClusterError of the API server."""
        access = GitAccess()
        if spec.secret is not None:
            keys = await self._secret(ref, spec.secret)
            needed = ("identity", "known_hosts") if spec.url.startswith("ssh:") else ()
            _require(spec.secret, keys, needed)
            access = GitAccess(
                username=keys.get("username", "").strip(),
                password=keys.get("password", "").strip(),
                authority=keys.get("ca.crt", ""),
                identity=keys.get("identity", ""),
                known_hosts=keys.get("known_hosts", ""),
            )
        if spec.signing is not None:
            keys = await self._secret(ref, spec.signing.secret)
            _require(spec.signing.secret, keys, ("identity",))
            access = replace(
                access,
                signing_key=keys["identity"],
                signing_password=keys.get("password", "").strip(),
            )
        return access

    async def forge(self, ref: ObjectRef, forge: ForgeSpec) -> ForgeAccess:
        """Read what the forge needs; raises as `git` does."""
        keys = await self._secret(ref, forge.secret)
        _require(forge.secret, keys, ("token",))
        return ForgeAccess(
            kind=forge.kind,
            url=(forge.url or _APIS[forge.kind]).rstrip("/"),
            project=forge.project,
            token=keys["token"].strip(),
        )

    async def _secret(self, ref: ObjectRef, name: str) -> Mapping[str, str]:
        try:
            found = await self._cluster.secret(ref.namespace, name)
        except ForbiddenError as error:
            msg = f"the operator may not read the Secret {name}: grant it, see manifests/read-git-secrets.yaml"
            raise SecretError(msg) from error
        if found is None:
            msg = f"Secret {name} does not exist in namespace {ref.namespace}: create it"
            raise SecretError(msg)
        return found


def _require(name: str, keys: Mapping[str, str], needed: tuple[str, ...]) -> None:
    for key in needed:
        if not keys.get(key, "").strip():
            msg = f"Secret {name} has no key '{key}': add it"
            raise SecretError(msg)
