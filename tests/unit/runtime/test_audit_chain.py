"""The chain: what is sealed verifies, and whatever is done to it afterwards is found."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_api.audit_config import AuditOutputs
from canarium_runtime.audit import chain
from canarium_runtime.audit.__main__ import main
from canarium_runtime.audit.records import Recorder, Row, model_fragment, start_line
from canarium_runtime.audit.verify import BrokenError, Place, Report, verify

MODEL = model_fragment(name="fraud", version="7", revision="r1", sha256="a" * 64)
AT = 1_764_131_054.25
KEY = b"k" * 32


def row(number: int = 1, client: str = "key:bob", output: bytes = b'{"y":[1.0]}') -> Row:
    return (AT + number, 0.0012, client, f"r-{number}", "success", MODEL, b'{"x":1}', output, True)


def log_of(blocks: int, records: int, key: bytes = b"") -> list[bytes]:
    """Lines of a log: a start, and blocks with so many records each."""
    made = chain.Chain("0123456789abcdef", key)
    recorder = Recorder(AuditOutputs.WHOLE, 1024)
    lines = []
    first = start_line(AT, made.name, keyed=bool(key))
    made.add(first)
    lines += [first, made.seal(0, 0, "2026-11-26T04:24:14.250Z")]
    for _ in range(blocks):
        rows = [row(made.number + n) for n in range(1, records + 1)]
        content = recorder.lines(rows, made.number + 1)
        made.add(content)
        lines += content.splitlines(keepends=True)
        lines.append(made.seal(records, 0, "2026-11-26T04:24:15.000Z"))
    return lines


def check(lines: list[bytes], **options: object) -> Report:
    places = ((Place("log", n), line) for n, line in enumerate(lines, 1))
    return verify(places, **options)  # type: ignore[arg-type]


LOG = log_of(blocks=4, records=3)
KEYED = log_of(blocks=4, records=3, key=KEY)


@pytest.mark.parametrize(("lines", "key"), [(LOG, b""), (KEYED, KEY)])
def test_what_was_written_verifies(lines: list[bytes], key: bytes) -> None:
    report = check(lines, key=key)
    assert (report.records, report.blocks, report.chains) == (12, 5, 1)
    assert report.head == json.loads(lines[-1])["seal"]
    assert report.notices == []


def test_all_lines_are_json() -> None:
    kinds = [json.loads(line)["audit"] for line in LOG]
    assert kinds == ["start", "seal", *(["record"] * 3 + ["seal"]) * 4]


@given(data=st.data())
def test_any_changed_byte_is_found(data: st.DataObject) -> None:
    """Any byte of the log, to any other value."""
    content = b"".join(LOG)
    at = data.draw(st.integers(0, len(content) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda v: v != content[at]))
    changed = content[:at] + bytes([value]) + content[at + 1 :]
    with pytest.raises(BrokenError):
        check(changed.splitlines(keepends=True) if b"\r" not in changed else split(changed))


def split(content: bytes) -> list[bytes]:
    """Lines as a file has them: only the line feed ends one."""
    lines = content.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


@given(data=st.data())
def test_any_edit_of_bytes_is_found(data: st.DataObject) -> None:
    """Any piece replaced by any other, also by nothing; all but a cut behind a seal at the end."""
    content = b"".join(LOG)
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, min(len(content), begin + 400)))
    new = data.draw(st.binary(max_size=50))
    changed = content[:begin] + new + content[end:]
    if changed == content:
        return
    lines = split(changed)
    if any(lines == LOG[:n] for n, line in enumerate(LOG, 1) if chain.parse(line)):
        return
    with pytest.raises(BrokenError):
        check(lines)


@given(data=st.data())
def test_any_move_of_lines_is_found(data: st.DataObject) -> None:
    """Any other order, any line twice, any line or run of lines left out."""
    kind = data.draw(st.sampled_from(["swap", "twice", "without", "order"]))
    lines = list(LOG)
    first = data.draw(st.integers(0, len(lines) - 1))
    second = data.draw(st.integers(0, len(lines) - 1))
    match kind:
        case "swap":
            lines[first], lines[second] = lines[second], lines[first]
        case "twice":
            lines.insert(second, lines[first])
        case "without":
            del lines[min(first, second) : max(first, second) + 1]
        case _:
            lines = data.draw(st.permutations(lines))
    if lines == LOG or any(lines == LOG[:n] for n, x in enumerate(LOG, 1) if chain.parse(x)):
        return
    with pytest.raises(BrokenError):
        check(lines)


EDITS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "a record is changed": (
        lambda x: [line.replace(b'"id":"r-5"', b'"id":"r-6"') for line in x],
        r"log, line 7: block 3 \(to line 10\) is not as it was written",
    ),
    "a record is removed": (lambda x: x[:7] + x[8:], r"line 7: block 3 \(to line 9\)"),
    "a record is added": (lambda x: [*x[:8], x[7], *x[8:]], r"line 7: block 3 \(to line 11\)"),
    "two records change places": (lambda x: [*x[:6], x[7], x[6], *x[8:]], "line 7: block 3"),
    "a block is removed": (lambda x: x[:6] + x[10:], "line 7: block 3 should begin here, and block 4 does"),
    "two blocks change places": (lambda x: x[:6] + x[10:14] + x[6:10] + x[14:], "block 3 should begin"),
    "the first blocks are removed": (lambda x: x[6:], "begins with block 3: blocks 1 to 2 are missing"),
    "the last seal is removed": (lambda x: x[:-1], "line 15: 3 lines at the end have no seal"),
    "half a record is at the end": (lambda x: [*x, b'{"audit":"rec'], "line 19: 1 lines at the end"),
    "a seal is changed": (
        lambda x: [*x[:9], x[9].replace(b'"dropped":0', b'"dropped":9'), *x[10:]], "line 7: block 3",
    ),
    "a seal has other spaces": (
        lambda x: [*x[:9], x[9].replace(b'","block', b'", "block'), *x[10:]],
        "line 10: the sealing line is not as it was written",
    ),
    "all is removed": (lambda _: [], "there is no audit log in it"),
    "another log follows": (lambda x: x + log_with_name("f" * 16), "another log begins here"),
}  # fmt: skip


def log_with_name(name: str) -> list[bytes]:
    made = chain.Chain(name)
    line = start_line(AT, name)
    made.add(line)
    return [line, made.seal(0, 0, "2026-11-26T04:24:14.250Z")]


@pytest.mark.parametrize(("edit", "says"), EDITS.values(), ids=EDITS.keys())
def test_the_first_broken_place_is_named(
    edit: Callable[[list[bytes]], list[bytes]], says: str
) -> None:
    """World: a log; event: an edit; world: a sentence with the line and what is wrong there."""
    with pytest.raises(BrokenError, match=says):
        check(edit(list(LOG)))


def test_a_cut_behind_a_seal_shows_only_against_a_head_kept_elsewhere() -> None:
    """World: the last block is cut off; without a head the rest is intact."""
    head = json.loads(LOG[-1])["seal"]
    assert check(LOG, head=head).records == 12
    assert check(LOG[:-4]).records == 9
    with pytest.raises(BrokenError, match="its end is missing"):
        check(LOG[:-4], head=head)


def test_a_head_of_before_is_held_by_the_grown_log() -> None:
    """A head that was kept yesterday is a seal within today's log."""
    assert check(LOG, head=json.loads(LOG[9])["seal"]).records == 12


def test_a_log_whose_beginning_is_elsewhere_is_checked_from_its_seal() -> None:
    report = check(LOG[6:], after=json.loads(LOG[5])["seal"])
    assert report.records == 9
    assert report.notices == ["checked from block 3 on: blocks 1 to 2 are elsewhere"]
    with pytest.raises(BrokenError, match="block 3"):
        check(LOG[6:], after="0" * 64)


def test_a_chain_with_a_key_cannot_be_forged_without_it() -> None:
    """Who lacks the key can make a chain, but not this one."""
    with pytest.raises(BrokenError, match="give the key of the chain"):
        check(KEYED)
    with pytest.raises(BrokenError):
        check(KEYED, key=b"x" * 32)
    with pytest.raises(BrokenError):
        check(LOG, key=KEY)


def test_logs_of_several_servers_among_other_lines() -> None:
    """As collected from standard output: other lines are passed over, each chain is followed by itself."""
    other = log_with_name("f" * 16)
    mixed = [b'{"level":"info"}\n', *LOG[:6], *other, b"text\n", *LOG[6:]]
    report = check(mixed, among_logs=True)
    assert (report.chains, report.records) == (2, 12)
    with pytest.raises(BrokenError):
        check([line for line in mixed if b'"id":"r-5"' not in line], among_logs=True)


def test_lines_of_two_servers_must_not_be_mixed_within_a_block() -> None:
    """Blocks are written whole; lines that were torn apart on the way do not verify, rather than pass."""
    other = log_with_name("f" * 16)
    with pytest.raises(BrokenError):
        check([*LOG[:4], *other, *LOG[4:]], among_logs=True)


@pytest.mark.parametrize(
    ("written", "status", "out", "err"),
    [
        pytest.param(LOG, 0, "intact: 12 records in 5 blocks of 1 log", "", id="intact"),
        pytest.param(LOG[:4] + LOG[5:], 1, "", "BROKEN: ", id="broken"),
    ],
)
def test_the_command_says_it_in_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    written: list[bytes],
    status: int,
    out: str,
    err: str,
) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_bytes(b"".join(written))
    assert main(["verify", str(file)]) == status
    said = capsys.readouterr()
    assert said.out.startswith(out)
    assert said.err.startswith(err)


def test_the_command_takes_files_in_their_order(tmp_path: Path) -> None:
    """Whatever the shell's order: full files by their number, the current one last."""
    for name, lines in (
        ("a.jsonl.000002", LOG[6:10]),
        ("a.jsonl.000001", LOG[:6]),
        ("a.jsonl", LOG[10:]),
    ):
        (tmp_path / name).write_bytes(b"".join(lines))
    assert main(["verify", *sorted(map(str, tmp_path.iterdir()))]) == 0


def test_the_command_says_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("outputs", "output", "is_json", "written"),
    [
        pytest.param(AuditOutputs.WHOLE, b'{"y":1}', True, {"y": 1}, id="whole"),
        pytest.param(AuditOutputs.WHOLE, b"", True, None, id="nothing"),
        pytest.param(AuditOutputs.WHOLE, b'{"y":\n1}', True, {"y": 1}, id="on two lines"),
        pytest.param(AuditOutputs.WHOLE, b"a\nb", True, "a\nb", id="no JSON, on two lines"),
        pytest.param(AuditOutputs.WHOLE, b"\xff\x00", False, {"base64": "/wA="}, id="binary"),
        pytest.param(AuditOutputs.WHOLE, b"\xff\x00", True, {"base64": "/wA="}, id="no text"),
        pytest.param(
            AuditOutputs.WHOLE,
            b"1" * 2000,
            True,
            {"sha256": hashlib.sha256(b"1" * 2000).hexdigest(), "bytes": 2000},
            id="too large",
        ),
        pytest.param(
            AuditOutputs.HASH,
            b'{"y":1}',
            True,
            {"sha256": hashlib.sha256(b'{"y":1}').hexdigest(), "bytes": 7},
            id="hash",
        ),
        pytest.param(AuditOutputs.NONE, b'{"y":1}', True, None, id="none"),
    ],
)
def test_answers_are_recorded_as_the_settings_say(
    outputs: AuditOutputs, output: bytes, is_json: bool, written: object
) -> None:
    recorder = Recorder(outputs, 1024)
    lines = recorder.lines([(*row(output=output)[:8], is_json), row(2)], 1)
    first, second = map(json.loads, lines.splitlines())
    assert first["output"] == written
    assert second["n"] == 2


def test_a_record_says_who_when_what_and_how_long() -> None:
    line = json.loads(Recorder(AuditOutputs.WHOLE, 1024).lines([row(3)], 17))
    assert line == {
        "audit": "record",
        "n": 17,
        "at": "2025-11-26T04:24:17.250Z",
        "client": "key:bob",
        "id": "r-3",
        "status": "success",
        "duration_us": 1200,
        "model": "fraud",
        "version": "7",
        "revision": "r1",
        "sha256": "a" * 64,
        "input": {"sha256": hashlib.sha256(b'{"x":1}').hexdigest(), "bytes": 7},
        "output": {"y": [1.0]},
    }


@given(client=st.text(max_size=30), request_id=st.text(max_size=30), output=st.binary(max_size=60))
def test_whatever_is_recorded_is_one_line_of_json(
    client: str, request_id: str, output: bytes
) -> None:
    """Neither quotes nor line ends nor rubbish break a line."""
    made = row()
    lines = Recorder(AuditOutputs.WHOLE, 1024).lines(
        [(*made[:2], client, request_id, *made[4:7], output, False)], 1
    )
    assert lines.count(b"\n") == 1
    found = json.loads(lines)
    assert (found["client"], found["id"]) == (client, request_id)
