"""The audit log with its thread: what is recorded is written, whatever happens meanwhile."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.audit.log import AuditLog
from canarium_runtime.audit.records import model_fragment
from canarium_runtime.audit.sinks import End, FileSink, SinkError
from canarium_runtime.audit.verify import BrokenError, Report, verify_files
from canarium_runtime.errors import ErrorKind, LoadError, ServingError

MODEL = model_fragment(name="fraud", version="7", revision="r1", sha256="a" * 64)


def settings(file: Path, **more: Any) -> RuntimeConfig:
    fields = {"audit_sink": "File", "audit_file": str(file), "audit_flush_interval": "10ms", **more}
    return RuntimeConfig(model_uri="file:///m", **fields)


def note(log: AuditLog, number: int, output: bytes = b'{"y":[1.0]}') -> None:
    log.record("key:bob", f"r-{number}", "success", MODEL, b'{"x":1}', output, 0.001)


async def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.001)


async def write(file: Path, numbers: range, **more: Any) -> AuditLog:
    """One life of a server that records some predictions."""
    log = AuditLog(settings(file, **more))
    await log.start()
    for number in numbers:
        note(log, number)
    await log.close()
    return log


def files_of(folder: Path) -> list[Path]:
    full = sorted(p for p in folder.iterdir() if p.name != "audit.jsonl" and "audit" in p.name)
    return [*full, folder / "audit.jsonl"]


def ids(*files: Path) -> list[str]:
    lines = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
    return [line["id"] for line in lines if line["audit"] == "record"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "audit.jsonl"


async def test_what_is_recorded_is_written_and_verifies(file: Path) -> None:
    """World: 3000 predictions; they are there in their order, sealed, and counted."""
    log = await write(file, range(3000))
    assert ids(file) == [f"r-{n}" for n in range(3000)]
    report = verify_files([file])
    assert (report.records, report.dropped) == (3000, 0)
    assert report.head == log.head
    assert (log.counts.written, log.counts.dropped, log.waiting()) == (3000, 0, 0)


async def test_a_restart_goes_on_with_the_chain(file: Path) -> None:
    first = await write(file, range(3))
    second = await write(file, range(3, 5))
    report = verify_files([file])
    assert (report.records, report.chains) == (5, 1)
    starts = [json.loads(x) for x in file.read_bytes().splitlines() if b'"audit":"start"' in x]
    assert [s["previous"] for s in starts] == ["0" * 64, first.head]
    assert report.head == second.head
    assert [json.loads(x)["n"] for x in file.read_bytes().splitlines() if b'"record"' in x] == [
        1,
        2,
        3,
        4,
        5,
    ]


async def test_a_keyed_chain_goes_on_too(file: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef" * 2 + b"\n")
    for numbers in (range(3), range(3, 5)):
        await write(file, numbers, audit_key_file=str(key))
    assert verify_files([file], key=key.read_bytes().strip()).records == 5
    with pytest.raises(BrokenError):
        verify_files([file])


@pytest.mark.parametrize("content", [b"short", None])
async def test_a_key_that_cannot_serve_stops_the_start(
    file: Path, tmp_path: Path, content: bytes | None
) -> None:
    """And its content is in no message."""
    key = tmp_path / "key"
    if content is not None:
        key.write_bytes(content)
    with pytest.raises(LoadError) as caught:
        await write(file, range(1), audit_key_file=str(key))
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(b'{"audit":"record","n":4', id="half a record"),
        pytest.param(
            b'{"audit":"record","n":4}\n{"audit":"record","n":5}\n', id="records without a seal"
        ),
        pytest.param(b'{"audit":"record","n":4}\n{"audit":"seal","chain":"0', id="half a seal"),
    ],
)
async def test_what_a_crash_leaves_is_kept_and_told(file: Path, left: bytes) -> None:
    """World: a log that ends without a seal; event: a restart; world: it verifies, with a note, and is fixed."""
    await write(file, range(3))
    sealed = file.stat().st_size
    with file.open("ab") as raw:
        raw.write(left)
    with pytest.raises(BrokenError):
        verify_files([file])
    await write(file, range(3, 5))
    report = verify_files([file])
    assert report.records == 5
    assert "have no seal of their own" in report.notices[0]
    content = bytearray(file.read_bytes())
    content[sealed + 12] ^= 1
    file.write_bytes(content)
    with pytest.raises(BrokenError):
        verify_files([file])


async def test_a_crash_before_the_first_seal_is_told_too(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b'{"audit":"sta')
    await write(file, range(2))
    report = verify_files([file])
    assert (report.records, len(report.notices)) == (2, 1)


async def test_lines_that_were_slipped_in_before_a_restart_are_no_records(file: Path) -> None:
    """They verify as what a crash left, which proves nothing, and are not counted."""
    await write(file, range(2))
    with file.open("ab") as raw:
        raw.write(b'{"audit":"record","n":3,"client":"key:eve"}\n')
    await write(file, range(2, 3))
    report = verify_files([file])
    assert report.records == 3
    assert "prove nothing" in report.notices[0]


async def test_full_files_are_put_aside_and_the_chain_goes_on(file: Path) -> None:
    """World: files of 4 KiB; they verify together, and each alone only after the seal before it."""
    for life in range(4):
        await write(file, range(life * 30, life * 30 + 30), audit_file_max_bytes=4096)
    files = files_of(file.parent)
    assert [f.name for f in files] == ["audit.jsonl.000001", "audit.jsonl.000002", "audit.jsonl.000003",
                                       "audit.jsonl.000004", "audit.jsonl"]  # fmt: skip
    assert ids(*files) == [f"r-{n}" for n in range(120)]
    whole = verify_files(files)
    assert whole.records == 120
    before = verify_files(files[:2]).head
    assert verify_files(files[2:], after=before).head == whole.head
    with pytest.raises(BrokenError, match="are missing"):
        verify_files(files[2:])
    with pytest.raises(BrokenError):
        verify_files([files[0], files[2], files[1], *files[3:]])


async def test_only_so_many_full_files_are_kept(file: Path) -> None:
    for life in range(5):
        await write(
            file, range(life * 30, life * 30 + 30), audit_file_max_bytes=4096, audit_file_keep=2
        )
    assert [f.name for f in files_of(file.parent)] == [
        "audit.jsonl.000004",
        "audit.jsonl.000005",
        "audit.jsonl",
    ]


async def test_a_file_that_was_moved_away_is_begun_anew(file: Path) -> None:
    """As logrotate does it; nothing is lost, and the two verify together."""
    log = AuditLog(settings(file))
    await log.start()
    note(log, 1)
    await until(lambda: log.counts.written == 1)
    moved = file.with_name("audit.old")
    file.rename(moved)
    note(log, 2)
    await until(lambda: log.counts.written == 2)
    await log.close()
    assert verify_files([moved, file]).records == 2


async def test_two_servers_cannot_write_one_file(file: Path) -> None:
    """The second one does not start, and says what to do."""
    log = AuditLog(settings(file))
    await log.start()
    with pytest.raises(LoadError, match=r"another process writes it.*\{host\}"):
        await AuditLog(settings(file)).start()
    await log.close()


async def test_the_name_of_the_host_is_put_in(tmp_path: Path) -> None:
    await write(tmp_path / "{host}.jsonl", range(1))
    assert [p.name for p in tmp_path.iterdir()] == [f"{os.uname().nodename}.jsonl"]


class StubbornSink:
    """A sink that takes nothing until it is let."""

    key_per_start = True

    def __init__(self, failures: int = 0) -> None:
        self.gate = threading.Event()
        self.blocks: list[bytes] = []
        self.failures = failures

    def open(self) -> End | None:
        return None

    def write(self, block: bytes) -> None:
        if self.blocks:
            self.gate.wait(20)
        if self.blocks and self.failures:
            self.failures -= 1
            msg = "the disk is full"
            raise SinkError(msg)
        self.blocks.append(block)

    def is_full(self) -> bool:
        return False

    def rotate(self) -> None: ...

    def close(self) -> None: ...

    def report(self) -> Report:
        from canarium_runtime.audit.verify import Place, verify

        lines = b"".join(self.blocks).splitlines(keepends=True)
        return verify((Place("log", n), line) for n, line in enumerate(lines, 1))


async def test_a_full_buffer_leaves_records_out_and_says_how_many(file: Path) -> None:
    """World: room for 16, a sink that waits; events: 100 records; the next seal tells of those that are missing."""
    sink = StubbornSink()
    log = AuditLog(settings(file, audit_buffer_records=16), sink=sink)
    await log.start()
    await until(lambda: bool(sink.blocks))
    for number in range(100):
        note(log, number)
    assert log.counts.dropped >= 100 - 16 - 512
    log.check()
    sink.gate.set()
    await until(lambda: log.waiting() == 0)
    note(log, 100)
    await log.close()
    report = sink.report()
    assert report.records + report.dropped == 101
    assert report.dropped == log.counts.dropped > 0


async def test_a_full_buffer_refuses_where_nothing_may_go_unrecorded(file: Path) -> None:
    """World: room for 16, 4 under way; `check` refuses so early that all that were let in are recorded."""
    sink = StubbornSink()
    log = AuditLog(
        settings(file, audit_buffer_records=16, audit_on_full="Refuse"), sink=sink, headroom=4
    )
    await log.start()
    await until(lambda: bool(sink.blocks))
    note(log, 0)
    await until(lambda: len(log.in_hand) == 1)  # the writer waits for the sink
    admitted = 1
    while admitted < 13:  # 12 wait, and room for the 4 under way is left
        log.check()
        note(log, admitted)
        admitted += 1
    with pytest.raises(ServingError) as caught:
        log.check()
    assert caught.value.kind is ErrorKind.AUDIT_FULL
    for _ in range(4):
        note(log, admitted)
        admitted += 1
    assert log.counts.dropped == 0
    sink.gate.set()
    await until(lambda: log.waiting() == 0)
    log.check()
    await log.close()
    assert sink.report().records == admitted == 17


async def test_large_bodies_are_bounded_in_bytes(file: Path) -> None:
    """World: room for 1 MiB; events: bodies of half a MiB."""
    sink = StubbornSink()
    log = AuditLog(settings(file, audit_buffer_bytes=1024 * 1024), sink=sink)
    await log.start()
    await until(lambda: bool(sink.blocks))
    for _ in range(10):
        log.record("c", "r", "success", MODEL, b"x" * 512 * 1024, b"{}", 0.0)
    assert log.waiting() <= 2
    assert log.counts.dropped == 10 - log.waiting()
    sink.gate.set()
    await log.close()
    assert log.counts.written + log.counts.dropped == 10


async def test_a_block_that_is_not_taken_is_tried_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """World: a disk that is full twice; nothing is lost, doubled or out of order, and it is said once."""
    monkeypatch.setattr("canarium_runtime.audit.writer._RETRY_SECONDS", 0.001)
    sink = StubbornSink(failures=2)
    log = AuditLog(settings(file), sink=sink)
    await log.start()
    sink.gate.set()
    for number in range(5):
        note(log, number)
    await until(lambda: log.counts.written == 5)
    await log.close()
    assert sink.report().records == 5
    assert log.counts.failures == 2
    assert log.problem == ""
    assert [r.message for r in caplog.records if "cannot be written" in r.message] == [
        "the audit log cannot be written: the disk is full"
    ]


def test_a_disk_that_fills_up_leaves_no_half_block(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """World: a write that stops half way; the file is as before it."""
    sink = FileSink(str(file), 10**6)
    sink.open()
    sink.write(b"whole\n")
    real = os.write
    calls = []

    def half(fd: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(fd, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(SinkError, match="No space left"):
        sink.write(b"0123456789\n")
    monkeypatch.undo()
    assert file.read_bytes() == b"whole\n"
    sink.write(b"again\n")
    assert file.read_bytes() == b"whole\nagain\n"
    sink.close()


async def test_standard_output_gets_whole_lines_among_the_logs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = AuditLog(RuntimeConfig(model_uri="file:///m", audit_sink="Stdout"))
    await log.start()
    print('{"level": "info"}')
    note(log, 1)
    await log.close()
    out = tmp_path / "out"
    out.write_text(capsys.readouterr().out)
    assert verify_files([out], among_logs=True).records == 1


async def test_the_newest_seal_is_told_to_the_ordinary_log(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """So that who keeps the logs elsewhere can tell when the end was cut off."""
    with caplog.at_level("INFO"):
        log = await write(file, range(3))
    told = [r for r in caplog.records if r.message == "audit head"][-1]
    assert told.head == log.head  # type: ignore[attr-defined]
    assert verify_files([file], head=log.head).records == 3


async def test_off_means_off(tmp_path: Path) -> None:
    log = AuditLog(RuntimeConfig(model_uri="file:///m"))
    await log.start()
    assert not log.enabled
    note(log, 1)
    log.check()
    assert (log.waiting(), log.counts.dropped) == (0, 0)
    await log.close()
