"""The audit log to Kafka, against the brokers that librdkafka brings for tests: they speak the real protocol."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.audit.kafka import KafkaSink, read_properties
from canarium_runtime.audit.log import AuditLog
from canarium_runtime.audit.records import model_fragment
from canarium_runtime.audit.sinks import SinkError
from canarium_runtime.audit.verify import Place, verify

MODEL = model_fragment(name="fraud", version="7", revision="r1", sha256="a" * 64)


@pytest.fixture(scope="module")
def brokers() -> Iterator[str]:
    """Brokers in this process; gives their addresses."""
    holder = Producer({"test.mock.num.brokers": "3", "bootstrap.servers": "ignored"})
    metadata = holder.list_topics(timeout=10)
    yield ",".join(f"{b.host}:{b.port}" for b in metadata.brokers.values())
    holder.flush(1)


def blocks_of(brokers: str, topic: str, number: int) -> list[tuple[bytes, bytes]]:
    """Read so many messages: key and value."""
    consumer = Consumer(
        {"bootstrap.servers": brokers, "group.id": "test", "enable.auto.commit": False}
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    found: list[tuple[bytes, bytes]] = []
    ends = time.monotonic() + 30
    while len(found) < number and time.monotonic() < ends:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            found.append((message.key(), message.value()))
    consumer.close()
    return found


async def test_blocks_arrive_in_their_order_and_verify(brokers: str) -> None:
    """World: 1500 predictions; each block is a message, all of one key."""
    config = RuntimeConfig(
        model_uri="file:///m",
        audit_sink="Kafka",
        audit_kafka_servers=brokers,
        audit_kafka_topic="audit",
        audit_flush_interval="20ms",
    )
    log = AuditLog(config)
    await log.start()
    for number in range(1500):
        log.record("key:bob", f"r-{number}", "success", MODEL, b"{}", b'{"y":1}', 0.001)
    await log.close()
    assert (log.counts.written, log.counts.dropped) == (1500, 0)
    messages = blocks_of(brokers, "audit", 4)
    assert len({key for key, _ in messages}) == 1
    lines = b"".join(value for _, value in messages).splitlines(keepends=True)
    report = verify((Place("topic", n), line) for n, line in enumerate(lines, 1))
    assert report.records == 1500
    assert report.head == log.head


def test_a_block_that_no_broker_takes_is_waited_for_and_not_doubled(
    brokers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """World: a client that gives its brokers no time; events: the same block again, until it is there."""
    sink = KafkaSink(brokers, "slow", **{"linger.ms": 300})
    sink.open()
    monkeypatch.setattr("canarium_runtime.audit.kafka._WAIT_SECONDS", 0.001)
    failures = 0
    while True:
        try:
            sink.write(b"block 1\n")
        except SinkError as error:
            failures += "no broker has taken the block" in str(error)
        else:
            break
    assert failures > 0
    monkeypatch.undo()
    sink.write(b"block 2\n")
    sink.close()
    assert [v for _, v in blocks_of(brokers, "slow", 2)] == [b"block 1\n", b"block 2\n"]


def test_wrong_properties_are_named_without_their_values(tmp_path: Path) -> None:
    file = tmp_path / "properties"
    file.write_text("sasl.password=s3cret\nno.such.property=s3cret\n")
    with pytest.raises(SinkError) as caught:
        KafkaSink("127.0.0.1:1", "t", str(file)).open()
    assert "s3cret" not in str(caught.value)
    file.write_text("# comment\nsecurity.protocol = SSL\n\n")
    assert read_properties(str(file)) == {"security.protocol": "SSL"}
    file.write_text("nonsense\n")
    with pytest.raises(SinkError, match="line 1"):
        read_properties(str(file))
    with pytest.raises(SinkError, match="cannot be read"):
        read_properties(str(tmp_path / "none"))
