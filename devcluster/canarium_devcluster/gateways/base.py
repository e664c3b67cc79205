"""What a Gateway implementation is to the launcher."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from canarium_devcluster.images import Image
from canarium_devcluster.workshop import Workshop


def _no_crds(_workshop: Workshop) -> Sequence[dict[str, Any]]:
    return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gateway:
    """One implementation."""

    name: str
    class_name: str
    manifests: tuple[str, ...]  # files in devcluster/manifests
    # Deployments in canarium-gateway that must be ready.
    deployments: tuple[str, ...]
    # Placeholder in the manifests -> image.
    images: Callable[[Workshop], Mapping[str, Image]]
    # Whether the network is not needed for the images.
    fetched: Callable[[Workshop], bool]
    # CRDs of its own, beside those of the Gateway API.
    crds: Callable[[Workshop], Sequence[dict[str, Any]]] = _no_crds
