"""`canarium keys new NAME`: a key for a client, shown once, and the entry that lets a server know it by its hash."""

import hashlib
import re
import secrets
import sys
from typing import Annotated, Final

import typer

PREFIX: Final = "cnr_"
"""What keys begin with, so that scanners for leaked secrets can find them."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/+-]{0,127}")
_MIN_KEY_LENGTH: Final = 32

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="API keys for clients.")
_Name = Annotated[str, typer.Argument(help="Name of the client, for limits and the audit log.")]


@app.command()
def new(name: _Name) -> None:
    """Make a key. The first line is the key, for the client; the second is the entry, for the Secret."""
    _check(name)
    key = PREFIX + secrets.token_urlsafe(32)
    print(f"key:   {key}\nentry: {_entry(name, key)}")
    print(
        "The key is shown this once. Put the entry into the Secret of the model.", file=sys.stderr
    )


@app.command(name="hash")
def hash_key(name: _Name) -> None:
    """Write the entry of a key that there is already; the key is read from standard input."""
    _check(name)
    key = sys.stdin.readline().strip()
    if len(key) < _MIN_KEY_LENGTH:
        _fail(f"the key has {len(key)} characters, and fewer than {_MIN_KEY_LENGTH} can be guessed")
    print(_entry(name, key))


def _entry(name: str, key: str) -> str:
    return f"{name}: {hashlib.sha256(key.encode()).hexdigest()}"


def _check(name: str) -> None:
    if not _NAME.fullmatch(name):
        _fail("a name has letters, digits and ._@/+- and at most 128 of them")


def _fail(text: str) -> None:
    print(f"canarium keys: {text}", file=sys.stderr)
    raise typer.Exit(2)


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name="canarium keys")
    return 0
