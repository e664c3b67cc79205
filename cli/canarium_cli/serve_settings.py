"""Settings of `canarium serve`: from a file, the environment and the command line to one `RuntimeConfig`.

Later ones win in that order. Each value remembers where it came from: a wrong one is named as the user wrote it.
"""

import argparse
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from canarium_api import KIND
from canarium_api.model_types import ModelFormat
from canarium_api.runtime_config import PREFIX, RuntimeConfig

FLAGS: Final = {
    "name": "model_name",
    "version": "model_version",
    "sha256": "model_sha256",
    "format": "model_format",
    "port": "port",
    "host": "host",
    "workers": "workers",
    "processes": "processes",
    "max_batch_size": "max_batch_size",
    "max_delay": "max_delay",
    "log_level": "log_level",
}
"""Flag (as argparse names it) to field of `RuntimeConfig`."""
_FORMATS: Final = {
    ".pt2": ModelFormat.TORCH,
    ".pt": ModelFormat.TORCH,
    ".py": ModelFormat.PYTHON,
}
"""By the name of the file, where no format is given."""
_SCHEMES: Final = ("pvc", "configmap")
"""Of URIs that only a cluster can resolve."""


class UsageError(Exception):
    """What the user gave cannot be used; the message says what to change."""


@dataclass(frozen=True, slots=True)
class _Given:
    value: Any
    origin: str
    """As the user wrote it."""


def settings(words: argparse.Namespace, environ: Mapping[str, str]) -> RuntimeConfig:
    """Bring all sources together.

    Args:
        words: `model`, `config`, `set` and the FLAGS, each None where it was not given.
        environ: environment variables.

    Raises:
        UsageError: there is no model, or a value is wrong.
    """
    given: dict[str, _Given] = {
        # A laptop: nobody else is let in unless asked for, and nothing has to learn that the server leaves.
        "host": _Given("127.0.0.1", "--host"),
    }
    if words.config is not None:
        given |= _from_file(words.config)
    for name in RuntimeConfig.model_fields:
        variable = PREFIX + name.upper()
        if variable in environ:
            given[name] = _Given(environ[variable], variable)
    for pair in words.set or ():
        key, separator, value = pair.partition("=")
        if not separator:
            msg = f"--set {pair}: write it as KEY=VALUE, such as --set request_timeout=5s"
            raise UsageError(msg)
        given[_field(key, f"--set {key}")] = _Given(value, f"--set {key}")
    for flag, name in FLAGS.items():
        if (value := getattr(words, flag)) is not None:
            given[name] = _Given(value, f"--{flag.replace('_', '-')}")
    if words.model is not None:
        given["model_uri"] = _Given(uri_of(words.model), "MODEL")
    if "model_uri" in given and "model_format" not in given:
        suffix = Path(urlsplit(str(given["model_uri"].value)).path).suffix
        if suffix in _FORMATS:
            given["model_format"] = _Given(_FORMATS[suffix], "--format")
    if "model_uri" not in given:
        msg = (
            "name the model: canarium serve MODEL.onnx, or --config FILE, or set CANARIUM_MODEL_URI"
        )
        raise UsageError(msg)
    try:
        return RuntimeConfig.model_validate({name: g.value for name, g in given.items()})
    except ValidationError as error:
        raise UsageError("; ".join(_problem(e, given) for e in error.errors())) from error


def uri_of(model: str) -> str:
    """Make a URI of what the user named: a URI or a path.

    Raises:
        UsageError: there is no such file, or the URI means a volume of a cluster.
    """
    scheme, separator, _ = model.partition("://")
    if separator:
        if scheme in _SCHEMES:
            msg = f"{model}: {scheme}:// is a volume in a cluster: give the path of the file"
            raise UsageError(msg)
        return model
    path = Path(model).expanduser()
    if not path.exists():
        msg = f"{model}: no such file, in {Path.cwd()}: check the path"
        raise UsageError(msg)
    return path.resolve().as_uri()


def _from_file(file: Path) -> dict[str, _Given]:
    document = _document(file)
    if document.get("kind") == KIND:
        found = _from_manifest(document, file)
    else:
        found = {_field(str(key), f"{key} in {file}"): v for key, v in document.items()}
    if isinstance(found.get("model_uri"), str):
        uri = str(found["model_uri"])
        beside = file.parent / uri
        found["model_uri"] = uri_of(str(beside) if "://" not in uri else uri)
    return {name: _Given(value, f"{name} in {file}") for name, value in found.items()}


def _document(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ModuleNotFoundError as error:
        msg = "--config needs the Python package PyYAML: pip install pyyaml"
        raise UsageError(msg) from error
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"--config {file}: {error.strerror}"
        raise UsageError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"--config {file}: not YAML: {error}"
        raise UsageError(msg) from error
    if not isinstance(document, dict):
        msg = f"--config {file}: expected a {KIND}, or settings such as `model_uri: model.onnx`"
        raise UsageError(msg)
    return document


def _from_manifest(document: dict[str, Any], file: Path) -> dict[str, Any]:
    """Translate a ModelDeployment as the operator does, but for what belongs to a cluster."""
    from canarium_api.v1alpha1 import ModelDeploymentSpec
    from canarium_operator.core.naming import ObjectRef
    from canarium_operator.core.resources.configmap import runtime_config
    from canarium_operator.core.revision import revision_of

    metadata = document.get("metadata") or {}
    ref = ObjectRef(
        namespace=metadata.get("namespace", "local"), name=metadata.get("name", "model")
    )
    try:
        spec = ModelDeploymentSpec.from_manifest(document.get("spec") or {})
    except ValidationError as error:
        wrong = "; ".join(
            f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()
        )
        msg = f"--config {file}: {wrong}"
        raise UsageError(msg) from error
    if spec.model.uri.partition("://")[0] in _SCHEMES:
        uri_of(spec.model.uri)
    config = runtime_config(ref, revision_of(spec, "local"))
    cluster = {"answers_port", "answers_token_file", "drain_delay", "host", "port"}
    return config.model_dump(mode="json", exclude_defaults=True, exclude=cluster)


def _field(key: str, origin: str) -> str:
    name = key.strip().lower().replace("-", "_").removeprefix(PREFIX.lower())
    if name in RuntimeConfig.model_fields:
        return name
    close = difflib.get_close_matches(name, RuntimeConfig.model_fields, 1)
    hint = f"did you mean {close[0]}?" if close else "docs/reference/settings.md lists the settings"
    msg = f"{origin}: there is no such setting; {hint}"
    raise UsageError(msg)


def _problem(error: Any, given: Mapping[str, _Given]) -> str:
    """Say what is wrong, by the name that the user gave it; values may be secret and are left out."""
    name = str(error["loc"][0]) if error["loc"] else ""
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"{given[name].origin}: {text}" if name in given else text
