"""Opens a model as a server does: fetched, verified, by the backend of its format, and warmed up."""

import threading
from dataclasses import dataclass
from pathlib import Path

from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime import samples, warmup
from canarium_runtime.backends import open_backend
from canarium_runtime.backends.base import Backend
from canarium_runtime.errors import LoadError
from canarium_runtime.loader import options_of
from canarium_runtime.repository import Artefact, Repository


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model that answers."""

    backend: Backend
    artefact: Artefact


def open_model(config: RuntimeConfig) -> Opened:
    """Open a model.

    Args:
        config: settings of a server that would serve it.

    Raises:
        LoadError: it cannot be fetched, read or run.
    """
    if config.allow_code and not config.model_sha256 and config.model_uri.startswith("http"):
        msg = "model.sha256 is required for a model of code from the network: it is verified before it runs"
        raise LoadError("InvalidConfig", msg, permanent=True)
    repository = Repository(
        directory=Path(config.download_dir),
        timeout=config.download_timeout,
        max_bytes=config.max_model_bytes,
        stop=threading.Event(),
    )
    artefact = repository.fetch(config.model_uri, config.model_sha256)
    requests = samples.collect(config, artefact.path, repository)
    backend = open_backend(config.model_format, artefact.path, options_of(config))
    try:
        examples = samples.run(backend, requests)
        warmup.warm_up(
            backend,
            requests=config.warmup_requests,
            max_batch_size=config.max_batch_size,
            examples=examples,
        )
    except BaseException:
        backend.close()
        raise
    return Opened(backend=backend, artefact=artefact)
