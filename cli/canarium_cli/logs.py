"""`canarium logs NAME`: the logs of stable's and the canary's pods side by side, each line with whose it is.

Without `-f` the lines of all pods are put in the order of time; with it they come as they come, pods that start
meanwhile join, and those that end leave. Pods, lines and what waits to be printed are bounded.
"""

import functools
import queue
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from canarium_api.duration import parse_duration
from canarium_cli import options
from canarium_cli.access_errors import AccessError, ForbiddenError
from canarium_cli.log_lines import LogLine, Source, chosen, merged, read_line, shown
from canarium_cli.rendering import cells, parts
from canarium_cli.statuses import status_of
from canarium_cli.streams import Open, log_lines

if TYPE_CHECKING:
    from canarium_cli.access import Access

MAX_PODS: Final = 20
_TAIL: Final = 100
"""Latest lines of each pod, where nothing else is said."""
_MAX_TAIL: Final = 100_000
_QUEUE: Final = 10_000
"""Lines that wait to be printed; a reader waits when there are so many, and with it the connection."""
_RELIST_SECONDS: Final = 3.0
_AGAIN_SECONDS: Final = 30
app = options.new_app()


@app.command()
@options.in_words
def logs(
    name: options.Name,
    namespace: options.Namespace = None,
    revision: Annotated[
        str, typer.Option(help="Only of stable, of the canary, or of a revision (its start).")
    ] = "",
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on, until Ctrl-C.")] = False,
    since: Annotated[str | None, typer.Option(help="Lines of the last 10m, for example.")] = None,
    tail: Annotated[
        int | None,
        typer.Option(
            help=f"Latest lines of each pod. Default: {_TAIL}, all with --since.",
            min=0,
            max=_MAX_TAIL,
        ),
    ] = None,
    pods: Annotated[
        int, typer.Option("--max-pods", help="Pods that are read.", min=1, max=MAX_PODS)
    ] = 10,
    previous: Annotated[
        bool, typer.Option("-p", "--previous", help="Of the containers before their last restart.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="JSON as the server wrote it.")] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="With the time, UTC.")] = False,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Show the logs of the servers of both revisions, side by side."""
    try:
        seconds = max(1, int(parse_duration(since).total_seconds())) if since else None
    except ValueError as error:
        options.fail(f"--since: {error}", options.USAGE)
    lines = tail if tail is not None else (_MAX_TAIL if since else _TAIL)
    access, space, short = options.find(name, namespace, kubeconfig, context)
    reader = Reader(
        access,
        space,
        short,
        revision,
        pods,
        {"since_seconds": seconds, "tail": lines, "previous": previous},
    )
    sources, left_out = reader.sources()
    if not sources and not follow:
        options.fail(f"{space}/{short} has no pods{f' of {revision}' if revision else ''}")
    if left_out:
        words = f"{left_out} more pods are left out: --max-pods"
        print(f"{options.program()}: {words}", file=sys.stderr)
    console = cells.console()
    found = reader.follow() if follow else merged(reader.read(source) for source in sources)
    try:
        _print(console, found, raw=raw, stamps=timestamps, sources=sources)
    finally:
        reader.end()


def _print(
    console: Console, lines: Iterator[LogLine], *, raw: bool, stamps: bool, sources: list[Source]
) -> None:
    width = max((len(source.label) for source in sources), default=0)
    for line in lines:
        width = max(width, len(line.source.label))
        console.print(shown(line, width, raw=raw, stamps=stamps), soft_wrap=True)


class Reader:
    """Reads the logs of a ModelDeployment's pods.

    Args:
        access: the cluster.
        namespace: of the ModelDeployment.
        name: of the ModelDeployment.
        revision: stable, canary, the start of a revision, or empty: all.
        limit: pods that are read at once.
        settings: of `Access.log`.
    """

    def __init__(
        self,
        access: "Access",
        namespace: str,
        name: str,
        revision: str,
        limit: int,
        settings: dict[str, Any],
    ) -> None:
        self._access = access
        self._namespace = namespace
        self._name = name
        self._revision = revision
        self._limit = limit
        self._settings = settings
        self._opened = Open()
        self._lines: queue.Queue[LogLine | Source | AccessError] = queue.Queue(_QUEUE)

    def sources(self) -> tuple[list[Source], int]:
        """Choose the pods; with them, how many were left out."""
        status = status_of(self._access.read(self._namespace, self._name))
        found = parts.pods_of(self._access.pods(self._namespace, self._name), status)
        everything = chosen(found, self._revision, len(found))
        return chosen(found, self._revision, self._limit), max(0, len(everything) - self._limit)

    def read(self, source: Source) -> Iterator[LogLine]:
        """Read one log as it is; a pod that has none yet has one line that says so."""
        try:
            answer = self._access.log(self._namespace, source.pod, **self._settings)
        except ForbiddenError:
            raise
        except AccessError as error:
            yield LogLine(source=source, at="", text=f"(no log: {error})")
            return
        yield from _read(answer, source)

    def end(self) -> None:
        """End all reads."""
        self._opened.end()

    def follow(self) -> Iterator[LogLine]:
        """Read all logs as they grow, and those of pods that start meanwhile, until `end`."""
        reading: set[str] = set()
        last: dict[str, str] = {}
        settings = self._settings
        while True:
            for source in self.sources()[0]:
                if source.pod in reading or len(reading) >= self._limit:
                    continue
                reading.add(source.pod)
                # A log that goes on, as after a restart, is read from a bit before; what was seen is left out.
                given = {"since_seconds": _AGAIN_SECONDS} if source.pod in last else settings
                self._opened.start(functools.partial(self._pump, source, given))
            settings = {}  # who joins later is read from its first line
            for line in self._until_next_look(reading):
                seen = last.get(line.source.pod, "")
                if not line.at or line.at > seen:
                    last[line.source.pod] = line.at or seen
                    yield line

    def _until_next_look(self, reading: set[str]) -> Iterator[LogLine]:
        end = time.monotonic() + _RELIST_SECONDS
        while (rest := end - time.monotonic()) > 0:
            try:
                found = self._lines.get(timeout=rest)
            except queue.Empty:
                return
            if isinstance(found, AccessError):
                raise found
            if isinstance(found, Source):
                reading.discard(found.pod)
            else:
                yield found

    def _pump(self, source: Source, settings: dict[str, Any]) -> None:
        try:
            answer = self._access.log(self._namespace, source.pod, follow=True, **settings)
            self._opened.add(answer)
            for line in _read(answer, source):
                self._put(line)
            self._opened.remove(answer)
        except ForbiddenError as error:
            self._put(error)
        except AccessError:
            pass  # it starts, or is gone: the next look at the pods tells
        finally:
            self._put(source)

    def _put(self, found: LogLine | Source | AccessError) -> None:
        """Wait for room: with the reader, the connection waits, too."""
        while not self._opened.ended.is_set():
            try:
                self._lines.put(found, timeout=_RELIST_SECONDS)
            except queue.Full:
                continue
            return


def _read(answer: Any, source: Source) -> Iterator[LogLine]:
    try:
        for raw in log_lines(answer):
            yield read_line(source, raw)
    finally:
        answer.close()


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name=options.program())
    return 0
