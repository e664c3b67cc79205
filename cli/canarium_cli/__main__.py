"""`canarium`: one command for all that Canarium can do from a terminal; `kubectl canarium` is the same.

Each part is imported only when it is asked for, so that the command works with whichever extras are installed.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import PurePath
from typing import Final

from canarium_cli.table import COMMANDS, usage

_PLUGIN: Final = "kubectl-canarium"
"""Name of the executable that kubectl finds for `kubectl canarium`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names, and give its exit status."""
    program = "kubectl canarium" if PurePath(sys.argv[0]).stem == _PLUGIN else "canarium"
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage(program))
        return 0
    if words[0] == "--version":
        print(f"canarium {metadata.version('canarium')}")
        return 0
    if words[0] == "__complete":
        return _complete(words[1:])
    command = COMMANDS.get(words[0])
    if command is None:
        print(f"{program}: unknown command {words[0]!r}{_near(words[0])}", file=sys.stderr)
        return 2
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        install = f"pip install 'canarium[{command.extra}]'"
        missing = f"the Python package {error.name!r} is missing"
        print(f"{program} {words[0]}: {missing}: {install}", file=sys.stderr)
        return 2
    sys.argv = [f"{program} {words[0]}", *words[1:]]
    return int(module.main() or 0)


def complete() -> int:
    """Answer kubectl, which asks `kubectl_complete-canarium WORD...` and reads what cobra would write."""
    _complete(sys.argv[1:])
    print(":4")  # these are all: no names of files
    return 0


def _complete(words: Sequence[str]) -> int:
    """Print what the last word may become, one a line, each with a tab and what it means where that is known."""
    try:
        from canarium_cli.completing import candidates
    except ModuleNotFoundError:
        return 0
    for word, meaning in candidates(words):
        print(f"{word}\t{meaning}" if meaning else word)
    return 0


def _near(word: str) -> str:
    near = difflib.get_close_matches(word, COMMANDS, 3)
    words = f"did you mean {' or '.join(near)}? " if near else ""
    return f": {words}`canarium --help` lists all"


if __name__ == "__main__":
    sys.exit(main())
