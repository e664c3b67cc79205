"""`canarium schema infer MODEL.onnx`: writes rules to start with, from the model's inputs and a sample of its rows.

What comes out is a part of a ModelDeployment, for people to read and correct: a range that a sample happened to have is
no rule yet. So the level is `warning`.
"""

import csv
import itertools
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from canarium_api.input_rules import (
    MAX_FEATURES,
    FeatureRules,
    InputRules,
    ValidationLevel,
    ValidationSpec,
)

MAX_ROWS: Final = 1_000_000
"""Rows of a sample that are read."""
MAX_CHOICES: Final = 20
"""A column of strings with more different values than these gets no enum."""


class SchemaError(Exception):
    """No rules can be written; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input of a model."""

    name: str
    kind: str
    """`float`, `integer`, `string` or `boolean`."""
    shape: Sequence[int | str | None]


@dataclass(slots=True)
class _Seen:
    """What a column of the sample held."""

    least: float = math.inf
    most: float = -math.inf
    missing: bool = False
    numeric: bool = True
    words: set[str] | None = None
    """None: too many."""


def infer_rules(
    inputs: Sequence[Input], header: Sequence[str] = (), rows: Iterable[Sequence[str]] = ()
) -> ValidationSpec:
    """Write rules to start with.

    Args:
        inputs: of the model; the first axis of each counts rows.
        header: names of the sample's columns. They are those of the model's one input, in order; or, where it has
            several, the inputs' names.
        rows: the sample; an empty cell is a missing value.

    Raises:
        SchemaError: the sample does not fit the model.
    """
    seen = _look(header, rows)
    if len(inputs) == 1:
        columns = {inputs[0].name: _of_one_input(inputs[0], header)}
    else:
        known = {i.name for i in inputs}
        extra = [name for name in header if name not in known]
        if extra:
            raise SchemaError(
                f"column {extra[0]!r} is no input of the model: leave it out, or name it as one of {sorted(known)}"
            )
        columns = {i.name: [i.name] for i in inputs}
    rules = []
    for tensor in inputs:
        features = [_feature(name, tensor, seen.get(name), name) for name in columns[tensor.name]]
        rules.append(InputRules(name=tensor.name, features=features))
    return ValidationSpec(level=ValidationLevel.WARNING, inputs=rules)


def _of_one_input(tensor: Input, header: Sequence[str]) -> list[str]:
    width = tensor.shape[-1] if len(tensor.shape) > 1 else 1
    if header:
        if isinstance(width, int) and len(header) != width:
            raise SchemaError(
                f"the sample has {len(header)} columns and input {tensor.name!r} takes {width}: "
                "leave out what the model does not get, such as the label"
            )
        return list(header)
    if isinstance(width, int) and len(tensor.shape) <= 2 and width <= MAX_FEATURES:
        return [f"f{index}" for index in range(width)]
    return []


def _look(header: Sequence[str], rows: Iterable[Sequence[str]]) -> dict[str, _Seen]:
    if len(set(header)) != len(header):
        raise SchemaError("two columns of the sample have the same name: rename one")
    seen = [_Seen(words=set()) for _ in header]
    for line, row in enumerate(itertools.islice(rows, MAX_ROWS), start=2):
        if len(row) != len(header):
            raise SchemaError(
                f"line {line} of the sample has {len(row)} columns, not {len(header)}"
            )
        for column, cell in zip(seen, row, strict=True):
            text = cell.strip()
            if not text or text.lower() == "nan":
                column.missing = True
                continue
            if column.words is not None:
                column.words.add(cell)
                if len(column.words) > MAX_CHOICES:
                    column.words = None
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                column.numeric = False
            else:
                column.least, column.most = min(column.least, value), max(column.most, value)
    return dict(zip(header, seen, strict=True))


def _feature(name: str, tensor: Input, seen: _Seen | None, column: str) -> FeatureRules:
    if seen is None or tensor.kind == "boolean":
        return FeatureRules(name=name)
    if tensor.kind == "string":
        words = sorted(seen.words) if seen.words else None
        return FeatureRules(name=name, enum=words)
    if not seen.numeric:
        raise SchemaError(
            f"column {column!r} holds what is no finite number, and input {tensor.name!r} takes numbers: "
            "leave it out, or encode it as the model gets it"
        )
    nullable = True if seen.missing and tensor.kind == "float" else None
    if seen.least > seen.most:
        return FeatureRules(name=name, nullable=nullable)
    return FeatureRules(name=name, min=seen.least, max=seen.most, nullable=nullable)


def render(spec: ValidationSpec) -> str:
    """Write rules as a part of a ModelDeployment."""
    manifest = spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    part: dict[str, Any] = {"spec": {"serving": {"validation": manifest}}}
    return yaml.safe_dump(part, sort_keys=False, allow_unicode=True)


def inputs_of(path: Path) -> list[Input]:
    """Read what an ONNX model takes.

    Raises:
        SchemaError: it cannot be read.
    """
    import onnxruntime as ort  # only this command needs it

    try:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises a class of its own for each status
        raise SchemaError(f"{path} cannot be read as an ONNX model: {error}") from error
    return [Input(name=i.name, kind=_kind(i.type), shape=i.shape) for i in session.get_inputs()]


def _kind(onnx_type: str) -> str:
    if "string" in onnx_type:
        return "string"
    if "bool" in onnx_type:
        return "boolean"
    return "float" if "float" in onnx_type or "double" in onnx_type else "integer"


def infer(
    model: Annotated[
        Path, typer.Argument(help="File of an ONNX model.", exists=True, dir_okay=False)
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="CSV file with a header and rows as the model gets them.", exists=True),
    ] = None,
) -> None:
    """Write rules to start with, as a part of a ModelDeployment."""
    try:
        inputs = inputs_of(model)
        if data is None:
            spec = infer_rules(inputs)
        else:
            with data.open(newline="", encoding="utf-8-sig") as file:
                rows = csv.reader(file)
                spec = infer_rules(inputs, next(rows, []), rows)
        text = render(spec)
    except (SchemaError, UnicodeDecodeError, csv.Error) as error:
        print(f"canarium schema: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    print(text, end="")


app = typer.Typer(add_completion=False, no_args_is_help=True)
app.command("infer")(infer)


@app.callback()
def schema() -> None:
    """Rules for the values of requests (spec.serving.validation)."""


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> None:
    """Run the command."""
    app(prog_name="canarium schema")
