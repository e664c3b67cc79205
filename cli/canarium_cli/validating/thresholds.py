"""A file of thresholds, with an error that names the field."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from canarium_api.golden import Thresholds
from canarium_cli.checking import documents
from canarium_cli.checking.documents import Document, DocumentError


class ThresholdsError(Exception):
    """A file of thresholds cannot be used; the message names place and field."""


def read(path: Path | None, given: Mapping[str, Any]) -> Thresholds:
    """Read a file of thresholds.

    Args:
        path: YAML or JSON; None: no thresholds but the default ones.
        given: fields that the command line gives, which win.

    Raises:
        ThresholdsError: it is not YAML, or a field is unknown or wrong.
    """
    document = _document(path)
    value = document.value if document is not None else {}
    if not isinstance(value, dict):
        raise ThresholdsError(
            f"{path}: a mapping is expected, such as `metrics: {{accuracy: {{min: 0.9}}}}`"
        )
    try:
        return Thresholds.model_validate({**value, **given})
    except ValidationError as error:
        lines = [_problem(entry, document, path) for entry in error.errors(include_url=False)[:5]]
        raise ThresholdsError("\n".join(lines)) from error


def _document(path: Path | None) -> Document | None:
    if path is None:
        return None
    try:
        found = documents.read(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ThresholdsError(f"{path}: cannot be read: {error}") from error
    except DocumentError as error:
        raise ThresholdsError(f"{path}:{error.line}: {error.message}") from error
    if len(found) > 1:
        raise ThresholdsError(f"{path}: {len(found)} documents, where one is expected")
    return found[0] if found else None


def _problem(entry: Any, document: Document | None, path: Path | None) -> str:
    field = ""
    for part in entry["loc"]:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else str(part)
    where = "the command line"
    if document is not None and path is not None:
        where = f"{path}:{document.place(field).line}"
    message = str(entry["msg"]).removeprefix("Value error, ")
    if entry["type"] == "extra_forbidden":
        message = _unknown(entry["loc"])
    return f"{where}: {field}: {message}"


def _unknown(location: Sequence[str | int]) -> str:
    model: type[BaseModel] = Thresholds
    for part in location[:-1]:
        model = _inner(model, str(part)) or model
    known = [str(info.alias) for info in model.model_fields.values()]
    close = difflib.get_close_matches(str(location[-1]), known, 1)
    ending = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"there is no such threshold: {ending}"


def _inner(model: type[BaseModel], alias: str) -> type[BaseModel] | None:
    for info in model.model_fields.values():
        if info.alias == alias:
            candidates = [info.annotation, *getattr(info.annotation, "__args__", ())]
            return next(
                (c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None
            )
    return None
