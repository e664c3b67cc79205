"""`canarium logs`: both revisions side by side, in the order of time, each line with whose it is."""

import itertools
import json
import threading

import pytest
from tests.unit.cli.api_server import ApiServer, pods_of, run
from tests.unit.cli.films import situation

from canarium_cli.access_errors import AccessError
from canarium_cli.log_lines import LogLine, Source, chosen, in_words, merged, read_line, shown
from canarium_cli.logs import Reader
from canarium_cli.rendering import parts
from canarium_cli.streams import READING

CANARY = Source(pod="fraud-6a7e947dbc-7d9f-x2", role="canary", revision="6a7e947dbc")
STABLE = Source(pod="fraud-26cfa01c6c-5c7d-a1", role="stable", revision="26cfa01c6c")


def stamped(second: float, text: str) -> str:
    """A line as the kubelet gives it."""
    return f"2026-01-01T12:00:{second:09.6f}Z {text}"


def pods() -> list[parts.Pod]:
    """Three pods, of two revisions."""
    world = situation("04-pause")
    return parts.pods_of(pods_of(world), world.status)


def test_lines_of_all_pods_are_in_the_order_of_time() -> None:
    """Whatever the number of digits of a second that the kubelet writes."""
    stable = [read_line(STABLE, stamped(s, f"s{s}")) for s in (1, 3.5, 4)]
    late = "2026-01-01T12:00:03.50000000123Z c"
    canary = [read_line(CANARY, line) for line in (stamped(2, "b"), late)]
    found = [line.text for line in merged([stable, canary])]
    assert found == ["s1", "b", "s3.5", "c", "s4"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"time": "t", "level": "info", "logger": "x", "message": "ready", "seconds": 1.2}', "ready seconds=1.2"),
        ('{"level": "error", "message": "no", "check": {"a": 1}}', 'error: no check={"a":1}'),
        ('{"level": "warning", "message": "m", "why": "two words"}', 'warning: m why="two words"'),
        ('{"level": "error", "message": "m", "exception": "Traceback"}', "error: m\nTraceback"),
        ("plain words", "plain words"),
        ('{"not": "ours"}', '{"not": "ours"}'),
        ("{broken", "{broken"),
        ("{}", "{}"),
    ],
)  # fmt: skip
def test_json_is_written_for_people_and_other_lines_stay(line: str, words: str) -> None:
    """The runtime writes JSON, its libraries may not."""
    assert in_words(line)[0] == words


def test_a_line_begins_with_whose_it_is() -> None:
    """Role and pod; a long one is cut, and a raw one is as it was."""
    raw = json.dumps({"level": "info", "message": "x" * 9000})
    line = LogLine(source=CANARY, at="2026-01-01T12:00:01.5", text=raw)
    assert shown(line, 12, raw=False, stamps=True).plain.startswith("canary x2    | 12:00:01.5 xxx")
    assert len(shown(line, 12, raw=False, stamps=False).plain) < 4100
    assert '"level"' in shown(line, 12, raw=True, stamps=False).plain


def test_a_pods_words_do_not_steer_the_terminal() -> None:
    """Colours of libraries are dropped, and what else is a control character is shown as one."""
    line = LogLine(source=CANARY, at="", text="\x1b[0;93mW: odd\x1b[m\x1b]0;title\x07\tend")
    assert (
        shown(line, 0, raw=False, stamps=False).plain
        == "canary x2 | W: odd\ufffd]0;title\ufffd\tend"
    )
    assert "\x1b" not in shown(line, 0, raw=True, stamps=False).plain


@pytest.mark.parametrize(
    ("revision", "limit", "roles"),
    [
        ("", 10, ["canary", "stable", "stable"]),
        ("", 2, ["canary", "stable"]),
        ("stable", 10, ["stable", "stable"]),
        ("6a7e", 10, ["canary"]),
        ("zzz", 10, []),
    ],
)
def test_pods_are_chosen_so_that_both_roles_are_there(
    revision: str, limit: int, roles: list[str]
) -> None:
    """Where not all can be read, of each the same number."""
    assert [source.role for source in chosen(pods(), revision, limit)] == roles


@pytest.fixture
def with_logs(server: ApiServer) -> ApiServer:
    """A server whose pods have written a bit, but for one that waits to start."""
    canary, first, _ = [
        pod.name for pod in parts.pods_of(pods_of(server.world), server.world.status)
    ]
    server.logs[canary] = "\n".join(
        [stamped(2, '{"level": "info", "message": "loaded"}'), stamped(4, "bye")]
    )
    server.logs[first] = "\n".join([stamped(1, "hello"), stamped(3, "again"), ""])
    return server


def test_both_revisions_are_printed_side_by_side(
    with_logs: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a pod without a log says so, instead of hiding the others."""
    assert run("logs", "fraud", "--timestamps") == 0
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert "no log" in lines[0][1]
    assert [(who.split()[0], words.strip()) for who, words in lines[1:]] == [
        ("stable", "12:00:01.000 hello"),
        ("canary", "12:00:02.000 loaded"),
        ("stable", "12:00:03.000 again"),
        ("canary", "12:00:04.000 bye"),
    ]


def test_bounds_are_asked_of_the_api_server(with_logs: ApiServer) -> None:
    """Nothing is fetched to be thrown away."""
    assert run("logs", "fraud") == 0
    assert run("logs", "fraud", "--since", "10m", "--revision", "canary") == 0
    asked = [path for path in with_logs.asked if "/log?" in path]
    assert all("tailLines=100" in path for path in asked[:3])
    assert "sinceSeconds=600" in asked[3]
    assert len(asked) == 4


def test_pods_that_are_left_out_are_counted(
    with_logs: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log with a gap says so."""
    assert run("logs", "fraud", "--max-pods", "2") == 0
    assert "1 more pods are left out: --max-pods" in capsys.readouterr().err


def test_who_may_not_read_logs_is_told(
    with_logs: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the right that is missing."""
    with_logs.forbidden = {("get", "pods/log")}
    assert run("logs", "fraud") == 1
    assert "missing: the verb get on pods/log -n ml" in capsys.readouterr().err


def test_wrong_words_and_no_pods_are_errors(
    with_logs: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 for the one, 1 for the other."""
    assert run("logs", "fraud", "--since", "yesterday") == 2
    assert run("logs", "fraud", "--revision", "zzz") == 1
    assert "ml/fraud has no pods of zzz" in capsys.readouterr().err


def test_a_followed_log_that_begins_again_shows_nothing_twice(
    with_logs: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that ends is opened again a bit before, and what was seen is left out."""
    from canarium_cli.access import connect

    monkeypatch.setattr("canarium_cli.logs._RELIST_SECONDS", 0.05)
    reader = Reader(connect(None, None), "ml", "fraud", "canary", 5, {"tail": 100})
    lines = reader.follow()
    first = [line.text for line in itertools.islice(lines, 2)]
    [name] = [name for name in with_logs.logs if "6a7e947dbc" in name]
    with_logs.logs[name] += "\n" + stamped(5, "once more")
    assert [*first, next(lines).text] == [
        '{"level": "info", "message": "loaded"}',
        "bye",
        "once more",
    ]
    with_logs.forbidden = {("get", "pods/log")}
    with pytest.raises(AccessError, match="not allowed"):
        next(lines)
    reader.end()
    assert READING not in {thread.name for thread in threading.enumerate()}
