"""What a command takes, read from the signatures that typer reads, too: for completion and docs/reference/cli.md.

The objects that typer makes of them are its own affair and change between its versions; the signatures are ours.
"""

import enum
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

_NONE: Final = type(None)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """An argument or an option."""

    name: str
    """As the function has it."""
    flags: tuple[str, ...]
    """`-n`, `--namespace`; empty: an argument."""
    help: str
    choices: tuple[str, ...]
    """The words that it may be; empty: any."""
    takes_value: bool
    """No: it is there or not."""
    many: bool
    required: bool
    default: str
    """Empty: none that would tell anything."""
    is_path: bool
    metavar: str


@dataclass(frozen=True, kw_only=True)
class Description:
    """A command, or one that has commands of its own."""

    name: str
    help: str
    parameters: tuple[Parameter, ...]
    commands: tuple["Description", ...] = ()


def describe(app: typer.Typer, name: str) -> Description:
    """Describe an app of typer: its one command, or all of them."""
    commands = [_command(info) for info in app.registered_commands]
    if len(commands) == 1 and app.registered_callback is None:
        return _renamed(commands[0], name)
    callback = app.registered_callback.callback if app.registered_callback is not None else None
    text = app.info.help if isinstance(app.info.help, str) else inspect.getdoc(callback) or ""
    return Description(name=name, help=text, parameters=(), commands=tuple(commands))


def _renamed(found: Description, name: str) -> Description:
    return Description(name=name, help=found.help, parameters=found.parameters)


def _command(info: Any) -> Description:
    callback: Callable[..., Any] = info.callback
    hints = typing.get_type_hints(callback, include_extras=True)
    signature = inspect.signature(callback)
    return Description(
        name=info.name or callback.__name__.replace("_", "-"),
        help=info.help or inspect.getdoc(callback) or "",
        parameters=tuple(
            _parameter(parameter, hints.get(parameter.name, str))
            for parameter in signature.parameters.values()
        ),
    )


def _parameter(given: inspect.Parameter, hint: Any) -> Parameter:
    kind, info = _split(hint)
    default = given.default
    if isinstance(default, ParameterInfo):
        info, default = default, default.default
    has_default = default is not inspect.Parameter.empty and default is not ...
    if info is None:
        info = OptionInfo() if has_default else ArgumentInfo()
    kind, many = _one(kind)
    is_enum = isinstance(kind, type) and issubclass(kind, enum.Enum)
    metavar = getattr(info, "metavar", None) or ""
    return Parameter(
        name=given.name,
        flags=_flags(info, given.name, kind) if isinstance(info, OptionInfo) else (),
        help=" ".join((info.help or "").split()),
        choices=tuple(str(member.value) for member in kind) if is_enum else (),
        takes_value=kind is not bool,
        many=many,
        required=not has_default,
        default=_shown(default) if has_default else "",
        is_path=kind is Path,
        metavar=metavar.strip("[]"),
    )


def _split(hint: Any) -> tuple[Any, ParameterInfo | None]:
    """Take the description off an annotation."""
    if typing.get_origin(hint) is not Annotated:
        return hint, None
    kind, *notes = typing.get_args(hint)
    return kind, next((note for note in notes if isinstance(note, ParameterInfo)), None)


def _one(kind: Any) -> tuple[Any, bool]:
    """Take `None` and the list off a type: `list[str] | None` is many strings."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not _NONE)
    if typing.get_origin(kind) is list:
        return typing.get_args(kind)[0], True
    return kind, False


def _flags(info: OptionInfo, name: str, kind: Any) -> tuple[str, ...]:
    declared: list[str] = list(info.param_decls or ())
    if isinstance(info.default, str) and info.default.startswith("-"):
        declared.insert(
            0, info.default
        )  # the first of `typer.Option("-n", "--name")` in an annotation
    if declared:
        return tuple(part for flag in declared for part in flag.split("/"))
    word = name.replace("_", "-")
    return (f"--{word}", f"--no-{word}") if kind is bool else (f"--{word}",)


def _shown(default: Any) -> str:
    if default is None or default is False or default in ("", []):
        return ""
    return str(default.value if isinstance(default, enum.Enum) else default)
