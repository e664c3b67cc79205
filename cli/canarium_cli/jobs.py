"""`canarium jobs submit|list|watch|results|cancel|retry|delete`: batch jobs of a model, over its HTTP API.

Exit status 0: done, and of a job that was watched, succeeded; 1: refused, failed, or not reachable; 2: wrong usage.
"""

import csv
import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any, Final

import typer

app = typer.Typer(
    name="canarium jobs",
    help="Batch jobs of a model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_TIMEOUT_SECONDS: Final = 60
_POLL_SECONDS: Final = 1.0
_ENDED: Final = ("succeeded", "failed", "cancelled")

Url = Annotated[
    str,
    typer.Option(help="Base URL of the model.", envvar="CANARIUM_URL", show_envvar=True),
]
Headers = Annotated[
    list[str] | None,
    typer.Option("-H", "--header", help="More headers: 'authorization: Bearer TOKEN'."),
]
Id = Annotated[str, typer.Argument(help="Id of the job.")]


class JobsError(Exception):
    """The server refused, or cannot be reached; the message says what to do."""


def request(
    url: str, method: str, path: str, headers: list[str] | None, document: Any = None
) -> HTTPResponse:
    """Send a request; the caller reads and closes the answer.

    Raises:
        JobsError: refused, or no answer.
    """
    if not url.startswith(("http://", "https://")):
        msg = f"--url: expected http:// or https://, got {url!r}"
        raise JobsError(msg)
    body = json.dumps(document).encode() if document is not None else None
    sent = urllib.request.Request(f"{url.rstrip('/')}/jobs{path}", body, method=method)  # noqa: S310
    sent.add_header("content-type", "application/json")
    for header in headers or ():
        name, _, value = header.partition(":")
        sent.add_header(name.strip(), value.strip())
    try:
        answer: HTTPResponse = urllib.request.urlopen(sent, timeout=_TIMEOUT_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            raise JobsError(_refusal(error)) from error
    except (OSError, HTTPException) as error:
        msg = f"{url} cannot be reached: {error}"
        raise JobsError(msg) from error
    return answer


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        text = json.loads(error.read())["error"]
    except (ValueError, KeyError, TypeError, OSError):
        text = error.reason
    return f"refused with {error.code}: {text}"


def rows_of(path: Path) -> Iterator[Any]:
    """Read the rows of a local file: a JSON value a line, or a CSV with the inputs' names as its header.

    Raises:
        JobsError: the file cannot be read so.
    """
    try:
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                for row in csv.DictReader(file):
                    yield {name: _number(cell) for name, cell in row.items()}
            return
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except ValueError as error:
                        msg = f"{path}, line {number}: {error}"
                        raise JobsError(msg) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{path} cannot be read: {error}"
        raise JobsError(msg) from error


def _number(cell: str) -> Any:
    for kind in (int, float):
        try:
            return kind(cell)
        except (TypeError, ValueError):
            continue
    return cell


def line_of(job: dict[str, Any]) -> str:
    """Write a job as one line."""
    rows = job["rows"]
    text = f"{job['id']}  {job['state']:<9}  {job['progress']:>6.1%}  {rows['done']} of {rows['total'] or '?'} rows"
    if rows["failed"]:
        text += f", {rows['failed']} failed"
    return text + (f": {job['reason']}" if job["reason"] else "")


def _read(url: str, method: str, path: str, headers: list[str] | None, body: Any = None) -> Any:
    with request(url, method, path, headers, body) as answer:
        return json.loads(answer.read() or b"null")


def _watch(url: str, job_id: str, headers: list[str] | None) -> int:
    shown = ""
    while True:
        job = _read(url, "GET", f"/{job_id}", headers)
        if (line := line_of(job)) != shown:
            print(line, flush=True)
            shown = line
        if job["state"] in _ENDED:
            for error in job["errors"]:
                print(f"  row {error['row']}: {error['message']}")
            return 0 if job["state"] == "succeeded" else 1
        time.sleep(_POLL_SECONDS)


@app.command()
def submit(
    url: Url,
    file: Annotated[
        Path | None, typer.Argument(help="Rows: JSON lines (.jsonl), or .csv with a header.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="URI that the workers read the rows from, in place of FILE.")
    ] = None,
    callback: Annotated[str | None, typer.Option(help="URL that is told of the end.")] = None,
    max_failed_share: Annotated[
        float, typer.Option(help="Share of failed rows above which the job fails.", min=0, max=1)
    ] = 1.0,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the end.")] = False,
    header: Headers = None,
) -> None:
    """Submit a job, and print its id."""
    if (file is None) == (source is None):
        msg = "name either FILE or --source"
        raise typer.BadParameter(msg)
    body: dict[str, Any] = {"max_failed_share": max_failed_share}
    if file is not None:
        body["rows"] = list(rows_of(file))
    else:
        body["source"] = {"uri": source}
    if callback is not None:
        body["callback"] = {"url": callback}
    # A request that is sent again, by whatever is in between, is the same job.
    headers = [*(header or ()), f"idempotency-key: {token_hex(16)}"]
    job = _read(url, "POST", "", headers, body)
    print(job["id"], flush=True)
    if watch:
        raise typer.Exit(_watch(url, job["id"], header))


@app.command(name="list")
def newest(
    url: Url,
    limit: Annotated[int, typer.Option(help="How many.")] = 20,
    header: Headers = None,
) -> None:
    """List the newest jobs."""
    for job in _read(url, "GET", f"?limit={limit}", header)["jobs"]:
        print(line_of(job))


@app.command()
def watch(url: Url, job: Id, header: Headers = None) -> None:
    """Show a job until it ends, and the first rows that failed."""
    raise typer.Exit(_watch(url, job, header))


@app.command()
def results(
    url: Url,
    job: Id,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File; default: standard output.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="jsonl or csv.")] = "jsonl",
    partial: Annotated[bool, typer.Option("--partial", help="What there is of it.")] = False,
    header: Headers = None,
) -> None:
    """Download the results."""
    path = f"/{job}/results?format={form}&partial={str(partial).lower()}"
    with request(url, "GET", path, header) as answer:
        try:
            if output is None:
                shutil.copyfileobj(answer, sys.stdout.buffer)
                sys.stdout.buffer.flush()
                return
            # Beside the file, and then in its place: a download that breaks leaves no half file.
            part = output.with_name(output.name + ".part")
            with part.open("wb") as file:
                shutil.copyfileobj(answer, file)
            part.replace(output)
        except HTTPException as error:
            msg = f"the download broke: {error}; download again"
            raise JobsError(msg) from error


@app.command()
def cancel(url: Url, job: Id, header: Headers = None) -> None:
    """End a job; what is done of it stays."""
    print(line_of(_read(url, "POST", f"/{job}/cancel", header)))


@app.command()
def retry(url: Url, job: Id, header: Headers = None) -> None:
    """Do again what failed of a job that has ended, and what was not done."""
    print(line_of(_read(url, "POST", f"/{job}/retry", header)))


@app.command()
def delete(url: Url, job: Id, header: Headers = None) -> None:
    """Forget a job that has ended, with its results."""
    _read(url, "DELETE", f"/{job}", header)


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    try:
        app(prog_name="canarium jobs")
    except JobsError as error:
        print(f"canarium jobs: {error}", file=sys.stderr)
        return 1
    return 0
