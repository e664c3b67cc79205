"""`python -m canarium_runtime.jobs`: a worker of batch jobs.

It loads the model that `RuntimeConfig` names and takes work as `JobsConfig` says, both from the environment. It serves
no predictions, and none of its own count among those of the servers: gates compare what users got.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from secrets import token_hex
from typing import Final

import orjson
import uvloop
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from canarium_api.jobs_config import JobsConfig
from canarium_api.runtime_config import LoadFailure, RuntimeConfig
from canarium_runtime import loader, logs, termination
from canarium_runtime.errors import LoadError
from canarium_runtime.jobs.api import make_store
from canarium_runtime.jobs.errors import StoreError
from canarium_runtime.jobs.inference import RowRunner
from canarium_runtime.jobs.metrics import JobMetrics, QueueMetrics
from canarium_runtime.jobs.network import AddressRules
from canarium_runtime.jobs.queue import Queue
from canarium_runtime.jobs.redis_client import connect
from canarium_runtime.jobs.sources import Opener
from canarium_runtime.jobs.tools import Tools
from canarium_runtime.jobs.upkeep import Upkeep
from canarium_runtime.jobs.webhooks import Messenger
from canarium_runtime.jobs.worker import Worker
from canarium_runtime.listening import listening
from canarium_runtime.metrics import CONTENT_TYPE, Metrics
from canarium_runtime.repository import Stopped
from canarium_runtime.rest import http
from canarium_runtime.service import InferenceService

_log = logging.getLogger(__name__)
_EXIT_MODEL: Final = 1
_EXIT_SETTINGS: Final = 2
_END_SECONDS: Final = 5.0
"""For what works beside a worker to end."""


class AdminApp:
    """Health and metrics of a worker.

    Args:
        service: the model.
        registry: all metrics.
    """

    def __init__(self, service: InferenceService, registry: CollectorRegistry) -> None:
        self._service = service
        self._registry = registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            await http.send_answer(send, self.answer(scope["path"]))

    def answer(self, path: str) -> http.Answer:
        """Answer one path."""
        match path:
            case "/metrics":
                media = (b"content-type", CONTENT_TYPE.encode())
                return http.Answer(200, generate_latest(self._registry), media=media)
            case "/health/live":
                return http.Answer(200, b'{"live":true}')
            case "/health/ready":
                ready = self._service.ready
                document = {"ready": ready, "reason": self._service.lifecycle.reason}
                return http.Answer(200 if ready else 503, orjson.dumps(document))
            case _:
                body = {"error": f"nothing at {path}; there are /metrics and /health"}
                return http.Answer(404, orjson.dumps(body))


async def serve(identity: RuntimeConfig, config: JobsConfig) -> int:
    """Work until told to stop; the exit code."""
    if config.redis_url_file is None:
        _log.error("settings are wrong: CANARIUM_JOBS_REDIS_URL_FILE is missing")
        return _EXIT_SETTINGS
    stopping = threading.Event()
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stopping.set()
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    service = InferenceService(identity, _uncounted(identity))
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    try:
        async with listening(AdminApp(service, registry), config.host, config.port) as port:
            _log.info("listening", extra={"port": port})
            try:
                await loader.load(identity, service, stopping)
            except Stopped:
                return 0
            except LoadError as error:
                termination.write(error.failure)
                _log.error(
                    "the model cannot be used", extra={"failure": error.failure.model_dump()}
                )
                return _EXIT_MODEL
            await _work(identity, config, service, registry, told)
    except (OSError, StoreError) as error:
        _log.error("the worker cannot start", extra={"cause": str(error)})
        return _EXIT_SETTINGS
    finally:
        service.close()
    return 0


def _uncounted(identity: RuntimeConfig) -> Metrics:
    """Make metrics that nobody is shown: rows of jobs are no requests of users, and gates must not count them."""
    return Metrics(
        deployment=identity.deployment,
        model_version=identity.model_version,
        revision=identity.revision,
    )


async def _work(
    identity: RuntimeConfig,
    config: JobsConfig,
    service: InferenceService,
    registry: CollectorRegistry,
    told: asyncio.Event,
) -> None:
    client = connect(config.redis_url_file or "")
    consumer = f"{socket.gethostname()}-{token_hex(4)}"
    store = make_store(config, identity.deployment, client)
    rules = AddressRules(private_networks=config.networks)
    metrics, queue_metrics = JobMetrics(identity), QueueMetrics(identity)
    registry.register(metrics)
    registry.register(queue_metrics)
    tools = Tools(
        identity=identity,
        config=config,
        store=store,
        intake=Queue(client, store.keys.intake, consumer, config.lease),
        queue=Queue(client, store.keys.chunks(identity.revision), consumer, config.lease),
        runner=RowRunner(service),
        opener=Opener(config=config, rules=rules),
        metrics=metrics,
    )
    worker = Worker(tools)
    working = asyncio.create_task(worker.run())
    beside = [
        asyncio.create_task(Upkeep(worker, tools, queue_metrics, consumer).run()),
        asyncio.create_task(Messenger(config, store, rules, metrics, tools.now).run()),
    ]
    stopping = asyncio.create_task(_stop_when(told, worker))
    try:
        # What works beside it ends by a mistake only, and without signs of life a worker is of no use.
        await asyncio.wait([working, *beside], return_when=asyncio.FIRST_COMPLETED)
        for task in beside:
            if task.done():
                task.result()
        await working
    finally:
        worker.stop()
        for task in (*beside, stopping):
            task.cancel()
        # Not for ever: a client of Redis may take a cancellation for a timeout of its own, and it is lost.
        await asyncio.wait([working, stopping, *beside], timeout=_END_SECONDS)
        with contextlib.suppress(OSError):
            await client.aclose()


async def _stop_when(told: asyncio.Event, worker: Worker) -> None:
    await told.wait()
    _log.info("told to stop")
    worker.stop()


def main() -> int:
    """Run the worker; the exit code."""
    logs.configure("info")
    for kind in (RuntimeConfig, JobsConfig):
        try:
            kind.from_env(os.environ)
        except ValidationError as error:
            message = f"settings are wrong: {kind.describe(error)}"
            _log.error(message)
            termination.write(LoadFailure(reason="InvalidConfig", message=message, permanent=True))
            return _EXIT_SETTINGS
    identity = RuntimeConfig.from_env(os.environ)
    logs.configure(identity.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(identity, JobsConfig.from_env(os.environ)))


if __name__ == "__main__":
    sys.exit(main())
