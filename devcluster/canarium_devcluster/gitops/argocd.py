"""Argo CD, built from its Go module: one program that is all of its parts, kustomize, and what it keeps in a cluster.

It is for tests alone (`make e2e LANE=argocd`), takes longer to build than all of Flux, and is never built by the way.

``python -m canarium_devcluster.gitops.argocd`` builds it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

import yaml

from canarium_devcluster import cache, go_modules
from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.workshop import Workshop, open_workshop

NAMESPACE: Final = "argocd"
VERSION: Final = "3.6.1"
_GO: Final = "go1.27.3"
_ARGOCD = go_modules.Module(
    path="github.com/argoproj/argo-cd/v3",
    version=f"v{VERSION}",
    sum="h1:OmhqeKiR3C//awbFrhQqFdtRI+Qiv17j8vqm3UkMj/g=",
    go=_GO,
)
_ENGINE = go_modules.Module(  # in Argo CD's repository, and replaced by its folder there
    path="github.com/argoproj/argo-cd/gitops-engine/v3",
    version=f"v{VERSION}",
    sum="h1:e9NghanU6O6PrxHq4+PaYxd6Rpe0kC48C2Opkpgx/LQ=",
    go=_GO,
)
_KUSTOMIZE = (
    go_modules.Module(  # 5.8.3 is in Argo CD's image; one of its libraries cannot always be had
        path="sigs.k8s.io/kustomize/kustomize/v5",
        version="v5.8.1",
        sum="h1:Pgsg5psubpVEy7Nf6S89PARg5VmmWUC1l9dC6Dl4PG0=",
    )
)
_FILES_KIND = "argocd-files"
_SCRIPT = "hack/git-verify-wrapper.sh"
_CRDS = tuple(
    f"manifests/crds/{kind}-crd.yaml" for kind in ("application", "applicationset", "appproject")
)
_SETTINGS = tuple(
    f"manifests/base/config/argocd-{name}.yaml"
    for name in ("cm", "cmd-params-cm", "gpg-keys-cm", "rbac-cm", "secret", "tls-certs-cm")
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Programs:
    """What is built."""

    argocd: Path
    """Each part of Argo CD, and its command line, by ``ARGOCD_BINARY_NAME``."""
    kustomize: Path
    """Argo CD finds it on its PATH."""
    verify: Path
    """The same: a script of its own that looks at a commit's signature."""


def programs(workshop: Workshop) -> Programs:
    """The programs, built if need be."""
    argocd = workshop.builder.ensure_module(
        "bin-argocd",
        _ARGOCD,
        package="./cmd",
        title=f"Argo CD {VERSION}",
        inside={"gitops-engine": _ENGINE},
    )
    kustomize = workshop.builder.ensure_module(
        "bin-kustomize", _KUSTOMIZE, package=".", title=f"kustomize {_KUSTOMIZE.version}"
    )
    # Go names a program by the folder of its package.
    return Programs(
        argocd=argocd / "cmd",
        kustomize=kustomize / "kustomize",
        verify=_files(workshop) / Path(_SCRIPT).name,
    )


def crds(workshop: Workshop) -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of Applications, ApplicationSets and AppProjects."""
    return list(json.loads((_files(workshop) / "crds.json").read_text()))


def settings(workshop: Workshop) -> list[dict[str, Any]]:
    """Argo CD's own ConfigMaps and its Secret, as an installation begins with them, and their namespace."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    found = list(json.loads((_files(workshop) / "settings.json").read_text()))
    for manifest in found:
        manifest["metadata"]["namespace"] = NAMESPACE
    return [namespace, *found]


def _files(workshop: Workshop) -> Path:
    """What is taken from Argo CD's archive as it is."""

    def fill(target: Path) -> None:
        with (
            workshop.progress.step("Fetching Argo CD's CRDs", remember=_FILES_KIND),
            zipfile.ZipFile(go_modules.fetch(_ARGOCD).zip) as content,
        ):

            def read(name: str) -> bytes:
                return content.read(f"{_ARGOCD.path}@{_ARGOCD.version}/{name}")

            for name, files in (("crds.json", _CRDS), ("settings.json", _SETTINGS)):
                # As JSON, which loads in a tenth of the time of YAML.
                manifests = [yaml.safe_load(read(file)) for file in files]
                (target / name).write_text(json.dumps(manifests))
            script = target / Path(_SCRIPT).name
            script.write_bytes(read(_SCRIPT))
            script.chmod(0o755)

    key = cache.key_of([_ARGOCD.sum, *_CRDS, *_SETTINGS, _SCRIPT])
    return workshop.cache.get_or_make(_FILES_KIND, key, fill)


def main() -> int:
    """Build what is missing; gives the exit status."""
    workshop = open_workshop()
    try:
        crds(workshop)
        built = programs(workshop)
    except DevclusterError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    workshop.progress.say(f"Argo CD: {built.argocd}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
