"""One team's repository, made of the example's files, and its environment `staging` or `production` in the cluster."""

import json
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from canarium_devcluster.gitops.controller import Controller
from tests.e2e import models
from tests.e2e.conftest import World, quick_rollout
from tests.e2e.gitops.checkout import Checkout
from tests.e2e.gitops.witness import Witness
from tests.e2e.kube import Manifest, wait_for

EXAMPLE = Path(__file__).parents[3] / "examples" / "gitops"
KUSTOMIZATION = "kustomizations.kustomize.toolkit.fluxcd.io"
STEPS = [{"weight": 40, "pause": "4s"}, {"weight": 100, "pause": "2s"}]
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
class Tenant(World):
    """A namespace that Flux fills from a repository; nothing is applied to it by hand."""

    checkout: Checkout = field(kw_only=True)
    flux: Controller = field(kw_only=True)
    environment: str = "staging"
    version: str = ""
    """What the environment's folder names now."""

    @property
    def hostname(self) -> str:
        return f"{self.name}.{self.namespace}.example.com"

    @property
    def folder(self) -> Path:
        """The environment's folder in the checkout."""
        return self.checkout.folder / "environments" / self.environment

    # --- the repository

    def fill(self, **parts: Any) -> None:
        """Write the example's files, with settings that suit a small machine and a short patience.

        Args:
            parts: top-level parts of the spec, which replace the defaults of these tests.
        """
        for part in ("base", "environments"):
            shutil.copytree(EXAMPLE / part, self.checkout.folder / part)
        kustomization = self._read_kustomization()
        kustomization["namespace"] = self.namespace
        spec = {
            "traffic": {
                "gateway": {"name": "public", "namespace": "canarium-gateway"},
                "hostnames": [self.hostname],
            },
            "autoscaling": {"minReplicas": 1, "maxReplicas": 2, "cpu": 0, "memory": 400},
            "serving": {"resources": {"requests": {"cpu": "20m", "memory": "128Mi"}}},
            "rollout": quick_rollout(canary={"steps": STEPS}),
            **parts,
        }
        patch = {
            "apiVersion": "canarium.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": self.name},
            "spec": spec,
        }
        kustomization["patches"].append({"patch": yaml.safe_dump(patch)})
        self._write("kustomization.yaml", kustomization)

    def commit(self, version: str, artefact: models.Artefact) -> str:
        """Change the version that the environment serves, push that, and give the commit's id."""
        self.version = version
        source = artefact.config_map(f"model-{version}", self.namespace)
        self._write(f"model-{version}.yaml", source)
        kustomization = self._read_kustomization()
        if f"model-{version}.yaml" not in kustomization["resources"]:
            kustomization["resources"].append(f"model-{version}.yaml")
            self._write("kustomization.yaml", kustomization)
        model = yaml.safe_load((self.folder / "model.yaml").read_text())
        model["spec"]["model"] = {
            "uri": f"configmap://model-{version}/model.onnx",
            "sha256": artefact.sha256,
            "version": version,
        }
        self._write("model.yaml", model)
        return self.checkout.push(f"{self.environment}: version {version}")

    def revert(self, version: str, of: str = "HEAD") -> str:
        """Revert a commit, which brings a version back, push that, and give the new commit's id."""
        self.version = version
        return self.checkout.revert(of)

    def commit_without_model(self) -> str:
        """Take the ModelDeployment out of the environment, and push that."""
        self.version = ""
        kustomization = self._read_kustomization()
        kustomization["resources"].remove("../../base")
        del kustomization["patches"]
        self._write("kustomization.yaml", kustomization)
        return self.checkout.push(f"{self.environment}: no model")

    def _read_kustomization(self) -> Any:
        return yaml.safe_load((self.folder / "kustomization.yaml").read_text())

    def _write(self, name: str, content: Any) -> None:
        (self.folder / name).write_text(yaml.safe_dump(content, sort_keys=False))

    # --- the cluster

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

    def watch(self, kind: str = "modeldeployments.canarium.dev") -> Witness:
        """Record the versions of the ModelDeployment, or of the Kustomization."""
        return Witness(self.kubectl, kind, self.name, self.namespace)

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
            "--field-manager=kustomize-controller",
            f"--as={user}",
            *(f"--as-group={group}" for group in groups),
            "-f",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}),
            check=False,
        )

    def fights(self) -> list[str]:
        """Name what has another writer than it should: one for the spec, one for the status, one for the rest."""
        listed = "configmaps,deployments,services,hpa,pdb,httproutes.gateway.networking.k8s.io"
        kinds = f"modeldeployments.canarium.dev,{listed}"
        text = self.kubectl.run(
            "get", kinds, "-n", self.namespace, "-o", "json", "--show-managed-fields"
        )
        found = []
        for body in json.loads(text)["items"]:
            meta = body["metadata"]
            writers = {
                f"{entry['manager']} {entry['operation']} {entry.get('subresource', '')}".strip()
                for entry in meta["managedFields"]
            }
            if body["kind"] == "ModelDeployment":
                # The status is there after the operator's first look.
                right = {"kustomize-controller Apply", "canarium Apply status"}
                wrong = writers - right
            elif meta["name"].startswith("model-") or meta["name"] == "kube-root-ca.crt":
                wrong = {w for w in writers if w.startswith("canarium")}
            else:
                wrong = {w for w in writers if w.startswith("kustomize-controller")}
            found += [f"{body['kind']} {meta['name']}: {writer}" for writer in sorted(wrong)]
        return found


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
            problems = [*filter(None, [self._tenant.drift()]), *self._tenant.fights()]
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
