"""Run the operator: `python -m canarium_operator [--kubeconfig FILE]`, or `canarium operator`."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import start_http_server
from pydantic import ValidationError

from canarium_api.status import ModelDeploymentStatus
from canarium_operator import handlers
from canarium_operator.adapters import telemetry
from canarium_operator.adapters.forges import HttpForge
from canarium_operator.adapters.git.process import GitProcess
from canarium_operator.adapters.kubernetes_cluster import (
    CHILD_RESOURCES,
    KubernetesCluster,
    connect,
)
from canarium_operator.adapters.kubernetes_watch import ChildCache
from canarium_operator.adapters.object_memory import ObjectMemory
from canarium_operator.adapters.prometheus import PrometheusMetrics
from canarium_operator.adapters.webhooks import HttpWebhooks
from canarium_operator.copies import MemoryCopies
from canarium_operator.core.naming import ObjectRef
from canarium_operator.errors import ClusterError
from canarium_operator.messenger import Messenger
from canarium_operator.reconciler import Reconciler
from canarium_operator.replay.decisions import DecisionLog
from canarium_operator.scribe import Scribe
from canarium_operator.settings import OperatorSettings
from canarium_operator.sizing import Sizing
from canarium_operator.worker import Workers

log = logging.getLogger(__name__)


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Give the present instant, in UTC."""
        return datetime.now(UTC)


def report(ref: ObjectRef, status: ModelDeploymentStatus | None) -> None:
    """Export a status as metrics, or drop those of an object that is gone."""
    if status is None:
        telemetry.forget(ref)
    else:
        telemetry.report_status(ref, status)


async def run(settings: OperatorSettings, kubeconfig: str | None) -> None:
    """Watch and reconcile until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            connect(kubeconfig, on_request=telemetry.count_request)
        )
        # The workers are made below, since their passes need the cluster, which needs this.
        cache = ChildCache(
            client, CHILD_RESOURCES, settings.namespaces, on_change=lambda ref: workers.wake(ref)
        )
        objects = ObjectMemory()
        cluster = KubernetesCluster(
            client, timeout=settings.kube_timeout, cache=cache, objects=objects
        )
        metrics = PrometheusMetrics(settings.prometheus_url, timeout=settings.prometheus_timeout)
        clock = SystemClock()
        scribe = Scribe(cluster, GitProcess(), HttpForge(), lambda ref: workers.wake(ref))
        stack.push_async_callback(scribe.close)
        copies = MemoryCopies(cluster, clock, settings.memory_namespace)
        reconciler = Reconciler(
            cluster,
            metrics,
            clock,
            runtime_image=settings.runtime_image,
            resync=settings.resync,
            report=report,
            messenger=Messenger(cluster, HttpWebhooks()),
            scribe=scribe,
            decisions=DecisionLog(Path(settings.decision_log)) if settings.decision_log else None,
            copies=copies,
        )

        async def reconcile(ref: ObjectRef) -> timedelta | None:
            with telemetry.observe_pass():
                return await reconciler.reconcile(ref)

        workers = Workers(reconcile, settings.max_concurrent)
        stack.push_async_callback(workers.close)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        log.info("watching %s", ", ".join(settings.namespaces) or "all namespaces")
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(cache.run(), name="cache")
            tidying = tasks.create_task(copies.run(), name="copies")
            sizing = tasks.create_task(Sizing(cluster, metrics, clock).run(), name="sizing")
            await handlers.watch(settings, workers.wake, stop, objects=objects)
            keeping.cancel()
            sizing.cancel()
            tidying.cancel()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and give the exit status."""
    parser = argparse.ArgumentParser(
        prog="canarium operator", description="Run the Canarium operator."
    )
    parser.add_argument(
        "--kubeconfig",
        help="run outside the cluster with this file; without it: in-cluster, else $KUBECONFIG or ~/.kube/config",
    )
    options = parser.parse_args(arguments)
    try:
        settings = OperatorSettings.from_env(os.environ)
    except ValidationError as error:
        for entry in error.errors(include_url=False, include_input=False):
            name = "CANARIUM_" + str(entry["loc"][0]).upper()
            print(f"canarium operator: {name}: {entry['msg']}", file=sys.stderr)
        return 2
    telemetry.configure_logging(settings.log_level)
    if options.kubeconfig is not None:
        # kopf reads the same variable, so that both clients talk to the same cluster.
        os.environ["KUBECONFIG"] = options.kubeconfig
    try:
        start_http_server(settings.metrics_port)
    except OSError as error:
        print(
            f"canarium operator: port {settings.metrics_port} for /metrics: {error.strerror}: "
            "set CANARIUM_METRICS_PORT to a free one, or to 0",
            file=sys.stderr,
        )
        return 1
    try:
        asyncio.run(run(settings, options.kubeconfig))
    except ClusterError as error:
        print(f"canarium operator: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
