"""`canarium watch`: when it ends and how, what it says meanwhile, and what it draws; statuses are the engine's."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.e2e.test_describe import SITUATIONS
from tests.unit.cli.api_server import (
    ApiServer,
    body_of,
    event,
    pods_of,
    run,
    serving,
    write_kubeconfig,
)
from tests.unit.cli.films import V2, Film, of_version_2, situation, whole

from canarium_cli import watch
from canarium_cli.following import End, Goal, Line, Session, Snapshot
from canarium_cli.rendering import screen
from canarium_cli.streams import READING
from canarium_operator.testing.scenario import Traffic, make_spec

PICTURE = Path(__file__).parents[3] / "docs" / "howto" / "canarium-watch.svg"


def seen(film: Iterable[Snapshot], session: Session) -> tuple[list[Line], End | None, int]:
    """Watch until the end: all lines, how it ended, and how many looks that took."""
    lines: list[Line] = []
    for number, snapshot in enumerate(film, start=1):
        new, end = session.look(snapshot)
        lines += new
        if end is not None:
            return lines, end, number
    return lines, None, -1


def from_the_start(film: Film, seconds: int = 900, errors: float = 0.001) -> Iterator[Snapshot]:
    """A film with the moment before the operator looks at the new spec."""
    yield film.look()
    yield from film.play(seconds, errors=errors)


def test_a_promoted_version_ends_the_watch_with_0() -> None:
    """And not the phase Promoted of the version before, which is there when the watch begins."""
    assert whole()[0].status.phase == "Promoted"
    lines, end, looks = seen(whole(), Session())
    assert end is not None
    assert end.code == 0
    stable = whole()[looks - 1].status.stable
    assert stable is not None
    assert stable.revision == V2
    words = [line.word for line in lines]
    assert words.count("StepStarted") == 5
    assert words[-1] == "Promoted"  # and not when the old version has drained
    assert end.message.startswith("v2@6a7e947d is stable; ")


def test_a_version_that_is_taken_back_ends_it_with_1_and_the_evidence() -> None:
    """Once the object is stalled: what drains meanwhile is still shown."""
    lines, end, _ = seen(whole(0.2), Session())
    assert end is not None
    assert end.code == 1
    assert "error-rate" in end.message
    [failed] = [line for line in lines if line.word == "AnalysisFailed"]
    assert failed.warning


@pytest.mark.parametrize(
    ("goal", "step"), [("step=2", 2), ("step=1", 1), ("ready", None), ("promoted", None)]
)
def test_a_goal_on_the_way_ends_it_there(goal: str, step: int | None) -> None:
    """`step=2`: the route carries the weight of step 2."""
    _, end, looks = seen(whole(), Session(goal=Goal.parse(goal)))
    assert end is not None
    assert end.code == 0
    status = whole()[looks - 1].status
    assert (goal == "ready") == (status.phase == "Promoted")
    rollout = status.rollout
    assert (rollout.step if rollout is not None else None) == step
    if rollout is not None:
        assert rollout.step_started_at is not None


def test_until_paused_ends_where_somebody_is_waited_for() -> None:
    """So a pipeline can ask for an approval, and then give it."""
    steps = [{"weight": 10, "pause": "1m", "approval": True}, {"weight": 50, "pause": "1m"}]
    film = of_version_2(canary={"steps": steps})
    _, end, _ = seen(from_the_start(film), Session(goal=Goal.parse("paused")))
    assert end is not None
    assert end.code == 0
    assert "canarium approve" in end.message


def test_a_step_that_there_is_not_is_a_mistake() -> None:
    """It would be waited for in vain."""
    _, end, _ = seen(whole(), Session(goal=Goal.parse("step=9")))
    assert end == End(code=2, message="there is no step 9: it has 5")


def test_a_later_version_never_passes_for_the_one_that_was_watched() -> None:
    """A pipeline of version 2 must not be green because version 3 is good."""
    film, session = of_version_2(), Session()
    _, end, _ = seen(from_the_start(film, 30), session)
    assert end is None
    film.world = film.world.change(make_spec("3"))
    _, end, _ = seen(film.play(900), session)
    assert end is not None
    assert end.code == 1
    assert "gave way to another version" in end.message


def test_a_goal_that_was_passed_unseen_is_reached() -> None:
    """Who looks every two seconds may miss a step of one, and sees that its revision is stable."""
    session = Session(goal=Goal.parse("step=2"))
    session.look(whole()[5])
    promoting = next(s for s in whole() if s.status.phase == "Promoting")
    _, end = session.look(promoting)
    assert end is not None
    assert end.code == 0


def test_what_is_stable_while_the_old_version_drains_may_not_be_what_the_spec_names() -> None:
    """A watch that begins then waits until that is clear."""
    promoting = next(s for s in whole() if s.status.phase == "Promoting")
    session = Session()
    assert session.look(promoting)[1] is None
    assert session.meant == ""
    _, end = session.look(whole()[-1])
    assert end is not None
    assert end.code == 0


def test_a_version_that_is_withdrawn_has_not_been_promoted() -> None:
    """The spec names the stable version again, and the phase is Promoted in the end."""
    film, session = of_version_2(), Session()
    seen(from_the_start(film, 30), session)
    film.world = film.world.change(make_spec("1"))
    _, end, _ = seen(film.play(900), session)
    assert end is not None
    assert end.code == 1


def test_never_goes_on_after_the_end() -> None:
    """For a terminal on the wall."""
    _, end, _ = seen(whole(), Session(goal=Goal.parse("never")))
    assert end is None


def test_an_invalid_spec_and_a_first_model_that_cannot_load_end_it_with_1() -> None:
    """Stalled is stalled, whichever way."""
    for name in ("03-model-cannot-load", "12-invalid"):
        world = situation(name)
        _, end = Session().look(Snapshot(at=world.now, body=body_of(world)))
        assert end is not None
        assert (end.code, end.message) == (1, world.status.message)


def test_a_deleted_object_ends_it_with_4() -> None:
    """Nobody will promote it."""
    world = situation("04-pause")
    session = Session()
    session.look(Snapshot(at=world.now, body=body_of(world)))
    _, end = session.look(Snapshot(at=world.now, body=None))
    assert end == End(code=4, message="the ModelDeployment was deleted")


@pytest.mark.parametrize("text", ["", "done", "step", "step=0", "step=x", "promoted=1"])
def test_goals_that_there_are_not_are_named(text: str) -> None:
    """With those that there are."""
    with pytest.raises(ValueError, match="none of promoted, paused, ready, step=N, never"):
        Goal.parse(text)


def test_a_verdict_that_changes_is_news_and_numbers_that_change_are_not() -> None:
    """A log of a day-long rollout stays short."""
    world = situation("05-too-few-requests")
    session = Session()
    session.look(Snapshot(at=world.now, body=body_of(world)))
    more = world.serves(V2, Traffic(requests=60)).later(31).settle()
    assert more.status.message != world.status.message
    assert session.look(Snapshot(at=more.now, body=body_of(more)))[0] == []
    enough = more.serves(V2, Traffic()).later(31).settle()
    lines, _ = session.look(Snapshot(at=enough.now, body=body_of(enough)))
    assert [line.word for line in lines if line.text.startswith("error-rate:")] == ["Pass"]


def test_after_a_minute_without_news_the_message_is_said_again() -> None:
    """A pipeline's log must not look dead."""
    world = situation("09-waits-for-approval")
    session = Session(goal=Goal.parse("promoted"))
    first, _ = session.look(Snapshot(at=world.now, body=body_of(world)))
    assert len(first) == 1
    for seconds, count in ((30, 0), (59, 0), (61, 1), (90, 0)):
        now = world.later(seconds).now
        lines, _ = session.look(Snapshot(at=now, body=body_of(world)))
        assert (seconds, len(lines)) == (seconds, count)


def test_trends_hold_each_measurement_once_and_are_bounded() -> None:
    """However long it is watched, and however often nothing is measured between two looks."""
    session = Session(goal=Goal.parse("never"))
    film = of_version_2(canary={"steps": [{"weight": 10, "pause": "1h"}]})
    for snapshot in from_the_start(film, 600):
        session.look(snapshot)
        session.look(snapshot)
    assert set(session.trends) == {"error-rate", "latency-p95", "confidence"}
    assert len(session.trends["confidence"]) == 40
    assert len(set(session.trends["confidence"])) > 30


# --- the command


def plain(film: Iterable[Snapshot], **options: Any) -> tuple[int, str, str]:
    """Run the line by line mode on a film; the exit status and what was printed."""
    console = Console(file=io.StringIO(), width=400)
    end = watch.show_lines(film, Session(), console, options.pop("seconds", None), **options)
    assert isinstance(console.file, io.StringIO)
    return end.code, console.file.getvalue(), end.message


def test_without_a_terminal_each_news_is_a_line() -> None:
    """With the time and the reason first."""
    code, out, _ = plain(whole())
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("12:00:00Z  NotSeenYet        before: v1@")
    assert "12:01:10Z  StepStarted       step 2/5: 10% of the traffic" in out
    assert len(lines) < 25


def test_json_has_a_line_for_each_news(capsys: pytest.CaptureFixture[str]) -> None:
    """For programs."""
    plain(whole(0.2), as_json=True)
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["reason"] for e in entries][-2:] == ["AnalysisFailed", "RolledBack"]
    assert set(entries[0]) == {"at", "reason", "message"}


def test_what_takes_too_long_ends_with_3() -> None:
    """And the rollout goes on: nothing is done to it."""
    ticks = iter(range(0, 100_000, 100))
    code, _, message = plain(whole(), seconds=250.0, clock=lambda: float(next(ticks)))
    assert code == 3
    assert message.startswith("not within 250 s; the rollout goes on. step 1/5 (5%)")


def test_a_feed_that_ends_is_no_success() -> None:
    """Whatever it had told."""
    code, _, _ = plain(from_the_start(of_version_2(), 30))
    assert code == 4


def test_the_live_view_leaves_its_last_frame_and_how_it_ended() -> None:
    """On a terminal that was scrolled away from, the outcome is still there."""
    console = Console(file=io.StringIO(), width=120, height=40, force_terminal=True)
    end = watch.show_live(whole(0.2), Session(), console, None)
    assert end.code == 1
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert shown.rindex("not promoted") > shown.rindex("ml/fraud")


# --- on a server


def test_a_watch_over_the_network_follows_to_the_end(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each change comes by the API server's watch; nothing is asked again and again."""
    film = of_version_2()
    server.world, server.operates = film.world, False
    for _ in film.play(600):
        server.changes.put(film.world)
    assert run("watch", "fraud", "--timeout", "30s") == 0
    captured = capsys.readouterr()
    assert captured.out.count("StepStarted") == 5
    assert captured.err.startswith("promoted: ")
    # One that sits in a read as the program ends would make the interpreter abort.
    assert READING not in {thread.name for thread in threading.enumerate()}
    gets = [path for path in server.asked if "watch=" not in path]
    assert gets == ["/apis/canarium.dev/v1alpha1/namespaces/ml/modeldeployments/fraud?"]


def test_the_program_ends_in_peace_while_its_watch_is_open(tmp_path: Path) -> None:
    """Over TLS, as on a cluster: a thread that sat in a read made the interpreter abort, after all was said."""
    server = ApiServer(of_version_2().world)
    authority = server.speak_tls()
    config = write_kubeconfig(tmp_path / "config", server.url, authority)
    words = [sys.executable, "-m", "canarium_cli", "watch", "fraud", "--until", "step=1"]
    with serving(server):
        done = subprocess.run(
            [*words, "--kubeconfig", str(config)], capture_output=True, text=True, timeout=60, check=False
        )  # fmt: skip
    assert (done.returncode, done.stderr[:8]) == (0, "reached:")


def test_ctrl_c_ends_it_with_130_and_without_a_traceback(tmp_path: Path) -> None:
    """As a shell expects."""
    server = ApiServer(of_version_2().world)
    authority = server.speak_tls()
    config = write_kubeconfig(tmp_path / "config", server.url, authority)
    words = [sys.executable, "-m", "canarium_cli", "watch", "fraud", "--until", "never"]
    with serving(server):
        process = subprocess.Popen(
            [*words, "--kubeconfig", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() != ""
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")


def test_an_object_that_is_deleted_meanwhile_ends_it_with_4(server: ApiServer) -> None:
    """The API server tells."""
    server.changes.put(None)
    assert run("watch", "fraud", "--timeout", "30s") == 4


def test_a_watch_that_is_too_old_loses_nothing(server: ApiServer) -> None:
    """What changed meanwhile is read, and the next watch begins there."""
    server.world, server.operates = of_version_2().world, False
    worlds = [snapshot for snapshot in whole(0.2) if snapshot.body is not None]
    bodies = iter([worlds[0].body, worlds[-1].body])
    server.body = lambda: next(bodies, worlds[-1].body)  # type: ignore[method-assign,assignment,return-value]
    server.too_old = True
    assert run("watch", "fraud", "--timeout", "30s") == 1


def test_a_connection_that_breaks_is_taken_up_again(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server may be replaced during a rollout of a day."""
    monkeypatch.setattr("canarium_cli.feeds._LONGEST_WAIT", 0.01)
    server.operates = False
    worlds = [snapshot.body for snapshot in whole(0.2)]
    bodies = iter([worlds[0], *worlds[1:]])
    server.body = lambda: next(bodies, worlds[-1])  # type: ignore[method-assign,assignment,return-value]
    server.breaks = True
    assert run("watch", "fraud", "--timeout", "60s") == 1


def test_who_may_not_watch_reads_again_and_again(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right to get is enough."""
    monkeypatch.setattr("canarium_cli.feeds._POLL_SECONDS", 0.001)
    server.forbidden = {("watch", "modeldeployments")}
    server.operates = False
    bodies = iter([snapshot.body for snapshot in whole(0.2)])
    last = whole(0.2)[-1].body
    monkeypatch.setattr(server, "body", lambda: next(bodies, last))
    assert run("watch", "fraud", "--timeout", "30s") == 1


def test_an_object_that_is_not_there_or_not_ours_is_4_and_a_wrong_goal_2(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 is kept for versions that were not promoted."""
    assert run("watch", "freud") == 4
    assert "did you mean fraud?" in capsys.readouterr().err
    server.forbidden = {("get", "modeldeployments")}
    assert run("watch", "fraud") == 4
    assert run("watch", "fraud", "--until", "done") == 2
    assert "'done' is none of promoted" in capsys.readouterr().err


# --- the picture


def picture(seconds: int = 160) -> str:
    """Draw the live view of a rollout at its third step, as docs show it."""
    console = Console(file=io.StringIO(), width=118, record=True, force_terminal=True)
    session = Session()
    film = of_version_2()
    snapshot = film.look()
    for snapshot in from_the_start(film, seconds):
        session.look(snapshot)
    console.print(screen.frame(snapshot, session.trends, width=118, height=36))
    return console.export_svg(
        title="canarium watch fraud", code_format=SVG, unique_id="canarium-watch"
    )


SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img"
 aria-label="canarium watch: steps, revisions, checks with sparklines, pods and Events of a rollout">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
 font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def test_the_picture_in_the_docs_is_what_is_drawn() -> None:
    """UPDATE_GOLDEN=1 writes it anew; look at it before you commit it."""
    found = picture()
    if os.environ.get("UPDATE_GOLDEN"):
        PICTURE.write_text(found, encoding="utf-8")
    assert PICTURE.read_text(encoding="utf-8") == found
    for words in ("▁", "✓", "●", "StepStarted", "confidence"):
        assert words in found


@pytest.mark.parametrize("name", SITUATIONS)
@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
def test_every_situation_can_be_drawn_on_a_small_and_a_large_terminal(
    name: str, size: tuple[int, int]
) -> None:
    """Nothing is too long to be told what it does."""
    world = situation(name)
    width, height = size
    console = Console(file=io.StringIO(), width=width)
    snapshot = Snapshot(
        at=world.now,
        body=body_of(world),
        pods=tuple(pods_of(world)) * 5,
        events=tuple(event("StepStarted", "words " * 40, second) for second in range(30)),
        notes=("a note",),
    )
    console.print(screen.frame(snapshot, {}, width=width, height=height))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    # A shadow has five checks and a long message: on a low terminal its Events are cut off.
    assert len(shown.splitlines()) <= height + (4 if "shadow" in name and height < 30 else 0)
    assert "StepStarted" in shown
    assert " ".join(world.status.message.split())[:40] in " ".join(shown.split())
