"""An environment of the example's repository in the hands of Flux, set up as one team's among many."""

import json
import threading
from dataclasses import dataclass, field

import yaml

from canarium_devcluster.gitops.controller import Controller
from tests.e2e.gitops.environment import EXAMPLE, Environment
from tests.e2e.gitops.witness import Witness
from tests.e2e.kube import Manifest, wait_for

KUSTOMIZATION = "kustomizations.kustomize.toolkit.fluxcd.io"
MANAGER = "kustomize-controller"
"""Flux's field manager."""
_MODELS: Manifest = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "flux-models"},
    "rules": [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "verbs": ["get", "create", "patch", "delete"],
        }
    ],
}
"""The models of these tests travel in git, as ConfigMaps."""


@dataclass
class Tenant(Environment):
    """An environment that Flux applies."""

    flux: Controller = field(kw_only=True)

    def set_up(self) -> None:
        """Apply the example's set-up of the environment, as whoever runs the cluster does."""
        text = self.kubectl.run("kustomize", str(EXAMPLE / "flux" / self.environment))
        found = list(yaml.safe_load_all(text.replace(f"fraud-{self.environment}", self.namespace)))
        for manifest in found:
            spec = manifest.get("spec", {})
            if manifest["kind"] == "GitRepository":
                spec["url"] = self.checkout.url
            if manifest["kind"] == "Kustomization":
                spec.update(retryInterval="5s", timeout="2m")
        binding = next(m for m in found if m["kind"] == "RoleBinding")
        meta = {"name": "flux-models", "namespace": self.namespace}
        reference = {**binding["roleRef"], "name": "flux-models"}
        self.kubectl.apply(
            *found,
            {**_MODELS, "metadata": meta},
            {**binding, "metadata": meta, "roleRef": reference},
        )

    def annotate(self, kind: str, words: str) -> None:
        """Set an annotation."""
        where = ("-n", self.namespace, "--overwrite")
        self.kubectl.run("annotate", kind, self.name, words, *where)

    def drift(self) -> str:
        """Say what Flux would change now, with Flux's own rights; empty: nothing, and nobody else's fields either."""
        text = self.kubectl.run("kustomize", str(self.folder))
        labels = {
            "kustomize.toolkit.fluxcd.io/name": self.name,
            "kustomize.toolkit.fluxcd.io/namespace": self.namespace,
        }
        documents = list(yaml.safe_load_all(text))
        for document in documents:
            document["metadata"]["labels"] = labels
        groups = ("system:serviceaccounts", "system:authenticated")
        user = f"system:serviceaccount:{self.namespace}:flux"
        return self.kubectl.run(
            "diff",
            "--server-side",
            f"--field-manager={MANAGER}",
            f"--as={user}",
            *(f"--as-group={group}" for group in groups),
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}),
            check=False,
        )


class Auditor:
    """Looks for drift and fights in each phase that a witness tells of, while it lasts. Use as a context manager."""

    def __init__(self, tenant: Tenant, witness: Witness) -> None:
        self._tenant = tenant
        self._witness = witness
        self._stop = threading.Event()
        self.clean: set[str] = set()
        """Phases that lasted from before a look until after it, in which nothing was found."""
        self.found: list[str] = []

    def __enter__(self) -> "Auditor":
        self._thread = threading.Thread(target=self._run, name="auditor")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)

    def _phase(self) -> str:
        """Give the phase, if what is in git is what Flux has applied; an empty text else."""
        latest = self._witness.seen[-1] if self._witness.seen else None
        if latest is None or latest.body["spec"]["model"]["version"] != self._tenant.version:
            return ""
        phase: str = latest.status.get("phase", "")
        return phase

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            phase = self._phase()
            if not phase or phase in self.clean:
                continue
            problems = [*filter(None, [self._tenant.drift()]), *self._tenant.fights(MANAGER)]
            if self._phase() == phase:
                self.found += [f"{phase}: {problem}" for problem in problems]
                if not problems:
                    self.clean.add(phase)

    def wait(self, *phases: str) -> None:
        """Wait until these phases were looked at, as far as they can be waited for."""
        wait_for(
            f"a look in {', '.join(phases)}; found {self.found}",
            lambda: set(phases) <= self.clean or self.found,
            30,
        )
        assert self.found == []
