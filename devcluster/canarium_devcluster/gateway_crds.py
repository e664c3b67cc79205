"""The Gateway API's CRDs, standard channel, from the Go module's zip.

They are 1 MB of generated YAML that changes with each release, so they are fetched by their pin
instead of being committed. Only the zip is wanted: compiling the module would need a newer Go.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import yaml

from canarium_devcluster import cache, go_modules
from canarium_devcluster.workshop import Workshop

MODULE = "sigs.k8s.io/gateway-api"
VERSION = "v1.7.0"
_SUM = "h1:duVnm7nO6oXfMMUWfcDoBph47CYR/ME3NGxccOVglaY="
_FOLDER = f"{MODULE}@{VERSION}/config/crd/standard/"
_KIND = "gateway-crds"
_PIN = go_modules.Module(path=MODULE, version=VERSION, sum=_SUM)


def fetched(workshop: Workshop) -> bool:
    """Whether the network is not needed for them."""
    return workshop.cache.get(_KIND, _key()) is not None


def documents(workshop: Workshop) -> list[dict[str, Any]]:
    """The CustomResourceDefinitions."""

    def fill(target: Path) -> None:
        with workshop.progress.step(f"Fetching the Gateway API {VERSION}", remember=_KIND):
            found = []
            with zipfile.ZipFile(go_modules.fetch(_PIN).zip) as content:
                for name in sorted(content.namelist()):
                    if name.startswith(_FOLDER) and name.endswith(".yaml"):
                        found += list(yaml.safe_load_all(content.read(name)))
            wanted = [d for d in found if d and d["kind"] == "CustomResourceDefinition"]
            # As JSON, which loads in a tenth of the time of YAML.
            (target / "crds.json").write_text(json.dumps(wanted))

    folder = workshop.cache.get_or_make(_KIND, _key(), fill)
    return list(json.loads((folder / "crds.json").read_text()))


def _key() -> str:
    return cache.key_of([MODULE, VERSION, _SUM])
