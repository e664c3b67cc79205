"""`AuditLog`: takes records from the event loop and has a thread write them.

`record` is on the way of each request: it appends a tuple and returns. The thread formats, seals and writes what has
come meanwhile as one block. It works in slices and lets go of the interpreter between them, so that requests never wait
for a whole block.

A block that the sink does not take is tried again until it does; meanwhile the buffer fills, and then either records
are left out, which the next seal counts, or requests are refused (`check`).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from canarium_api.audit_config import AuditSettings, AuditSink
from canarium_runtime.audit import chain
from canarium_runtime.audit.buffer import Buffer
from canarium_runtime.audit.counts import AuditCounts
from canarium_runtime.audit.sinks import FileSink, Sink, SinkError, StdoutSink
from canarium_runtime.audit.writer import Writer
from canarium_runtime.errors import LoadError

_log = logging.getLogger(__name__)
_CLOSE_SECONDS = 10.0
"""How long the end of the server waits for what is not written yet."""


class AuditLog(Buffer):
    """See the module; `check` and `record` are the buffer's.

    Args:
        settings: what is recorded, and where.
        counts: what is counted.
        sink: for tests; default: the one that the settings name.
        headroom: records that may still come after `check` has let in the last request: most requests under way.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        settings: AuditSettings,
        counts: AuditCounts | None = None,
        *,
        sink: Sink | None = None,
        headroom: int = 0,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(settings, counts or AuditCounts(), headroom, wall)
        self._settings = settings
        self._sink = sink
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Open the sink, go on where the log ended, and start the thread.

        Raises:
            LoadError: the sink or the key cannot be used.
        """
        if not self.enabled:
            return
        try:
            key = await asyncio.to_thread(self._read_key)
            sink = self._sink or make_sink(self._settings)
            end = await asyncio.to_thread(sink.open)
        except SinkError as error:
            message = f"the audit log cannot be written: {error}"
            raise LoadError("InvalidConfig", message) from error
        writer = Writer(self, self._settings, sink, key, end)
        self._thread = threading.Thread(target=writer.run, name="audit", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Write what waits, and end the thread; what cannot be written in time is dropped."""
        if self._thread is None:
            return
        self.stopping.set()
        self.wake.set()
        await asyncio.to_thread(self._thread.join, _CLOSE_SECONDS)
        self._thread = None
        if left := self.waiting():
            self.counts.dropped += left
            _log.error("audit records were not written before the end: %d", left)
            self.rows.clear()

    def _read_key(self) -> bytes:
        path = self._settings.audit_key_file
        return read_key(path) if path else b""


def read_key(path: str) -> bytes:
    """Read the secret of a chain.

    Raises:
        SinkError: it cannot be read, or is too short.
    """
    try:
        key = Path(path).read_bytes().strip()
    except OSError as error:
        msg = f"{path}: the key of the chain cannot be read: {error.strerror}"
        raise SinkError(msg) from error
    if len(key) < chain.MIN_KEY_BYTES:
        msg = (
            f"{path}: the key of the chain has {len(key)} bytes, and needs {chain.MIN_KEY_BYTES}: "
            "make one with `openssl rand -hex 32`"
        )
        raise SinkError(msg)
    return key


def make_sink(settings: AuditSettings) -> Sink:
    """Make the sink that the settings name."""
    match settings.audit_sink:
        case AuditSink.FILE:
            return FileSink(
                settings.audit_file,
                settings.audit_file_max_bytes,
                settings.audit_file_keep,
                settings.audit_fsync,
            )
        case AuditSink.KAFKA:
            from canarium_runtime.audit.kafka import KafkaSink

            servers = settings.audit_kafka_servers or ""
            return KafkaSink(servers, settings.audit_kafka_topic, settings.audit_kafka_config_file)
        case _:
            return StdoutSink()
