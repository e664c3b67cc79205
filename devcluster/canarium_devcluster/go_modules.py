"""Go modules as archives of files: fetched by version, checked against the hash that we pinned.

For what is taken from a module without being linked into ours: CRDs, and programs with go.mod
files of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from canarium_devcluster.errors import DevclusterError

_SECONDS = 300


OUR_GO: Mapping[str, str] = MappingProxyType({"GOFLAGS": "", "GOWORK": "off"})
"""For the go command: none of the user's own flags and workspaces."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Module:
    """A pin. ``sum`` is the hash in the notation of go.sum.

    ``go`` is the toolchain that it needs ("go1.27.3") where that is newer than what we ask for: Go fetches
    it itself, as it does modules.
    """

    path: str
    version: str
    sum: str
    go: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """For the go command, beside the user's own."""
        return {**OUR_GO, "GOTOOLCHAIN": self.go} if self.go else dict(OUR_GO)


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
        env={**os.environ, **module.environment},
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


@contextlib.contextmanager
def assembled(module: Module, inside: Mapping[str, Module]) -> Iterator[Path]:
    """The module's folder; with others ``inside`` (folder -> module) a copy of it that is removed at the end."""
    folder = fetch(module).folder
    if not inside:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="canarium-go-") as temporary:
        whole = Path(temporary) / folder.name
        for place, part in (("", folder), *((p, fetch(m).folder) for p, m in inside.items())):
            # Go keeps modules read-only, and what cannot be written cannot be filled or removed.
            shutil.copytree(part, whole / place, copy_function=shutil.copyfile, dirs_exist_ok=True)
            whole.chmod(0o755)
            for child in whole.rglob("*"):
                if child.is_dir():
                    child.chmod(0o755)
        yield whole
