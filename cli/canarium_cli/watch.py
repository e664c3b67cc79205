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
from canarium_cli.following import End, Goal, Session, Snapshot
from canarium_cli.rendering import cells, screen

_TICK_LIVE = 0.5
"""Seconds between two frames."""
_TICK_PLAIN = 5.0
_NOTHING_MORE = End(code=following.LOST, message="nothing more is told of it")
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
        show = show_live if live else show_lines
        with closing(feed):
            end = show(feed, Session(goal=goal), console, seconds, as_json=output is Lines.JSON)
    except AccessError as error:
        options.fail(str(error), following.LOST)
    except KeyboardInterrupt:
        raise typer.Exit(options.INTERRUPTED) from None
    raise typer.Exit(end.code)


def show_live(
    feed: Iterable[Snapshot],
    session: Session,
    console: Console,
    seconds: float | None,
    *,
    as_json: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> End:
    """Draw what a feed gives until the watch ends; the last frame stays."""
    del as_json  # a terminal shows no JSON
    end: End | None = None
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as view:
        for snapshot, _, end in _looked(feed, session, seconds, clock):
            if snapshot.body is not None:
                width, height = console.size
                drawn = screen.frame(snapshot, session.trends, width=width, height=height)
                view.update(drawn, refresh=True)
            if end is not None:
                break
    end = end or _NOTHING_MORE
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
    end: End | None = None
    for _, lines, end in _looked(feed, session, seconds, clock):
        for line in lines:
            if as_json:
                entry = {"at": line.at.isoformat(), "reason": line.word, "message": line.text}
                print(json.dumps(entry, ensure_ascii=False), flush=True)
            else:
                console.print(screen.plain(line), soft_wrap=True)
        if end is not None:
            break
    end = end or _NOTHING_MORE
    sys.stdout.flush()
    cells.console(sys.stderr).print(screen.ending(end), soft_wrap=True)
    return end


def _looked(
    feed: Iterable[Snapshot], session: Session, seconds: float | None, clock: Callable[[], float]
) -> Iterable[tuple[Snapshot, list[following.Line], End | None]]:
    """Look at each snapshot; the last one comes with how the watch ends."""
    began = clock()
    for snapshot in feed:
        lines, end = session.look(snapshot)
        if end is None and seconds is not None and clock() - began >= seconds:
            end = following.timed_out(snapshot, seconds)
        yield snapshot, lines, end


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name=options.program())
    return 0
