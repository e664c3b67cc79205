"""Go modules as archives of files: fetched by version, checked against the hash that we pinned.

For what is taken from a module without being linked into ours: CRDs, and programs with go.mod
files of their own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path

from canarium_devcluster.errors import DevclusterError

_SECONDS = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Module:
    """A pin. ``sum`` is the hash in the notation of go.sum."""

    path: str
    version: str
    sum: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fetched:
    """Where Go keeps a module: the zip, and the unpacked, read-only folder."""

    zip: Path
    folder: Path


def fetch(module: Module) -> Fetched:
    """Download the module into Go's own cache, unless it is there."""
    done = subprocess.run(
        ["go", "mod", "download", "-json", f"{module.path}@{module.version}"],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,  # it fails where Go is older than the module wants, after fetching the zip
        cwd="/",  # outside of any module
        env={**os.environ, "GOFLAGS": "", "GOWORK": "off"},
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {}
    if "Zip" not in answer:
        raise DevclusterError(
            f"The module {module.path} could not be fetched",
            "check that `go mod download` works on this machine",
            details=answer.get("Error") or done.stderr,
        )
    if answer["Sum"] != module.sum:
        raise DevclusterError(
            f"The module {module.path} {module.version} is not the one that we pinned "
            f"({answer['Sum']})"
        )
    return Fetched(zip=Path(answer["Zip"]), folder=Path(answer.get("Dir", "")))
