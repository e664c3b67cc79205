"""The project's own images, built from the checkout: two for everybody, the dashboard for who asks for it."""

from __future__ import annotations

from pathlib import Path

from canarium_devcluster import launcher
from canarium_devcluster.cluster import DEFAULT_NAME
from canarium_devcluster.images import Image
from canarium_devcluster.workshop import Workshop, open_workshop

OPERATOR_IMAGE = "canarium.dev/canarium-operator:dev"
RUNTIME_IMAGE = "canarium.dev/canarium-runtime:dev"
DASHBOARD_IMAGE = "canarium.dev/canarium-dashboard:dev"

_API = Path("api/canarium_api")


def operator_image(workshop: Workshop) -> Image:
    """The operator: no torch, no onnxruntime."""
    return workshop.python_images.build(
        name=OPERATOR_IMAGE,
        entrypoint=["python3", "-m", "canarium_operator"],
        packages=[_API, Path("operator/canarium_operator")],
        extras=["operator"],
    )


def runtime_image(workshop: Workshop) -> Image:
    """The runtime with ONNX: no kopf."""
    return workshop.python_images.build(
        name=RUNTIME_IMAGE,
        entrypoint=["python3", "-m", "canarium_runtime"],
        packages=[_API, Path("runtime/canarium_runtime")],
        extras=["runtime", "onnx", "grpc", "cache", "security", "kafka"],
    )


def dashboard_image(workshop: Workshop) -> Image:
    """The dashboard, with the operator's code for its pure core: no kopf."""
    return workshop.python_images.build(
        name=DASHBOARD_IMAGE,
        entrypoint=["python3", "-m", "canarium_dashboard"],
        packages=[
            _API,
            Path("operator/canarium_operator"),
            Path("dashboard/canarium_dashboard"),
        ],
        extras=["dashboard"],
    )


def load_dashboard(name: str = DEFAULT_NAME) -> list[str]:
    """Build the dashboard's image and load it into a running cluster, for who asks for it."""
    workshop = open_workshop()
    return launcher.load(workshop, name, [dashboard_image(workshop)])


def load_into(workshop: Workshop, name: str) -> list[str]:
    """Build both and load what changed into a running cluster; returns the changed names."""
    launcher.running(workshop, name)  # before the long part
    return launcher.load(workshop, name, [operator_image(workshop), runtime_image(workshop)])


def load_dev(name: str = DEFAULT_NAME) -> list[str]:
    """The same for callers that have no workshop, such as the demo and tests."""
    return load_into(open_workshop(), name)
