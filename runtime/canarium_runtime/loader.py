"""From a URI to a model in service: fetch, verify, open, warm up."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from canarium_api.model_types import TensorDeclaration
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime import cgroup, samples, warmup
from canarium_runtime.backends import devices, open_backend
from canarium_runtime.backends.base import Backend, TensorSpec
from canarium_runtime.backends.options import Options
from canarium_runtime.errors import LoadError
from canarium_runtime.lifecycle import Event
from canarium_runtime.repository import Repository
from canarium_runtime.rules.checks import RuleError
from canarium_runtime.service import InferenceService

T = TypeVar("T")


async def load(config: RuntimeConfig, service: InferenceService, stop: threading.Event) -> None:
    """Fetch, open and warm up the model, and put it into service, unless the server was told to stop meanwhile.

    Args:
        config: settings.
        service: takes the model.
        stop: when set, fetching is given up.

    Raises:
        LoadError: the model cannot be served.
        Stopped: fetching was given up.
    """
    started = time.monotonic()
    backend, sha256, requests = await in_daemon_thread(lambda: _open(config, stop))
    served = False
    try:
        if not service.lifecycle.allows(Event.LOADED):
            return
        try:
            rules = service.compile_rules(backend.spec)
        except RuleError as error:
            raise LoadError("InvalidConfig", str(error), permanent=True) from error
        service.check_fallbacks(backend.spec)
        service.begin_warming()
        report = await in_daemon_thread(lambda: _warm_up(config, backend, requests))
        if not service.lifecycle.allows(Event.WARMED):
            return
        cache = await service.make_cache(sha256)
        if not service.lifecycle.allows(Event.WARMED):
            return
        service.metrics.load_seconds = time.monotonic() - started
        service.serve(backend, report, cache, rules)
        served = True
    finally:
        if not served:
            backend.close()


def _open(
    config: RuntimeConfig, stop: threading.Event
) -> tuple[Backend, str, list[samples.Sample]]:
    """Give the model, the digest of its artefact, and the requests for its warm-up."""
    if config.allow_code and not config.model_sha256 and config.model_uri.startswith("http"):
        msg = (
            "model.sha256 is required where model.allowCode is true and the artefact comes from the network: code runs "
            "only after its digest was verified"
        )
        raise LoadError("InvalidConfig", msg, permanent=True)
    repository = Repository(
        directory=Path(config.download_dir),
        timeout=config.download_timeout,
        max_bytes=config.max_model_bytes,
        stop=stop,
    )
    artefact = repository.fetch(config.model_uri, config.model_sha256)
    requests = samples.collect(config, artefact.path, repository)
    backend = open_backend(config.model_format, artefact.path, options_of(config))
    return backend, artefact.sha256, requests


def options_of(config: RuntimeConfig) -> Options:
    """What a model is opened with, from the settings and what this process may use.

    Raises:
        LoadError: AcceleratorUnavailable.
    """
    return Options(
        threads=config.intra_op_threads or max(1, cgroup.usable_cpus() // config.workers),
        device=devices.choose(config.accelerator, devices.look(os.environ)),
        provider=config.execution_provider,
        precision=config.precision,
        compiled=config.compile_model,
        gpu_memory_bytes=config.gpu_memory_bytes,
        inputs=tuple(map(_declared, config.model_inputs)),
        outputs=tuple(map(_declared, config.model_outputs)),
        allow_code=config.allow_code,
        entrypoint=config.model_entrypoint,
        directory=Path(config.download_dir),
        max_bytes=config.max_model_bytes,
    )


def _declared(tensor: TensorDeclaration) -> TensorSpec:
    shape = tuple(None if size < 0 else size for size in tensor.shape)
    return TensorSpec(name=tensor.name, datatype=tensor.datatype.value, shape=shape)


def _warm_up(
    config: RuntimeConfig, backend: Backend, requests: list[samples.Sample]
) -> warmup.Report:
    # The user's own come first: where they fail, their message says more than a failure on zeros.
    examples = samples.run(backend, requests)
    return warmup.warm_up(
        backend,
        requests=config.warmup_requests,
        max_batch_size=config.max_batch_size,
        examples=examples,
    )


async def in_daemon_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in a thread that cannot keep the process from leaving."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type] # None only where T is None

    def work() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            failure = error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=work, daemon=True, name="loader").start()
    return await future
