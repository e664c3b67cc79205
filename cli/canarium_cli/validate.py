"""`canarium validate MODEL --data golden.csv`: a model on golden data by the real backend, against thresholds."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from canarium_api.golden import Task, Thresholds
from canarium_api.runtime_config import RuntimeConfig
from canarium_api.status import SignatureStatus, TensorStatus
from canarium_cli.serve_settings import FLAGS, UsageError, settings
from canarium_cli.validating import page, report, thresholds, words
from canarium_cli.validating.report import Report, Subject
from canarium_cli.validating.thresholds import ThresholdsError
from canarium_operator.core.rollout.contract import breaking_changes
from canarium_runtime.backends.base import ModelSpec
from canarium_runtime.errors import LoadError
from canarium_runtime.golden.evaluation import ModelError, evaluate
from canarium_runtime.golden.judging import judge
from canarium_runtime.golden.opening import Opened, open_model
from canarium_runtime.golden.table import DataError, Table
from canarium_runtime.repository import redact

_MANIFESTS: Final = (".yaml", ".yml")
MISSED, UNUSABLE, BROKEN = 1, 2, 3
"""Exit statuses besides 0."""
app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def validate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Path or URI of a model, or a ModelDeployment (.yaml)."
        ),
    ],
    data: Annotated[
        Path, typer.Option(help="Golden data with the right answers: .csv, .jsonl or .parquet.")
    ],
    limits: Annotated[
        Path | None, typer.Option("--thresholds", help="What is asked of the model, YAML.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="OLD", help="The version in production, as MODEL.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Data to look for drift against, as the model was trained on."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column of the right answers.")] = None,
    features: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Columns that the model gets, in order.")
    ] = None,
    ignore: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Columns that are neither.")
    ] = None,
    task: Annotated[Task | None, typer.Option(help="Default: by the model's outputs.")] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the server."),
    ] = None,
    output: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="text|json|markdown|junit|html", help="What is printed."
        ),
    ] = "text",
    directory: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="DIR", help="Write report.json, .md, .html and junit.xml there."
        ),
    ] = None,
) -> None:
    """Run a model over golden data, and hold what it does against thresholds.

    Exit status 0: all are met; 1: some are missed; 2: data, thresholds or arguments cannot be used; 3: the model
    cannot be loaded, or answers nothing.
    """
    if output not in WRITERS:
        raise _failed(f"--output {output}: write one of {', '.join(WRITERS)}", UNUSABLE)
    given: dict[str, Any] = {
        name: value
        for name, value in (
            ("label", label),
            ("features", _listed(features)),
            ("ignore", _listed(ignore)),
            ("task", task),
        )
        if value
    }
    try:
        wishes = thresholds.read(limits, given)
        table = Table(data)
        base = Table(reference) if reference is not None else None
        with tempfile.TemporaryDirectory(prefix="canarium-validate-") as folder:
            found = _validate(
                _config(model, more, folder),
                None if against is None else _config(against, more, folder),
                table,
                base,
                wishes,
            )
    except (UsageError, ThresholdsError, DataError) as error:
        raise _failed(str(error), UNUSABLE) from error
    except LoadError as error:
        raise _failed(f"{error.failure.reason}: {error}", BROKEN) from error
    except ModelError as error:
        raise _failed(str(error), BROKEN) from error
    if directory is not None:
        _write(found, directory)
    print(WRITERS[output](found))
    raise typer.Exit(0 if found.passed else MISSED)


def _failed(message: str, status: int) -> typer.Exit:
    print(f"canarium validate: {message}", file=sys.stderr)
    return typer.Exit(status)


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()] if text else []


def _config(model: str, more: Sequence[str] | None, folder: str) -> RuntimeConfig:
    """Make the settings of a server that would serve the model, with downloads in a folder of our own."""
    manifest = Path(model).suffix in _MANIFESTS
    given = dict.fromkeys(FLAGS)
    arguments = argparse.Namespace(
        **given,
        model=None if manifest else model,
        config=Path(model) if manifest else None,
        set=[*(more or []), f"download_dir={folder}"],
    )
    return settings(arguments, {})


def _validate(
    config: RuntimeConfig,
    old_config: RuntimeConfig | None,
    table: Table,
    base: Table | None,
    wishes: Thresholds,
) -> Report:
    new = open_model(config)
    old = None
    try:
        old = open_model(old_config) if old_config is not None else None
        found = evaluate(
            new.backend,
            table,
            wishes,
            old=old.backend if old is not None else None,
            reference=base,
        )
        breaks = None
        if old is not None:
            breaks = breaking_changes(_signature(old.backend.spec), _signature(new.backend.spec))
        size = new.artefact.size_bytes
        return Report(
            model=_subject(config, new),
            against=_subject(old_config, old)
            if old is not None and old_config is not None
            else None,
            data=table.name,
            reference=None if base is None else base.name,
            found=found,
            checks=judge(found, wishes, size_bytes=size, breaks=breaks),
            at=datetime.now(UTC).replace(microsecond=0),
            version=metadata.version("canarium"),
        )
    finally:
        new.backend.close()
        if old is not None:
            old.backend.close()


def _signature(spec: ModelSpec) -> SignatureStatus:
    return SignatureStatus(
        inputs=[
            TensorStatus(name=t.name, datatype=t.datatype, shape=t.wire_shape) for t in spec.inputs
        ],
        outputs=[
            TensorStatus(name=t.name, datatype=t.datatype, shape=t.wire_shape) for t in spec.outputs
        ],
    )


def _subject(config: RuntimeConfig, opened: Opened) -> Subject:
    uri = config.model_uri
    name = Path(uri.removeprefix("file://")).name if uri.startswith("file://") else redact(uri)
    return report.subject(
        name,
        opened.backend.spec,
        sha256=opened.artefact.sha256,
        size_bytes=opened.artefact.size_bytes,
        device=opened.backend.device,
    )


WRITERS: Final = {
    "text": words.text,
    "json": report.to_json,
    "markdown": words.markdown,
    "junit": report.to_junit,
    "html": page.html,
}
_FILES: Final = {
    "report.json": report.to_json,
    "report.md": words.markdown,
    "report.html": page.html,
    "junit.xml": report.to_junit,
}


def _write(found: Report, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, writer in _FILES.items():
            (directory / name).write_text(writer(found), encoding="utf-8")
    except OSError as error:
        raise _failed(f"--report {directory}: {error.strerror}", UNUSABLE) from error


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name="canarium validate")
    return 0
