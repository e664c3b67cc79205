"""Settings of the runtime's audit log: what is recorded of each prediction, and where. A part of `RuntimeConfig`."""

from datetime import timedelta
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from canarium_api.duration import Duration
from canarium_api.environment import EnvironmentModel


class AuditSink(StrEnum):
    """Where audit records go."""

    NONE = "None"
    """Nothing is recorded."""
    STDOUT = "Stdout"
    """Standard output, among the logs."""
    FILE = "File"
    """A file, which is rotated."""
    KAFKA = "Kafka"
    """A topic of Kafka."""


class AuditOutputs(StrEnum):
    """What of an answer is recorded."""

    WHOLE = "Whole"
    """The answer itself, up to a size; of larger ones the hash and the size."""
    HASH = "Hash"
    """SHA-256 and size."""
    NONE = "None"
    """Nothing."""


class AuditOnFull(StrEnum):
    """What happens while records come faster than they can be written."""

    DROP = "Drop"
    """Predictions go on; records are left out, counted, and the log says how many."""
    REFUSE = "Refuse"
    """Predictions are refused with 503, so that none goes unrecorded."""


class AuditFsync(StrEnum):
    """When a file's blocks are forced to the disk."""

    ALWAYS = "Always"
    """After each block."""
    EVERY_SECOND = "EverySecond"
    """At most once a second: a power cut may lose that much."""
    NEVER = "Never"
    """When the system does it."""


class AuditSettings(EnvironmentModel):
    """The audit log. By default it is off."""

    audit_sink: AuditSink = AuditSink.NONE
    """Where records go: `None`, `Stdout`, `File` or `Kafka`."""
    audit_outputs: AuditOutputs = AuditOutputs.WHOLE
    """What of an answer is recorded: `Whole`, `Hash` or `None`."""
    audit_max_output_bytes: int = Field(default=16 * 1024, ge=0, le=512 * 1024)
    """Largest answer that is recorded whole, in bytes; of larger ones the hash is."""
    audit_on_full: AuditOnFull = AuditOnFull.DROP
    """While records come faster than they are written: `Drop` or `Refuse`."""
    audit_buffer_records: int = Field(default=65_536, ge=16, le=10_000_000)
    """Most records that wait to be written."""
    audit_buffer_bytes: int = Field(default=64 * 1024 * 1024, ge=1024 * 1024)
    """Most bytes of bodies and answers that wait with them."""
    audit_flush_interval: Duration = Field(
        default=timedelta(milliseconds=500), gt=timedelta(0), le=timedelta(minutes=1)
    )
    """Longest time that a record waits; what comes meanwhile is one block of the chain."""
    audit_key_file: str | None = None
    """File with a secret of at least 32 bytes: the chain is made of HMACs, which who lacks it cannot forge."""
    audit_file: str = "/tmp/audit/{host}.jsonl"  # noqa: S108 - an emptyDir of the pod, or a volume
    """File of the sink `File`; `{host}` is the name of the pod. Two servers must not share one."""
    audit_file_max_bytes: int = Field(default=256 * 1024 * 1024, ge=4096)
    """Size in bytes from which on a new file is begun."""
    audit_file_keep: int = Field(default=0, ge=0, le=10_000)
    """How many full files are kept beside the current one; older ones are deleted. 0: all."""
    audit_fsync: AuditFsync = AuditFsync.EVERY_SECOND
    """When a file is forced to the disk: `Always`, `EverySecond` or `Never`."""
    audit_kafka_servers: str | None = None
    """Brokers of the sink `Kafka`, with commas between them: `kafka-0:9092,kafka-1:9092`."""
    audit_kafka_topic: str = Field(default="canarium-audit", pattern=r"^[a-zA-Z0-9._-]{1,249}$")
    """Topic of the sink `Kafka`."""
    audit_kafka_config_file: str | None = None
    """File of more properties of the client, such as `sasl.password=...`, a line each, as librdkafka names them."""

    @model_validator(mode="after")
    def _has_brokers(self) -> Self:
        if self.audit_sink is AuditSink.KAFKA and not self.audit_kafka_servers:
            msg = f"{self.env_prefix}AUDIT_KAFKA_SERVERS is required with the sink Kafka"
            raise ValueError(msg)
        return self
