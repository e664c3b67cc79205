"""The next version of a model in the files that are there: three values change, and one ConfigMap is added. Pure.

Comments, order and everything else stay: the files are their owner's.
"""

import io
from dataclasses import dataclass
from typing import Any, Final

from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from canarium_cli.drafting import MAX_CONFIGMAP, ModelFile, configmap_name, configmap_uri, key_of
from canarium_operator.core.outcomes.manifest_file import (
    ManifestFile,
    UnusableFileError,
    round_trip,
)

_DEFAULT_FORMAT: Final = "onnx"


class UpdateError(Exception):
    """The files cannot get this version; the message says why and what helps."""


@dataclass(frozen=True, kw_only=True)
class Update:
    """A manifest with another version of its model."""

    text: str
    spec: dict[str, Any]
    name: str
    before: str
    """The version that it had; empty: none was named."""
    after: str
    uri: str
    changed: bool
    """False: it has these very bytes, from this place, already."""


def update_manifest(text: str, model: ModelFile, name: str, version: str, uri: str) -> Update:
    """Put another version of the model into a manifest.

    Args:
        text: the manifest.
        model: the file of the new version.
        name: what the ModelDeployment is probably called; another is fine where the file has only one.
        version: of the model.
        uri: where pods fetch it; empty: in a ConfigMap of its own.

    Raises:
        UpdateError: the file has no such ModelDeployment, has other bytes under this version, or the model is too large
            for a ConfigMap.
    """
    try:
        manifest = ManifestFile(text, name)
    except UnusableFileError as problem:
        raise UpdateError(str(problem)) from problem
    name = manifest.metadata["name"]
    had = manifest.spec().get("model")
    had = dict(had) if isinstance(had, dict) else {}
    before = str(had.get("version", ""))
    if before == version and had.get("sha256", model.sha256) != model.sha256:
        msg = (
            f"has version {version} already, with other bytes: give this model a version of its own, "
            "by its file's name or by --version"
        )
        raise UpdateError(msg)
    if not uri and model.size > MAX_CONFIGMAP:
        msg = (
            f"gets a model of {model.size} bytes, too many for a ConfigMap: put it where pods reach it, and say where "
            "with --uri"
        )
        raise UpdateError(msg)
    wanted = {
        "uri": uri or configmap_uri(model, name, version),
        "sha256": model.sha256,
        "version": version,
    }
    if had.get("format", _DEFAULT_FORMAT) != model.format:
        wanted["format"] = model.format
    changed = {key: value for key, value in wanted.items() if had.get(key) != value}
    for key, value in changed.items():
        manifest.assign(("model", key), value)
    return Update(
        text=manifest.text() if changed else text,
        spec=manifest.spec(),
        name=name,
        before=before,
        after=version,
        uri=wanted["uri"],
        changed=bool(changed),
    )


def add_configmap(text: str, model: ModelFile, update: Update, path: str) -> str:
    """Have a kustomization make the ConfigMap of the new version, beside those of older ones.

    Args:
        text: the kustomization.
        model: the file of the new version.
        update: the manifest's.
        path: of the model, as seen from the kustomization.

    Returns:
        The kustomization; the same text where it makes a ConfigMap of this name already.

    Raises:
        UpdateError: it is no kustomization.
    """
    yaml = round_trip(text)
    try:
        content = yaml.load(text)
    except (YAMLError, ValueError) as problem:
        msg = "is not YAML"
        raise UpdateError(msg) from problem
    made = content.setdefault("configMapGenerator", CommentedSeq()) if _is_map(content) else None
    if not isinstance(made, list):
        msg = "is not a kustomization that makes ConfigMaps"
        raise UpdateError(msg)
    name = configmap_name(update.name, update.after)
    if any(_is_map(entry) and entry.get("name") == name for entry in made):
        return text
    files = CommentedSeq([f"{key_of(model)}={path}"])
    entry = CommentedMap(name=name, files=files)
    entry.fa.set_flow_style()
    files.fa.set_flow_style()
    made.append(entry)
    out = io.StringIO()
    yaml.dump(content, out)
    return out.getvalue()


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)
