"""Options that commands share, and how each ends: one way to name a ModelDeployment, one to say what went wrong."""

import functools
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, ParamSpec, TypeVar

import typer

from canarium_cli.access_errors import AccessError

if TYPE_CHECKING:
    from canarium_cli.access import Access

P = ParamSpec("P")
T = TypeVar("T")

OK: Final = 0
FAILED: Final = 1
"""Refused, not allowed, not found, not reached, or an outcome that is not the one that was wanted."""
USAGE: Final = 2
INTERRUPTED: Final = 130
"""Ctrl-C."""

Name = Annotated[
    str, typer.Argument(help="NAME or NAMESPACE/NAME of the ModelDeployment.", metavar="NAME")
]
Namespace = Annotated[
    str | None,
    typer.Option("-n", "--namespace", help="Namespace. Default: that of the context."),
]
Kubeconfig = Annotated[
    str | None,
    typer.Option(help="File of the kubeconfig. Default: $KUBECONFIG, ~/.kube/config."),
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.")]


class Format(StrEnum):
    """Forms of output for programs."""

    JSON = "json"
    YAML = "yaml"
    WIDE = "wide"
    NAME = "name"


class Document(StrEnum):
    """Forms of one document for programs."""

    JSON = "json"
    YAML = "yaml"


AsDocument = Annotated[Document | None, typer.Option("-o", "--output", help="The object as it is.")]
Output = Annotated[
    Format | None,
    typer.Option("-o", "--output", help="json and yaml: the objects as they are; name: kind/name."),
]


def new_app(**settings: Any) -> typer.Typer:
    """Make an app of typer as all of ours are: plain help, and no variables of ours in tracebacks."""
    return typer.Typer(
        add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, **settings
    )


def program() -> str:
    """Give the words that the user typed for this command: `canarium get`, `kubectl canarium get`."""
    return sys.argv[0] if " " in sys.argv[0] else "canarium"


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Say what went wrong, and end with an exit status."""
    print(f"{program()}: {message}", file=sys.stderr)
    raise typer.Exit(code)


def in_words(command: Callable[P, T]) -> Callable[P, T]:
    """Let a command end in words where the cluster cannot be asked or says no, and by 130 at Ctrl-C."""

    @functools.wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return command(*arguments, **options)
        except AccessError as error:
            fail(str(error))
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    return run


def find(
    name: str, namespace: str | None, kubeconfig: str | None, context: str | None
) -> "tuple[Access, str, str]":
    """Open the cluster, and tell which object is meant: its namespace and its name.

    Raises:
        AccessError: there is no usable kubeconfig.
    """
    from canarium_cli.access import connect  # the Kubernetes client takes half a second to import

    access = connect(kubeconfig, context)
    space, _, short = name.rpartition("/")
    return access, space or namespace or access.namespace, short


def print_object(value: Any, form: StrEnum) -> None:
    """Print an object as JSON or YAML."""
    if form == Format.JSON:
        import json

        print(json.dumps(value, indent=2, ensure_ascii=False))
        return
    import yaml

    print(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120), end="")
