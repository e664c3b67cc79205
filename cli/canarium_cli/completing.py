"""What a shell may complete: commands, options and their values, and names from the cluster.

typer's own completion knows one app, and ours are many, each imported when it is asked for. What is asked of a cluster
has a short time, and no answer is no candidate: a shell must not hang, nor show an error in the middle of a line.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from canarium_cli.describing import Description, Parameter, describe
from canarium_cli.table import COMMANDS

Candidate = tuple[str, str]
"""A word, and what it means."""
Key = tuple[str, str]
"""`argument` or `option`, and the name of the parameter."""
Source = Callable[[Mapping[str, str], str], Iterable[str]]
"""From the options given so far and the start of the word, the words that there are."""
TIMEOUT_SECONDS: Final = 2.0
MAX_CANDIDATES: Final = 200
_UNTIL: Final = ("promoted", "paused", "ready", "step=", "never")


def _of_cluster(given: Mapping[str, str]) -> Any:
    from canarium_cli.access import connect

    return connect(given.get("kubeconfig"), given.get("context"))


def names(given: Mapping[str, str], start: str) -> list[str]:
    """Names of ModelDeployments in the namespace that is meant; of others, where the word has a slash."""
    access = _of_cluster(given)
    space, slash, _ = start.rpartition("/")
    namespace = space or given.get("namespace") or access.namespace
    bodies, _version = access.objects(namespace, timeout=TIMEOUT_SECONDS)
    prefix = f"{space}/" if slash else ""
    return [f"{prefix}{body['metadata']['name']}" for body in bodies]


def namespaces(given: Mapping[str, str], _start: str) -> list[str]:
    """Names of namespaces."""
    found: list[str] = _of_cluster(given).namespaces(timeout=TIMEOUT_SECONDS)
    return found


def contexts(given: Mapping[str, str], _start: str) -> list[str]:
    """Names of contexts of the kubeconfig."""
    from kubernetes import config

    found, _active = config.list_kube_config_contexts(given.get("kubeconfig"))
    return [context["name"] for context in found]


SOURCES: Final[Mapping[Key, Source]] = {
    ("argument", "name"): names,
    ("option", "namespace"): namespaces,
    ("option", "context"): contexts,
    ("option", "until"): lambda _given, _start: _UNTIL,
    ("option", "revision"): lambda _given, _start: ("stable", "canary"),
}
_NO_NAMES: Final = frozenset({"keys", "init", "cluster", "completion", "jobs"})
"""Commands whose argument `name` is no ModelDeployment's."""


def candidates(words: Sequence[str], sources: Mapping[Key, Source] = SOURCES) -> list[Candidate]:
    """List what the last word may become.

    Args:
        words: after `canarium`, the last one unfinished, perhaps empty.
        sources: values of parameters.
    """
    *before, start = words or [""]
    if not before:
        found = [(name, command.summary) for name, command in COMMANDS.items()]
        return _starting(found, start)
    command = COMMANDS.get(before[0])
    if command is None or not command.typed:
        return []
    try:
        app = importlib.import_module(command.module).application(before[0])
    except (
        ModuleNotFoundError,
        AttributeError,
    ):  # its library is not installed, or it describes nothing
        return []
    if before[0] in _NO_NAMES:
        sources = {key: value for key, value in sources.items() if key[0] != "argument"}
    found = _of_command(describe(app, before[0]), before[1:], start, sources)
    return _starting(found, start)


def _of_command(
    command: Description, words: Sequence[str], start: str, sources: Mapping[Key, Source]
) -> list[Candidate]:
    """Walk over the words that are whole, and list what may follow."""
    given: dict[str, str] = {}
    positional = 0
    waiting: Parameter | None = None
    for word in words:
        below = next((c for c in command.commands if c.name == word), None)
        if waiting is not None:
            given[waiting.name], waiting = word, None
        elif word.startswith("-") and len(word) > 1:
            flag, has_value, value = word.partition("=")
            option = _option(command, flag)
            if option is not None and has_value:
                given[option.name] = value
            elif option is not None and option.takes_value:
                waiting = option
        elif below is not None:
            command, given, positional = below, {}, 0
        else:
            positional += 1
    if waiting is not None:
        return _values(waiting, given, start, sources)
    if start.startswith("-"):
        flag, has_value, value = start.partition("=")
        option = _option(command, flag)
        if has_value and option is not None:
            return [(f"{flag}={v}", m) for v, m in _values(option, given, value, sources)]
        return _options(command, given)
    if command.commands:
        return [(below.name, _first_line(below.help)) for below in command.commands]
    arguments = [p for p in command.parameters if not p.flags]
    if positional < len(arguments):
        return _values(arguments[positional], given, start, sources)
    if arguments and arguments[-1].many:
        return _values(arguments[-1], given, start, sources)
    return []


def _option(command: Description, flag: str) -> Parameter | None:
    return next((p for p in command.parameters if flag in p.flags), None)


def _options(command: Description, given: Mapping[str, str]) -> list[Candidate]:
    found = [("--help", "")]
    for option in command.parameters:
        if option.name not in given:
            found += [(f, _first_line(option.help)) for f in option.flags if f.startswith("--")]
    return found


def _values(
    parameter: Parameter, given: Mapping[str, str], start: str, sources: Mapping[Key, Source]
) -> list[Candidate]:
    if parameter.choices:
        return [(choice, "") for choice in parameter.choices]
    source = sources.get(("option" if parameter.flags else "argument", parameter.name))
    if source is None:
        return []
    try:
        return [(word, "") for word in source(given, start)]
    except Exception:  # noqa: BLE001 - whatever it is, a shell cannot show it in the middle of a line
        return []


def _starting(found: Iterable[Candidate], start: str) -> list[Candidate]:
    return [(w, meaning) for w, meaning in found if w.startswith(start)][:MAX_CANDIDATES]


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]
