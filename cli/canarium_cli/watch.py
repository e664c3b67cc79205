"""`canarium watch NAME`: follows a rollout until it ends, live at a terminal, line by line elsewhere.

Exit status 0: the goal is reached (by default, the version is promoted); 1: the version was taken back, gave way to
another, or cannot be carried out; 2: wrong usage; 3: not within `--timeout`; 4: it cannot be watched, or was deleted.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from canarium_api.duration import parse_duration
from canarium_cli import following, options
from canarium_cli.access_errors import AccessError
from canarium_cli.feeds import follow
from canarium_cli.following import End, Goal, Line, Session, Snapshot
from canarium_cli.rendering import cells, screen

_TICK_LIVE = 0.5
"""Seconds between two frames."""
_TICK_PLAIN = 5.0
app = options.new_app()


class Lines(StrEnum):
    """Forms of lines for programs."""

    JSON = "json"


@app.command()
def watch(
    name: options.Name,
    namespace: options.Namespace = None,
    until: Annotated[
        str,
        typer.Option(
            help="promoted, paused, ready, step=N (that step carries its traffic), or never (Ctrl-C ends it)."
        ),
    ] = "promoted",
    timeout: Annotated[
        str | None, typer.Option(help="Give up after so long (30m); the rollout goes on.")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Line by line, also at a terminal.")
    ] = False,
    output: Annotated[
        Lines | None, typer.Option("-o", "--output", help="A line of JSON for each news.")
    ] = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Follow a rollout until it ends. The exit status says how.

    0: promoted, or what --until names; 1: taken back, withdrawn, or invalid; 2: wrong usage; 3: not within --timeout;
    4: it cannot be watched, or was deleted; 130: Ctrl-C.
    """
    try:
        goal = Goal.parse(until)
        seconds = parse_duration(timeout).total_seconds() if timeout else None
    except ValueError as error:
        options.fail(f"--until or --timeout: {error}", options.USAGE)
    console = cells.console()
    live = console.is_terminal and not plain and output is None
    try:
        access, space, short = options.find(name, namespace, kubeconfig, context)
        feed = follow(
            access, space, short, tick=_TICK_LIVE if live else _TICK_PLAIN, surroundings=live
        )
        session = Session(goal=goal)
        with closing(feed):
            if live:
                end = show_live(feed, session, console, seconds)
            else:
                as_json = output is Lines.JSON
                end = show_lines(feed, session, console, seconds, as_json=as_json)
    except AccessError as error:
        options.fail(str(error), following.LOST)
    except KeyboardInterrupt:
        raise typer.Exit(options.INTERRUPTED) from None
    raise typer.Exit(end.code)


def show_live(
    feed: Iterable[Snapshot], session: Session, console: Console, seconds: float | None
) -> End:
    """Draw what a feed gives until the watch ends; the last frame stays."""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as view:

        def draw(snapshot: Snapshot, _: list[Line]) -> None:
            if snapshot.body is not None:
                width, height = console.size
                drawn = screen.frame(snapshot, session.trends, width=width, height=height)
                view.update(drawn, refresh=True)

        end = _watched(feed, session, draw, seconds)
    console.print(screen.ending(end))
    return end


def show_lines(
    feed: Iterable[Snapshot],
    session: Session,
    console: Console,
    seconds: float | None,
    *,
    as_json: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> End:
    """Print what is new of what a feed gives, until the watch ends; standard error says how."""

    def tell(_: Snapshot, lines: list[Line]) -> None:
        for line in lines:
            if as_json:
                entry = {"at": line.at.isoformat(), "reason": line.word, "message": line.text}
                print(json.dumps(entry, ensure_ascii=False), flush=True)
            else:
                console.print(screen.plain(line), soft_wrap=True)

    end = _watched(feed, session, tell, seconds, clock)
    sys.stdout.flush()
    cells.console(sys.stderr).print(screen.ending(end), soft_wrap=True)
    return end


def _watched(
    feed: Iterable[Snapshot],
    session: Session,
    show: Callable[[Snapshot, list[Line]], None],
    seconds: float | None,
    clock: Callable[[], float] = time.monotonic,
) -> End:
    """Look at each snapshot and show it, the last one too; give how the watch ends."""
    began = clock()
    for snapshot in feed:
        lines, end = session.look(snapshot)
        if end is None and seconds is not None and clock() - began >= seconds:
            end = following.timed_out(snapshot, seconds)
        show(snapshot, lines)
        if end is not None:
            return end
    return End(code=following.LOST, message="nothing more is told of it")


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name=options.program())
    return 0
