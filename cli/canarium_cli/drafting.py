"""A first manifest for a model: names guessed from its path, and YAML that a person goes on writing. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from canarium_api import API_VERSION, KIND

MAX_NAME: Final = 52
"""Characters of a ModelDeployment's name that the API server takes."""
MAX_CONFIGMAP: Final = 1_000_000
"""Bytes of a model that goes into a ConfigMap: a MiB in all, with its names."""
_VERSION: Final = re.compile(r"(?:^|[-_.])(v?[0-9]+(?:[._][0-9]+)*)$", re.IGNORECASE)
_GENERAL: Final = frozenset(
    {"", ".", "..", "model", "models", "artifacts", "artefacts", "build", "dist", "export", "onnx", "out", "output"}
)  # fmt: skip
"""Names of files and folders that say nothing of what a model is for."""
_STEPS: Final = (1, 5, 10, 25, 50, 100)


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """What is known of a model's file."""

    path: PurePath
    format: str
    sha256: str
    size: int
    """Bytes."""
    inputs: Sequence[str] = ()
    """In words: `input FP32 [?, 4]`; empty: not read."""
    outputs: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What the manifest says besides."""

    name: str
    version: str
    uri: str
    namespace: str = ""
    gateway: str = ""
    """NAME or NAMESPACE/NAME; empty: none."""
    hostnames: Sequence[str] = ()


def guess(path: PurePath) -> tuple[str, str]:
    """Guess name and version from a path.

    `fraud-v7.onnx` is (fraud, v7); `fraud/7/model.onnx` is (fraud, 7); `fraud/model.onnx` is (fraud, 1);
    `resnet50.onnx` is (resnet50, 1).
    """
    version = ""
    for part in (path.stem, *reversed(path.parent.parts)):
        match = _VERSION.search(part)
        if match is not None and not version:
            version, part = match[1], part[: match.start()]
        name = _named(part)
        if name not in _GENERAL:
            return name[:MAX_NAME].rstrip("-"), version or "1"
    return "model", version or "1"


def _named(part: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")
    return f"m-{name}" if name[:1].isdigit() else name


def configmap_name(draft_name: str, version: str) -> str:
    """Name the ConfigMap of a small model: one for each version, since the stable one still needs its own."""
    return f"{draft_name}-{re.sub(r'[^a-z0-9-]+', '-', version.lower()).strip('-')}"


def configmap_uri(model: ModelFile, name: str, version: str) -> str:
    """Give the URI of a model in that ConfigMap."""
    return f"configmap://{configmap_name(name, version)}/{key_of(model)}"


def manifest(model: ModelFile, draft: Draft) -> str:
    """Write the manifest."""
    lines = [
        f"# Written by canarium init from {_printable(model.path.name)} ({_size(model.size)}).",
        *(f"#   input:  {words}" for words in model.inputs),
        *(f"#   output: {words}" for words in model.outputs),
        f"apiVersion: {API_VERSION}",
        f"kind: {KIND}",
        "metadata:",
        f"  name: {_scalar(draft.name)}",
        *([f"  namespace: {_scalar(draft.namespace)}"] if draft.namespace else []),
        "spec:",
        "  model:",
        f"    uri: {_scalar(draft.uri)}",
        "    # Servers take no other bytes; with it, the same bytes are the same revision wherever they come from.",
        f"    sha256: {_scalar(model.sha256)}",  # digits alone would be a number
        f"    version: {_scalar(draft.version)}",
        *([f"    format: {model.format}"] if model.format != "onnx" else []),
        *_traffic(draft),
        "  # The rest has defaults. Those that you may want to change first:",
        "  # autoscaling: {minReplicas: 3, maxReplicas: 20}",
        "  # serving: {resources: {requests: {cpu: 500m, memory: 512Mi}}}",
        "  # rollout:",
        *(_steps() if draft.gateway else []),
        "  #   analysis:",
        "  #     metrics:",
        "  #     - {name: error-rate}",
        "  #     - {name: latency-p95, max: 200ms}",
    ]
    return "\n".join(lines) + "\n"


def _steps() -> list[str]:
    steps = [f"  #     - {{weight: {weight}, pause: 5m}}" for weight in _STEPS]
    return ["  #   canary:", "  #     steps:", *steps]


def _traffic(draft: Draft) -> list[str]:
    if not draft.gateway:
        return [
            "  # Without a gateway, weights are the ratio of pods behind the Service. With one they are exact:",
            "  # traffic: {gateway: {name: public, namespace: gateways}}",
        ]
    space, _, name = draft.gateway.rpartition("/")
    where = f", namespace: {_scalar(space)}" if space else ""
    hosts = ", ".join(_scalar(host) for host in draft.hostnames)
    return [
        "  traffic:",
        f"    gateway: {{name: {_scalar(name)}{where}}}",
        *([f"    hostnames: [{hosts}]"] if hosts else []),
    ]


def kustomization(model: ModelFile, draft: Draft, files: str, resource: str) -> str:
    """Write a kustomization that makes the ConfigMap of a small model.

    Args:
        model: the file.
        draft: its manifest.
        files: path of the model, as seen from the kustomization.
        resource: name of the manifest's file.
    """
    key = key_of(model)
    name = _scalar(configmap_name(draft.name, draft.version))
    return "\n".join(
        [
            "# Written by canarium init. Each version of the model has its own ConfigMap: keep that of the stable one.",
            "apiVersion: kustomize.config.k8s.io/v1beta1",
            "kind: Kustomization",
            *([f"namespace: {_scalar(draft.namespace)}"] if draft.namespace else []),
            "resources:",
            f"- {_scalar(resource)}",
            "generatorOptions: {disableNameSuffixHash: true}",
            "configMapGenerator:",
            f"- {{name: {name}, files: [{_scalar(f'{key}={files}')}]}}",
            "",
        ]
    )


def key_of(model: ModelFile) -> str:
    """Name the key of a ConfigMap that holds a model."""
    return f"model{model.path.suffix}"


def _printable(text: str) -> str:
    """Keep a comment on its line, whatever a file is called."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _scalar(text: str) -> str:
    """Quote what YAML would read as something else: the version 7 is a string."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9._/:@=-]*", text) and text.lower() not in (
        "true", "false", "null", "yes", "no", "on", "off", "y", "n",
    )  # fmt: skip
    return text if plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} bytes"
    if count < 1024**2:
        return f"{count / 1024:.3g} KiB"
    return f"{count / 1024**2:.3g} MiB"
