"""One environment of the example's repository, `staging` or `production`, and what people commit to it."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.e2e import models
from tests.e2e.conftest import World, quick_rollout
from tests.e2e.gitops.checkout import Checkout
from tests.e2e.gitops.witness import Witness
from tests.e2e.kube import Manifest

EXAMPLE = Path(__file__).parents[3] / "examples" / "gitops"
MODEL = "modeldeployments.canarium.dev"
STEPS = [{"weight": 40, "pause": "4s"}, {"weight": 100, "pause": "2s"}]


@dataclass
class Environment(World):
    """A namespace that a tool fills from a repository; nothing is applied to it by hand."""

    checkout: Checkout = field(kw_only=True)
    environment: str = "staging"
    version: str = ""
    """What the environment's folder names now."""
    _example_patches: int = 0
    """Patches of the kustomization that are the example's; ours come after them."""

    @property
    def hostname(self) -> str:
        return f"{self.name}.{self.namespace}.example.com"

    @property
    def folder(self) -> Path:
        """The environment's folder in the checkout."""
        return self.checkout.folder / "environments" / self.environment

    def fill(self, **parts: Any) -> None:
        """Write the example's files, with settings that suit a small machine and a short patience.

        Args:
            parts: top-level parts of the spec, which replace the defaults of these tests.
        """
        for part in ("base", "environments"):
            shutil.copytree(EXAMPLE / part, self.checkout.folder / part)
        self._example_patches = len(self._read_kustomization()["patches"])
        self.configure(**parts)

    def configure(self, **parts: Any) -> None:
        """Change the settings; the next commit takes them with it. Arguments as for `fill`."""
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
        kustomization["patches"][self._example_patches :] = [{"patch": yaml.safe_dump(patch)}]
        self._write("kustomization.yaml", kustomization)

    def commit(self, version: str, artefact: models.Artefact) -> str:
        """Change the version that the environment serves, push that, and give the commit's id."""
        self.version = version
        self.add(artefact.config_map(f"model-{version}", self.namespace))
        model = yaml.safe_load((self.folder / "model.yaml").read_text())
        model["spec"]["model"] = {
            "uri": f"configmap://model-{version}/model.onnx",
            "sha256": artefact.sha256,
            "version": version,
        }
        self._write("model.yaml", model)
        return self.checkout.push(f"{self.environment}: version {version}")

    def add(self, manifest: Manifest) -> None:
        """Put an object into the environment; the next commit takes it with it."""
        file = f"{manifest['metadata']['name']}.yaml"
        self._write(file, manifest)
        kustomization = self._read_kustomization()
        if file not in kustomization["resources"]:
            kustomization["resources"].append(file)
            self._write("kustomization.yaml", kustomization)

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

    def watch(self, kind: str = MODEL) -> Witness:
        """Record the versions of the ModelDeployment, or of an object of another kind with its name."""
        return Witness(self.kubectl, kind, self.name, self.namespace)

    def writers(self) -> list[tuple[str, str, set[str]]]:
        """Give kind, name and field managers of the ModelDeployment and of what is made of it."""
        listed = "configmaps,deployments,services,hpa,pdb,httproutes.gateway.networking.k8s.io"
        text = self.kubectl.run(
            "get", f"{MODEL},{listed}", "-n", self.namespace, "-o", "json", "--show-managed-fields"
        )
        return [
            (
                body["kind"],
                body["metadata"]["name"],
                {
                    f"{entry['manager']} {entry['operation']} {entry.get('subresource', '')}".strip()
                    for entry in body["metadata"]["managedFields"]
                },
            )
            for body in json.loads(text)["items"]
        ]

    def fights(self, tool: str) -> list[str]:
        """Name what has another writer than it should: one for the spec, one for the status, one for the rest.

        Args:
            tool: the field manager of whatever applies the repository.
        """
        found = []
        for kind, name, writers in self.writers():
            if kind == "ModelDeployment":
                # The status is there after the operator's first look.
                wrong = writers - {f"{tool} Apply", "canarium Apply status"}
            elif name.startswith("model-") or name == "kube-root-ca.crt":
                wrong = {w for w in writers if w.startswith("canarium")}
            else:
                wrong = {w for w in writers if w.startswith(tool)}
            found += [f"{kind} {name}: {writer}" for writer in sorted(wrong)]
        return found
