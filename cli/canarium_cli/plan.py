"""`canarium plan`: what the operator would decide of a rollout, from recorded metrics, without a cluster."""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from canarium_api.duration import approximate_duration, parse_duration
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import validation
from canarium_operator.core.assembling import completed
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.templates import TemplateKey
from canarium_operator.replay import decisions
from canarium_operator.replay.planner import START, Decided, Outcome, Planner
from canarium_operator.replay.recording import RecordingError, parse

_KINDS: Final = {"AnalysisTemplate": False, "ClusterAnalysisTemplate": True}
_SHORT: Final = {"not enough evidence": "too few"}
_COLOURS: Final = {"pass": "green", "fail": "red"}
app = typer.Typer(add_completion=False, rich_markup_mode=None)


class UsageError(Exception):
    """What the user gave cannot be used; the message says what to change."""


@app.command()
def plan(
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", help="The ModelDeployment, and its AnalysisTemplates."),
    ] = None,
    metrics: Annotated[Path | None, typer.Option(help="Recorded metrics, JSON.")] = None,
    replay: Annotated[
        Path | None,
        typer.Option(help="A log of decisions (CANARIUM_DECISION_LOG): decide each again."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    pods_ready_after: Annotated[
        str, typer.Option(help="How long pods take to become ready.")
    ] = "0s",
    start: Annotated[
        str, typer.Option(help="Instant at which the rollout begins, for freeze windows.")
    ] = f"{START:%Y-%m-%dT%H:%M:%SZ}",
    approve: Annotated[
        bool, typer.Option("--approve", help="Somebody approves each step when it asks.")
    ] = False,
) -> None:
    """Print each decision that the operator would take, with its time and its reason.

    The engine is the one that the operator runs. What was recorded does not follow the weights that are decided. Exit
    status 0 whatever the outcome; 2 when a file cannot be used; with --replay, 1 where a decision differs.
    """
    if replay is not None:
        raise typer.Exit(_replay(replay))
    if file is None or metrics is None:
        _fail("--file and --metrics are needed (or --replay)")
        return
    try:
        ref, spec = _read_manifest(file)
        planner = Planner(
            ref=ref,
            spec=spec,
            recording=parse(_read(metrics)),
            start=_instant(start),
            pods_ready_after=_duration(pods_ready_after),
            approve=approve,
        )
        decided, outcome = planner.run()
    except RecordingError as error:
        _fail(f"{metrics}: {error}")
    except UsageError as error:
        _fail(str(error))
    if as_json:
        document = [asdict(entry) for entry in decided]
        print(json.dumps([*document, asdict(outcome)], indent=2))
    else:
        _show(ref, decided, outcome)


def _replay(path: Path) -> int:
    """Decide every pass of a log again, and compare byte for byte."""
    count = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for entry in decisions.replay(lines):
                count = entry.line
                if not entry.same:
                    print(f"line {entry.line}: decided otherwise", file=sys.stderr)
                    print(f"- {entry.recorded}\n+ {entry.decided}", file=sys.stderr)
                    return 1
    except (OSError, UnicodeDecodeError) as error:
        _fail(f"{path}: {error.strerror if isinstance(error, OSError) else 'not UTF-8 text'}")
    except decisions.DecisionLogError as error:
        _fail(f"{path}: {error}")
    print(f"{count} decisions, all the same")
    return 0


def _fail(message: str) -> Any:
    print(f"canarium plan: {message}", file=sys.stderr)
    raise typer.Exit(2)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        msg = f"{path}: {reason}"
        raise UsageError(msg) from error


def _read_manifest(path: Path) -> tuple[ObjectRef, ModelDeploymentSpec]:
    """Find the ModelDeployment in a file, and put the checks of templates beside it in.

    Raises:
        UsageError: there is none, or more than one, or it cannot be carried out.
    """
    try:
        documents = [d for d in yaml.safe_load_all(_read(path)) if isinstance(d, dict)]
    except yaml.YAMLError as error:
        msg = f"{path}: not YAML: {error}"
        raise UsageError(msg) from error
    found = [d for d in documents if d.get("kind") == "ModelDeployment"]
    if len(found) != 1:
        msg = f"{path}: {len(found)} ModelDeployments, where one is needed"
        raise UsageError(msg)
    meta = found[0].get("metadata") or {}
    ref = ObjectRef(namespace=meta.get("namespace", "default"), name=meta.get("name", "model"))
    templates: dict[TemplateKey, Any] = {
        (_KINDS[d["kind"]], (d.get("metadata") or {}).get("name", "")): d.get("spec")
        for d in documents
        if d.get("kind") in _KINDS
    }
    spec = validation.parse_spec(found[0].get("spec"))
    resolved = completed(spec, templates) if isinstance(spec, ModelDeploymentSpec) else spec
    problems = resolved if isinstance(resolved, list) else validation.validate(resolved)
    if isinstance(resolved, list) or problems:
        msg = "\n".join(f"{path}: {problem}" for problem in problems)
        raise UsageError(msg)
    return ref, resolved


def _instant(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"--start {text}: no instant: write one such as 2026-01-01T12:00:00Z"
        raise UsageError(msg) from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        msg = f"--pods-ready-after {text}: {error}"
        raise UsageError(msg) from error


def _show(ref: ObjectRef, decided: list[Decided], outcome: Outcome) -> None:
    table = Table(box=box.SIMPLE_HEAD, title=f"{ref}: what the operator would decide")
    for column in ("after", "phase", "step", "weight", "gate"):
        table.add_column(column, no_wrap=True)
    table.add_column("why", overflow="fold")
    for entry in decided:
        colour = _COLOURS.get(entry.verdict, "yellow")
        table.add_row(
            approximate_duration(timedelta(seconds=entry.at)),
            entry.phase,
            str(entry.step or ""),
            f"{entry.weight}%",
            f"[{colour}]{_SHORT.get(entry.verdict, entry.verdict)}[/{colour}]",
            entry.reason,
        )
    console = Console()
    console.print(table)
    failed = f"{outcome.canary_failed_requests} of {outcome.canary_requests}"
    after = approximate_duration(timedelta(seconds=outcome.at))
    console.print(
        f"[bold]{outcome.outcome.replace('_', ' ')}[/bold] after {after}; "
        f"{failed} canary requests failed until then",
        highlight=False,
    )


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name="canarium plan")
    return 0
