"""All models of one server: which there are, which are loaded, and who makes room for whom.

The first is the server's own: `/predict` is its, and the server is ready when it is. Others are listed in
`RuntimeConfig.models`. Each has a queue, workers and counts of its own, so that a busy or a broken one does not keep
the others; the operating system shares the processors among their threads.

Without a bound for memory, all are loaded at the start. With one, another than the first is loaded when somebody asks
for it, and the least recently used ones that nobody uses just now are unloaded to make room: before a model is loaded
whose size is known, and after it was. The one that was used last stays, whatever its size. Requests for a model that is
being loaded wait for it. Models are loaded in threads: others answer meanwhile. One that cannot be loaded is tried
again after a pause, when somebody asks.
"""

import asyncio
import gc
import importlib.util
import logging
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from canarium_api.runtime_config import FallbackEntry, RuntimeConfig
from canarium_runtime import loader
from canarium_runtime.caching import ResponseCache
from canarium_runtime.errors import ErrorKind, LoadError, ServingError
from canarium_runtime.fallback.other_model import OtherModel
from canarium_runtime.fallback.other_server import OtherServer
from canarium_runtime.fallback.sources import Fallback, FixedAnswer, name_of
from canarium_runtime.lifecycle import Event, ModelState
from canarium_runtime.metrics import Metrics, render
from canarium_runtime.repository import Stopped
from canarium_runtime.resilience.breaker import BreakerPolicy
from canarium_runtime.service import InferenceService
from canarium_runtime.tracing.trace import Tracer

if TYPE_CHECKING:
    from canarium_runtime.tracing.spans import SpanWriter

_log = logging.getLogger(__name__)

Load = Callable[[RuntimeConfig, InferenceService, threading.Event], Awaitable[None]]
Key = tuple[str, str]
"""Name and version."""
RETRIES = BreakerPolicy(failures=1, first_pause_seconds=5.0, longest_pause_seconds=300.0)
"""How long a model that could not be loaded on demand is left alone."""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One line of the repository's index."""

    name: str
    version: str
    state: ModelState
    reason: str


class Models:
    """See the module. Call on the event loop.

    Args:
        config: settings; those of each other model are made from it.
        load: puts a model into service; replaced in tests.
        retries: pauses after a loading on demand that failed.
    """

    def __init__(
        self, config: RuntimeConfig, load: Load = loader.load, retries: BreakerPolicy = RETRIES
    ) -> None:
        self.config = config
        self._load = load
        self._retries = retries
        self.stop = threading.Event()
        """When set, loading is given up."""
        self.primary = _make_service(config, config.model_version)
        self._primary_key = (config.model_name, config.model_version)
        self._services: dict[Key, InferenceService] = {
            (config.model_name, config.model_version): self.primary
        }
        for entry in config.models:
            own = config.model_copy(
                update={
                    "model_name": entry.name,
                    "model_version": entry.version,
                    "model_uri": entry.uri,
                    "model_sha256": entry.sha256,
                    "model_format": entry.format,
                    "model_inputs": entry.inputs,
                    "model_outputs": entry.outputs,
                    "models": (),
                    "fallbacks": (),
                    "model_padding": (),
                    # Requests for another model's warm-up.
                    "warmup_samples": (),
                    "warmup_uri": None,
                    "warmup_sha256": None,
                    "validation": "",  # the rules are for the inputs of the first model
                }
            )
            service = _make_service(own, f"{entry.name}:{entry.version}")
            service.shared_cache = self._primary_cache
            self._services[entry.name, entry.version] = service
            if config.model_memory_bytes:
                service.lifecycle.advance(Event.UNLOAD, "it is loaded when somebody asks for it")
                service.on_demand = lambda key=(entry.name, entry.version): self._demand(key)
                service.on_idle = self._somebody_idle
        self.primary.fallbacks = [self._fallback(entry) for entry in config.fallbacks]
        self._loading: dict[Key, asyncio.Task[None]] = {}
        self._failures: dict[Key, int] = {}
        """How often in a row a model could not be loaded."""
        self._again_at: dict[Key, float] = {}
        """Instant of `time.monotonic()` from which a model that failed is tried again."""
        self._bytes: dict[Key, int] = {}
        """How much memory a model took when it was loaded last."""
        self._crowded = False
        """The models that could not be unloaded take more memory than they may."""
        self._spans: SpanWriter | None = None

    def __iter__(self) -> Iterator[InferenceService]:
        return iter(self._services.values())

    def names(self) -> dict[str, list[str]]:
        """Versions by name of model, in the order in which they were listed."""
        found: dict[str, list[str]] = {}
        for name, version in self._services:
            found.setdefault(name, []).append(version)
        return found

    def get(self, name: str, version: str | None = None) -> InferenceService:
        """Give a model; without a version the first that is listed.

        Raises:
            ServingError: NOT_FOUND.
        """
        versions = self.names()
        if name not in versions:
            message = f"no model {name!r} here; there is {', '.join(map(repr, versions))}"
            raise ServingError(ErrorKind.NOT_FOUND, message)
        found = self._services.get((name, versions[name][0] if version is None else version))
        if found is None:
            message = (
                f"model {name!r} has no version {version!r} here; "
                f"there is {', '.join(map(repr, versions[name]))}"
            )
            raise ServingError(ErrorKind.NOT_FOUND, message)
        return found

    def index(self) -> list[ModelStatus]:
        """Tell how each model stands."""
        return [
            ModelStatus(name, version, s.lifecycle.state, s.lifecycle.reason)
            for (name, version), s in self._services.items()
        ]

    async def start(self) -> None:
        """Load what is wanted from the start; ends when the first model is in service.

        A failure of another model is its own: it says so in the index and in /health.

        Raises:
            LoadError: the first model cannot be served.
            Stopped: loading was given up.
        """
        if self.config.tracing_endpoint is not None:
            await self._begin_tracing()
        loading = asyncio.create_task(self._start_primary())
        self._loading[self._primary_key] = loading
        await loading
        # What was made until now stays: without this, every full collection walks through all modules. Once, since what
        # is frozen is never collected, and later models come and go.
        gc.collect()
        gc.freeze()
        for key, service in self._services.items():
            if service is not self.primary and service.on_demand is None:
                self._fetch(key)

    async def _begin_tracing(self) -> None:
        if importlib.util.find_spec("opentelemetry.sdk") is None:
            text = "tracing needs OpenTelemetry: use a runtime image with the extra `tracing`"
            raise LoadError("InvalidConfig", text, permanent=True)
        # In a thread, as importing the SDK takes a moment and liveness is asked already.
        self.trace_with(await asyncio.to_thread(_make_writer, self.config))

    def trace_with(self, spans: "SpanWriter") -> None:
        """Trace requests from now on."""
        self._spans = spans
        self.primary.metrics.more.append(spans.families)
        tracer = Tracer(self.config.tracing_ratio, spans)
        for service in self:
            service.tracer = tracer

    async def _start_primary(self) -> None:
        await self._load(self.config, self.primary, self.stop)

    async def load(self, name: str, version: str | None = None) -> None:
        """Load a model that is not loaded.

        Raises:
            ServingError: NOT_FOUND, or NOT_READY with the reason why it cannot be loaded.
        """
        service = self.get(name, version)
        key = (service.config.model_name, service.config.model_version)
        if service.ready:
            return
        await asyncio.wait((self._fetch(key),))  # it goes on, whether the caller stays or not
        if not service.ready:
            raise ServingError(ErrorKind.NOT_READY, f"model {name!r}: {service.lifecycle.reason}")

    async def unload(self, name: str, version: str | None = None) -> None:
        """Unload a model; requests under way are answered first. Of one that is not loaded: nothing.

        Raises:
            ServingError: NOT_FOUND.
        """
        service = self.get(name, version)
        key = (service.config.model_name, service.config.model_version)
        loading = self._loading.get(key)
        if not service.ready and loading is not None:
            await asyncio.wait((loading,))
        if service.ready:
            service.retire("unloaded by request")
        await service.freed()

    def terminate(self) -> None:
        """Stop being ready, and go on answering."""
        for service in self:
            service.terminate()

    def refuse(self) -> None:
        """Refuse from now on; requests under way go on."""
        for service in self:
            service.stop()

    def render(self) -> bytes:
        """All series of all models in Prometheus' text format."""
        return render([service.metrics for service in self])

    def _primary_cache(self) -> ResponseCache | None:
        pipeline = self.primary.pipeline
        return None if pipeline is None else pipeline.cache

    def _fallback(self, entry: FallbackEntry) -> Fallback:
        """Make what stands in for the first model."""
        primary = self.primary
        if entry.url is not None:
            return OtherServer(entry.url, entry.timeout.total_seconds(), lambda: primary.spec)
        if entry.outputs is not None:
            return FixedAnswer(entry.outputs, lambda: primary.spec)
        assert entry.model is not None  # noqa: S101 - the settings are checked
        key = self.config.key_of(entry)
        return OtherModel(name_of(entry), self._services[key], lambda: primary.spec)

    async def close(self) -> None:
        """Give up loading, drop what waits and free all models."""
        self.stop.set()
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for service in self:
            service.close()
        for service in self:
            await service.close_stages()
        if self._spans is not None:
            await self._spans.close()

    def _demand(self, key: Key) -> bool:
        """Begin to load a model that somebody asks for; False: it failed a short while ago."""
        if time.monotonic() < self._again_at.get(key, 0.0):
            return False
        self._fetch(key)
        return True

    def _fetch(self, key: Key) -> asyncio.Task[None]:
        """Begin to load a model, unless that goes on already."""
        task = self._loading.get(key)
        if task is None or task.done():
            task = self._loading[key] = asyncio.create_task(self._load_one(key))
        return task

    async def _load_one(self, key: Key) -> None:
        service = self._services[key]
        await service.freed()
        if service.lifecycle.allows(Event.LOAD):
            service.lifecycle.advance(Event.LOAD, "the model is being loaded")
        self._make_room(self._bytes.get(key, 0))
        try:
            await self._load(service.config, service, self.stop)
        except Stopped:
            service.fail("the server was told to stop")
        except LoadError as error:
            _log.error("a model cannot be loaded", extra={"failure": error.failure.model_dump()})
            self._note_failure(key, permanent=error.failure.permanent)
            service.fail(error.failure.message)
        except Exception:  # noqa: BLE001 - logged, and told to those who ask for it
            _log.exception("loading a model failed in this server itself")
            self._note_failure(key)
            service.fail("loading failed in this server itself")
        else:
            if not service.ready:  # told to stop meanwhile
                service.fail(service.lifecycle.reason)
                return
            self._failures.pop(key, None)
            self._again_at.pop(key, None)
            self._bytes[key] = service.memory_bytes
            self._make_room()

    def _note_failure(self, key: Key, *, permanent: bool = False) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = self._retries.pause_seconds(failures - 1, random.random())  # noqa: S311 - no secret
        self._again_at[key] = math.inf if permanent else time.monotonic() + pause

    def _somebody_idle(self) -> None:
        """Make the room that could not be made while all were in use."""
        if self._crowded:
            self._crowded = False
            # Not at once: whoever hands the last answer out may still ask for the specs.
            asyncio.get_running_loop().call_soon(self._make_room)

    def _make_room(self, coming_bytes: int = 0) -> None:
        """Unload least recently used models until the rest fit.

        Args:
            coming_bytes: of a model that is about to be loaded.
        """
        bound = self.config.model_memory_bytes
        if not bound:
            return
        while (taken := sum(s.memory_bytes for s in self)) + coming_bytes > bound:
            loaded = [s for s in self if s.on_demand is not None and s.ready]
            newest = max(loaded, key=lambda s: s.used_at, default=None)
            idle = [s for s in loaded if not s.busy and (coming_bytes or s is not newest)]
            if not idle:
                self._crowded = len(loaded) > 1
                _log.warning(
                    "the models in use need more memory than they may",
                    extra={"bound_bytes": bound, "bytes": taken + coming_bytes},
                )
                return
            oldest = min(idle, key=lambda s: s.used_at)
            _log.info(
                "a model makes room for another",
                extra={
                    "unloaded": oldest.config.model_name,
                    "idle_seconds": round(time.monotonic() - oldest.used_at, 1),
                },
            )
            oldest.retire("it made room for another; it is loaded again when somebody asks")


def _make_writer(config: RuntimeConfig) -> "SpanWriter":
    from canarium_runtime.tracing.spans import make_writer

    return make_writer(config)


def _make_service(config: RuntimeConfig, label: str) -> InferenceService:
    metrics = Metrics(deployment=config.deployment, model_version=label, revision=config.revision)
    return InferenceService(config, metrics)
