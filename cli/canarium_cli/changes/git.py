"""The tree of a git ref, as files in a folder of their own.

Files above MAX_FILE_BYTES (models, data) stay away: no manifest is so large. Git LFS is never asked for anything.
"""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 5 * 1024**2
_TIMEOUT_SECONDS: Final = 120
_NO_FILTERS: Final = (
    "-c",
    "filter.lfs.smudge=",
    "-c",
    "filter.lfs.process=",
    "-c",
    "filter.lfs.required=false",
)


class GitError(Exception):
    """git refused; the message is for the user."""


def top_of(directory: Path) -> Path:
    """Give the root of the work tree that a directory is in.

    Raises:
        GitError: it is in none.
    """
    return Path(_git(directory, "rev-parse", "--show-toplevel").strip()).resolve()


def commit_of(top: Path, ref: str) -> str:
    """Give the commit of a ref.

    Raises:
        GitError: there is none.
    """
    if ref.startswith("-"):
        raise GitError(f"{ref} is no ref")
    try:
        return _git(top, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").strip()
    except GitError as error:
        hint = "fetch it first: a shallow clone has only its last commits (fetch-depth: 0)"
        raise GitError(f"there is no {ref} here: {hint}") from error


def write_tree(top: Path, commit: str, folder: Path) -> None:
    """Write the files of a commit into a folder.

    Raises:
        GitError: it cannot be done.
    """
    listing = _git(top, "ls-tree", "-r", "-l", "-z", "--full-tree", commit)
    environment = {"GIT_INDEX_FILE": str(folder / ".index")}
    _git(top, "read-tree", commit, more=environment)
    prefix = f"--prefix={folder}/"
    _git(
        top,
        *_NO_FILTERS,
        "checkout-index",
        "-z",
        "--stdin",
        prefix,
        stdin="".join(f"{name}\0" for name in _small(listing.split("\0"))),
        more=environment,
    )
    (folder / ".index").unlink(missing_ok=True)


def _small(lines: Iterable[str]) -> list[str]:
    """Choose plain files that are not too large: `100644 blob HASH SIZE<tab>NAME`."""
    found = []
    for line in lines:
        entry, _, name = line.partition("\t")
        parts = entry.split()
        if len(parts) == 4 and parts[1] == "blob" and int(parts[3]) <= MAX_FILE_BYTES:
            found.append(name)
    return found


def _git(
    directory: Path, *words: str, stdin: str | None = None, more: dict[str, str] | None = None
) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
            env={**os.environ, **(more or {})},
        )
    except FileNotFoundError as error:
        raise GitError("git is not on PATH: install it") from error
    except (OSError, UnicodeDecodeError, subprocess.TimeoutExpired) as error:
        raise GitError(f"git {words[0]} failed: {error}") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise GitError(said[-1] if said else f"git {words[0]} failed")
    return done.stdout
