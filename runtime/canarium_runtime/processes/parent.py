"""The parent of several serving processes.

Each process listens on a socket of its own for the same port (`SO_REUSEPORT`), so the kernel spreads connections; see
docs/adr/0023. The parent binds it and keeps no copy: when a process dies its socket is closed at that moment, and those
who connect from then on come to the others. A process that is started again listens only when its model is ready.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import time
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from canarium_api import metric_names as names
from canarium_api.runtime_config import LoadFailure, RuntimeConfig
from canarium_runtime import cgroup, termination
from canarium_runtime.lifecycle import ModelState
from canarium_runtime.processes import shares, sharing, wire
from canarium_runtime.processes.policy import Death, GiveUp, Restarts, how_it_ended
from canarium_runtime.processes.sums import Sums

_log = logging.getLogger(__name__)
_POLL_SECONDS: Final = 1.0
"""Between two looks at each process: at most so much of what it counted is lost when it dies."""
_ANSWER_SECONDS: Final = 1.0
"""How long a scrape waits for processes that do not answer; then the last that they said counts."""
_STUCK_SECONDS: Final = 60.0
"""A process that has not answered for so long is killed and started again."""
_GRACE_SECONDS: Final = 10.0
"""Beyond the time for draining, before a process that was told to stop is killed."""
_BACKLOG: Final = 2048


class _Child:
    """One of the places for a process, and the process that is in it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.restarts = Restarts(number)
        self.starts = 0
        self.life = 0
        self.process: asyncio.subprocess.Process | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.state = "Starting"
        self.reason = ""
        self.ready_at: float | None = None
        self.asked_at: float | None = None
        """Since when an answer is awaited."""
        self.round = 0
        """The latest round of questions that it has answered."""
        self.answered = asyncio.Event()

    def describe(self) -> dict[str, Any]:
        """For /health."""
        return {
            "number": self.number,
            "pid": self.process.pid if self.process is not None else None,
            "state": self.state,
            "reason": self.reason,
            "restarts": max(0, self.starts - 1),
        }


class Supervisor(Collector):
    """Runs and looks after the processes of one server.

    Args:
        config: of the whole server.
        count: how many processes.
    """

    def __init__(self, config: RuntimeConfig, count: int) -> None:
        self._config = config
        self._children = [_Child(number) for number in range(1, count + 1)]
        self._run = secrets.token_hex(8)
        self._lives = 0
        self._round = 0
        self._sums = Sums()
        self._collecting = asyncio.Lock()
        self._wanted: asyncio.Task[str] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = asyncio.Event()
        self._was_ready = False
        self._exit_code = 0
        self._failure: LoadFailure | None = None

    async def run(self) -> int:
        """Serve until told to stop; the exit code: 0, or that of a process that could not serve."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        probe = _bind(
            self._config, shared=False
        )  # with a shared port, another server's would not be noticed
        probe.close()
        polling = asyncio.create_task(self._poll())
        try:
            await asyncio.gather(*(self._look_after(child) for child in self._children))
        finally:
            polling.cancel()
            for child in self._children:
                if child.process is not None and child.process.returncode is None:
                    child.process.kill()
        if self._failure is not None:
            termination.write(self._failure)
        return self._exit_code

    # --- one process ---

    async def _look_after(self, child: _Child) -> None:
        """Start a process, and again whenever it dies, until the server leaves."""
        while not self._leaving.is_set():
            try:
                death = await self._live(child)
            finally:
                self._sums.end(child.life)
            self._set_state(child, "Died", how_it_ended(death.exit_code))
            if self._leaving.is_set():
                # One that had only begun to start does not know yet how to leave: the signal ended it.
                in_order = death.exit_code in {0, -signal.SIGTERM}
                if self._failure is None and not in_order:
                    self._exit_code = max(1, death.exit_code)
                return
            verdict = child.restarts.died(death, server_was_ready=self._was_ready)
            if isinstance(verdict, GiveUp):
                self._give_up(child, verdict)
                return
            _log.error(
                "a serving process died and is started again",
                extra={
                    "number": child.number,
                    "cause": child.reason,
                    "failure": death.failure.model_dump() if death.failure else None,
                    "delay_seconds": verdict.delay_seconds,
                },
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), verdict.delay_seconds)

    async def _live(self, child: _Child) -> Death:
        """Run one process from its start to its end."""
        ours, theirs = socket.socketpair()
        reason_of, reason_to = os.pipe()
        listener = _bind(self._config, shared=True)
        self._lives += 1
        child.life, child.starts = self._lives, child.starts + 1
        child.ready_at = child.asked_at = None
        command = [sys.executable, "-P", "-m", "canarium_runtime.processes.child"]
        command += ["--control", str(theirs.fileno()), "--listener", str(listener.fileno())]
        command += ["--number", str(child.number)]
        if child.number > 1 or child.starts > 1:
            # The first one answers from its start on, so that liveness is fine while a model is fetched.
            command.append("--listens-when-ready")
        try:
            child.process = await asyncio.create_subprocess_exec(
                *command,
                env={
                    **self._environment(child.number),
                    termination.VARIABLE: f"/dev/fd/{reason_to}",
                },
                pass_fds=(theirs.fileno(), listener.fileno(), reason_to),
                process_group=0,  # Ctrl-C is for the parent, which tells its processes
            )
        finally:
            theirs.close()
            listener.close()
            os.close(reason_to)
        if self._leaving.is_set():  # told to stop while it was being started
            child.process.terminate()
        self._set_state(child, "Starting", "the process is starting")
        reader, child.writer = await asyncio.open_unix_connection(sock=ours, limit=wire.MAX_BYTES)
        self._broadcast()
        while (message := await wire.read(reader)) is not None:
            self._take(child, message)
        child.writer.close()
        child.writer = None
        child.answered.set()
        exit_code = await child.process.wait()
        left = _read(reason_of)
        ready_seconds = time.monotonic() - child.ready_at if child.ready_at is not None else None
        return Death(exit_code=exit_code, failure=_failure(left), ready_seconds=ready_seconds)

    def _environment(self, number: int) -> dict[str, str]:
        """Environment of a process: ours, with the settings of one among several."""
        count = len(self._children)
        config = shares.of_each(self._config, count, cgroup.usable_cpus(), number)
        fields = {config.env_prefix + name.upper() for name in RuntimeConfig.model_fields}
        inherited = {k: v for k, v in os.environ.items() if k not in fields}
        return {**inherited, **config.to_env(), sharing.VARIABLE: self._run}

    def _take(self, child: _Child, message: wire.Message) -> None:
        if "metrics" in message:
            self._sums.report(child.life, message["metrics"])
            child.asked_at = None
            child.round = message["round"]
            child.answered.set()
        elif "scrape" in message:
            task = asyncio.create_task(self._scrape(child, child.life, message["scrape"]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif "state" in message:
            if message["state"] == ModelState.READY:
                child.ready_at = time.monotonic()
            self._set_state(child, message["state"], message["reason"])

    def _set_state(self, child: _Child, state: str, reason: str) -> None:
        child.state, child.reason = state, reason
        if self._all_ready and not self._was_ready:
            self._was_ready = True
            _log.info("all processes are ready", extra={"processes": len(self._children)})
        self._broadcast()

    @property
    def _all_ready(self) -> bool:
        return all(child.state == ModelState.READY for child in self._children)

    def _broadcast(self) -> None:
        fleet = [child.describe() for child in self._children]
        for child in self._children:
            if child.writer is not None:
                wire.write(child.writer, {"fleet": fleet})

    # --- leaving ---

    def _stop(self) -> None:
        """Pass a signal on. Each process drains; a second signal makes it leave at once, as ever."""
        _log.info("told to stop")
        self._leaving.set()
        for child in self._children:
            if child.process is not None and child.process.returncode is None:
                child.process.terminate()
        drain = self._config.drain_delay + self._config.drain_timeout
        asyncio.get_running_loop().call_later(drain.total_seconds() + _GRACE_SECONDS, self._kill)

    def _kill(self) -> None:
        for child in self._children:
            if child.process is not None and child.process.returncode is None:
                _log.error("a process does not leave: killed", extra={"number": child.number})
                child.process.kill()

    def _give_up(self, child: _Child, verdict: GiveUp) -> None:
        if self._failure is None:
            failure = verdict.failure
            _log.error(
                "the server gives up: a process cannot be started",
                extra={"number": child.number, "failure": failure.model_dump()},
            )
            self._failure, self._exit_code = failure, verdict.exit_code
        if not self._leaving.is_set():
            self._stop()

    # --- metrics ---

    def _ask(self) -> None:
        """Begin a round: every process is asked that does not owe an answer."""
        self._round += 1
        for child in self._children:
            asked = child.writer is not None and wire.write(child.writer, {"ask": self._round})
            if asked and child.asked_at is None:
                child.asked_at = time.monotonic()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            self._ask()
            for child in self._children:
                since, process = child.asked_at, child.process
                serving = child.state in {ModelState.READY, ModelState.DRAINING}
                if since is None or process is None or not serving:
                    continue
                if time.monotonic() - since > _STUCK_SECONDS:
                    _log.error("a process is stuck: killed", extra={"number": child.number})
                    child.asked_at = None
                    process.kill()

    async def _scrape(self, child: _Child, life: int, number: int) -> None:
        """Answer a scrape. Those that come while a round is under way share the next, which begins after they came."""
        if self._wanted is None:
            self._wanted = asyncio.create_task(self._sum())
        text = await asyncio.shield(self._wanted)
        if child.writer is not None and child.life == life:
            wire.write(child.writer, {"scraped": number, "metrics": text})

    async def _sum(self) -> str:
        async with self._collecting:
            self._wanted = None
            self._ask()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._answers(self._round), _ANSWER_SECONDS)
            registry = CollectorRegistry(auto_describe=False)
            registry.register(self)
            return generate_latest(registry).decode()

    async def _answers(self, number: int) -> None:
        for child in self._children:
            # One that is starting has counted nothing yet.
            while child.writer is not None and child.state != "Starting" and child.round < number:
                child.answered.clear()
                await child.answered.wait()

    def collect(self) -> Any:
        """Give the sums over all processes and this one."""
        own = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=own)
        return self._sums.metrics([*own.collect(), *self.own_metrics()])

    def own_metrics(self) -> list[Metric]:
        """What only the parent knows."""
        config = self._config
        identity = (config.deployment, config.model_version, config.revision)
        restarts = CounterMetricFamily(
            names.PROCESS_RESTARTS_TOTAL,
            "Serving processes that died and were started again.",
            labels=names.IDENTITY_LABELS,
        )
        restarts.add_metric(identity, sum(max(0, c.starts - 1) for c in self._children))
        ready = GaugeMetricFamily(
            names.PROCESSES_READY, "Serving processes that are ready.", labels=names.IDENTITY_LABELS
        )
        ready.add_metric(identity, sum(c.state == ModelState.READY for c in self._children))
        whole = GaugeMetricFamily(
            names.MODEL_READY, "1 while the server is ready, else 0.", labels=names.IDENTITY_LABELS
        )
        whole.add_metric(identity, int(self._all_ready))
        return [restarts, ready, whole]


def run(config: RuntimeConfig, count: int) -> int:
    """Serve with several processes until told to stop; the exit code."""
    try:
        return asyncio.run(Supervisor(config, count).run())
    except OSError as error:
        _log.error(
            "the server cannot start: is the port taken?",
            extra={"host": config.host, "port": config.port, "cause": error.strerror},
        )
        return 1


def _bind(config: RuntimeConfig, *, shared: bool) -> socket.socket:
    """Take the port.

    Raises:
        OSError: it cannot be had.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        if not shared:
            listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _read(pipe: int) -> bytes:
    """Read what was written to a pipe by now, and close it."""
    os.set_blocking(pipe, False)
    try:
        return os.read(pipe, 1 << 16)
    except BlockingIOError:
        return b""
    finally:
        os.close(pipe)


def _failure(left: bytes) -> LoadFailure | None:
    """Read what a process left in place of the termination log."""
    try:
        return LoadFailure.model_validate_json(left)
    except ValueError:
        return None
