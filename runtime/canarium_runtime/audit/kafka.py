"""A topic of Kafka as a sink: one message a block, its key the server, so that a server's blocks keep their order.

confluent-kafka (librdkafka) rather than aiokafka: the writer is a thread, and needs no event loop; the client retries
without doubling (idempotence), and brings brokers of its own for tests, which speak the real protocol.
"""

import socket
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from canarium_runtime.audit.sinks import End, SinkError

_WAIT_SECONDS: Final = 10.0
MAX_CONFIG_BYTES: Final = 64 * 1024


def read_properties(path: str) -> dict[str, str]:
    """Read a file of properties: `name=value` lines, `#` before comments.

    Raises:
        SinkError: it cannot be read; no value is in the message.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")[:MAX_CONFIG_BYTES]
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: the properties of Kafka's client cannot be read ({type(error).__name__})"
        raise SinkError(msg) from error
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        name, equals, value = entry.partition("=")
        if not equals:
            msg = f"{path}, line {number}: expected `name=value`"
            raise SinkError(msg)
        found[name.strip()] = value.strip()
    return found


class KafkaSink:
    """See the module.

    Args:
        servers: brokers, with commas between them.
        topic: where blocks go.
        config_file: more properties of the client; None: none.
        more: properties of tests.
    """

    key_per_start = True

    def __init__(
        self, servers: str, topic: str, config_file: str | None = None, **more: Any
    ) -> None:
        self._servers = servers
        self._topic = topic
        self._config_file = config_file
        self._more = more
        self._key = socket.gethostname().encode()
        self._producer: Producer | None = None
        self._sent: bytes | None = None
        self._answer: list[KafkaError | None] = []

    def open(self) -> End | None:
        """Make the client; it connects when it likes."""
        properties: dict[str, Any] = {
            "client.id": "canarium-audit",
            **(read_properties(self._config_file) if self._config_file else {}),
            "bootstrap.servers": self._servers,
            "enable.idempotence": True,
            # A block that is on its way is never given up and sent again: that would double it.
            "message.timeout.ms": 0,
            "compression.type": "lz4",
            "message.max.bytes": 4_000_000,
            **self._more,
        }
        try:
            self._producer = Producer(properties, logger=_Quiet())
        except (KafkaException, ValueError, TypeError) as error:
            msg = f"the properties of Kafka's client are wrong: {_reason(error)}"
            raise SinkError(msg) from error
        return None

    def write(self, block: bytes) -> None:
        """Send a block, and wait until the brokers have it. One that they have not taken yet is waited for again."""
        producer = self._producer
        if producer is None:
            msg = "Kafka: not open"
            raise SinkError(msg)
        if self._sent != block:
            self._send(producer, block)
        producer.flush(_WAIT_SECONDS)
        if not self._answer:
            msg = f"Kafka: no broker has taken the block within {_WAIT_SECONDS:g} s"
            raise SinkError(msg)
        error = self._answer.pop()
        self._sent = None
        if error is not None:
            if error.fatal():
                self.open()
            msg = f"Kafka: {error.name()}"
            raise SinkError(msg)

    def _send(self, producer: Producer, block: bytes) -> None:
        self._answer.clear()
        answer = self._answer

        def delivered(error: KafkaError | None, _: Message) -> None:
            answer.append(error)

        try:
            producer.produce(self._topic, value=block, key=self._key, on_delivery=delivered)
        except (KafkaException, BufferError) as error:
            msg = f"Kafka: {_reason(error)}"
            raise SinkError(msg) from error
        self._sent = block

    def is_full(self) -> bool:
        """Never."""
        return False

    def rotate(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Let go of the client."""
        self._producer = None


class _Quiet:
    """librdkafka's own log lines hold addresses and come in floods while brokers are away; what matters is raised."""

    def log(self, level: int, message: str, *arguments: Any) -> None:
        """Drop a line."""


def _reason(error: BaseException) -> str:
    first = error.args[0] if error.args else None
    return str(first.name()) if isinstance(first, KafkaError) else type(error).__name__
