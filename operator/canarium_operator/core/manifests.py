"""Kubernetes objects as the API server gives and takes them, and the few things that are asked of any of them."""

from typing import Any, Final

Manifest = dict[str, Any]
"""A Kubernetes object as JSON."""

GATEWAY_API_VERSION: Final = "gateway.networking.k8s.io/v1"


def key(manifest: Manifest) -> tuple[str, str]:
    """Identify an object among the children of one ModelDeployment: kind and name."""
    return manifest["kind"], manifest["metadata"]["name"]


def labels(manifest: Manifest) -> dict[str, str]:
    """Give its labels."""
    return manifest["metadata"].get("labels") or {}


def annotations(manifest: Manifest) -> dict[str, str]:
    """Give its annotations."""
    return manifest["metadata"].get("annotations") or {}


def is_being_deleted(manifest: Manifest) -> bool:
    """Tell whether it only waits for finalizers, or for its containers to stop."""
    return manifest["metadata"].get("deletionTimestamp") is not None
