"""Flux's kustomize-controller, built from its Go module, and the CRDs that it needs.

Flux's source-controller cannot be built in this way: one of its libraries is not to be had. Its CRDs come from its
archive; a GitRepository's status is written by `source` instead.

``python -m canarium_devcluster.gitops.flux`` builds both, which takes minutes at the first time.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import yaml

from canarium_devcluster import cache, go_modules
from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.workshop import Workshop, open_workshop

_CONTROLLER = go_modules.Module(
    path="github.com/fluxcd/kustomize-controller",
    version="v1.9.5",
    sum="h1:/XY2zy3K7fntyppEXIHG7oRMzmfgIt50eJzUfaPX1Kc=",
)
_API = go_modules.Module(
    path="github.com/fluxcd/kustomize-controller/api",
    version="v1.9.5",
    sum="h1:Z4CA0cpC9rQmWiJWT9PCNO7+v3PVbAOK+5byHdbtFt8=",
)
_SOURCES = go_modules.Module(  # the version that the controller's go.mod names
    path="github.com/fluxcd/source-controller",
    version="v1.9.0",
    sum="h1:5msg2yyjVYDULZos+2ve8MZzcSqTpusiXmrOeBhc9yY=",
)
_PROGRAM = "kustomize-controller"
_CRDS_KIND = "flux-crds"
_CRDS = (
    (_CONTROLLER, "kustomize.toolkit.fluxcd.io_kustomizations.yaml"),
    (_SOURCES, "source.toolkit.fluxcd.io_gitrepositories.yaml"),
    # Watched by the controller, though nobody makes any here.
    (_SOURCES, "source.toolkit.fluxcd.io_buckets.yaml"),
    (_SOURCES, "source.toolkit.fluxcd.io_ocirepositories.yaml"),
    (_SOURCES, "source.toolkit.fluxcd.io_externalartifacts.yaml"),
)


def controller(workshop: Workshop) -> Path:
    """The program, built if need be."""
    folder = workshop.builder.ensure_module(
        f"bin-{_PROGRAM}",
        _CONTROLLER,
        package=".",
        title=f"Flux kustomize-controller {_CONTROLLER.version}",
        inside={"api": _API},
    )
    return folder / _PROGRAM


def crds(workshop: Workshop) -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of Kustomizations and of the sources that they may name."""

    def fill(target: Path) -> None:
        with workshop.progress.step("Fetching Flux's CRDs", remember=_CRDS_KIND):
            found = [_read(module, name) for module, name in _CRDS]
            # As JSON, which loads in a tenth of the time of YAML.
            (target / "crds.json").write_text(json.dumps(found))

    key = cache.key_of([part for module, name in _CRDS for part in (module.sum, name)])
    folder = workshop.cache.get_or_make(_CRDS_KIND, key, fill)
    return list(json.loads((folder / "crds.json").read_text()))


def _read(module: go_modules.Module, name: str) -> Any:
    inside = f"{module.path}@{module.version}/config/crd/bases/{name}"
    with zipfile.ZipFile(go_modules.fetch(module).zip) as content:
        return yaml.safe_load(content.read(inside))


def main() -> int:
    """Build what is missing; gives the exit status."""
    workshop = open_workshop()
    try:
        crds(workshop)
        workshop.progress.say(f"Flux's kustomize-controller: {controller(workshop)}")
    except DevclusterError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
