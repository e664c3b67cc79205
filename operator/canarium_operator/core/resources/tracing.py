"""Tracing of a revision's servers: settings for the ConfigMap, and what a pod knows of itself."""

from typing import Any, Final

from canarium_api.tracing import TracingSpec
from canarium_operator.core.manifests import Manifest

_OF_THE_POD: Final = {
    "K8S_POD_NAME": "metadata.name",
    "K8S_NAMESPACE_NAME": "metadata.namespace",
    "K8S_NODE_NAME": "spec.nodeName",
}


def tracing_settings(tracing: TracingSpec | None) -> dict[str, Any]:
    """Translate to fields of `RuntimeConfig`."""
    if tracing is None:
        return {}
    return {"tracing_endpoint": tracing.endpoint, "tracing_ratio": tracing.ratio}


def tracing_environment(tracing: TracingSpec | None) -> list[Manifest]:
    """Give the variables of the container that say whose spans these are."""
    if tracing is None:
        return []
    return [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in _OF_THE_POD.items()
    ]
