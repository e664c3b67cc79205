"""Images of Python programs in three layers, cached apart: Python, dependencies, source.

A change in the source makes only the last layer anew, which takes about a second. The image runs
as user 65532 and needs no writable root; give it an emptyDir at /tmp.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from canarium_devcluster import cache, host_python, images, layout, processes
from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.progress import Progress

_DEPENDENCIES = "/opt/dependencies"
_APPLICATION = "/app"


class PythonImages:
    """Builds such images; layers go to the cache."""

    def __init__(self, where: layout.Layout, store: cache.Cache, progress: Progress) -> None:
        self._layout = where
        self._cache = store
        self._progress = progress

    def build(
        self,
        *,
        name: str,
        entrypoint: Sequence[str],
        packages: Iterable[Path],
        extras: Iterable[str] = (),
        requirements: Iterable[str] = (),
    ) -> images.Image:
        """The image ``name`` of source ``packages`` (below the checkout or anywhere).

        Dependencies are the distribution's with ``extras``, plus ``requirements``, pinned by
        constraints.txt.
        """
        wanted = sorted({*self._distribution(extras), *requirements})
        dependencies = [self._dependencies(wanted)] if wanted else []
        layers = (self._python(), *dependencies, self._source(name, list(packages)))
        return images.Image(
            name=name,
            layers=layers,
            entrypoint=tuple(entrypoint),
            env=(
                f"PYTHONPATH={_APPLICATION}:{_DEPENDENCIES}",
                "PYTHONUNBUFFERED=1",
                "PYTHONDONTWRITEBYTECODE=1",
                "LD_LIBRARY_PATH=/usr/local/lib",
                "HOME=/home/app",
            ),
            workdir=_APPLICATION,
        )

    def _distribution(self, extras: Iterable[str]) -> set[str]:
        """The requirements of our own distribution, from pyproject.toml without building it."""
        wanted = set(extras)
        if not wanted:
            return set()
        project = tomllib.loads((self._layout.checkout / "pyproject.toml").read_text())["project"]
        return set(project["dependencies"]) | expand(project["optional-dependencies"], wanted)

    def _python(self) -> images.Layer:
        def fill(target: Path) -> None:
            with self._progress.step("Base layer from this Python", remember="layer-python"):
                root = target / "root"
                host_python.fill(root)
                images.write_layer(target, [(root, "/")])
                shutil.rmtree(root)

        key = cache.key_of([host_python.identity(), _source_of(host_python.__file__)])
        return images.read_layer(self._cache.get_or_make("layer-python", key, fill))

    def _dependencies(self, requirements: list[str]) -> images.Layer:
        constraints = self._layout.checkout / "constraints.txt"
        pins = constraints.read_text() if constraints.exists() else ""
        relevant = [line for line in pins.splitlines() if line and not line.startswith("#")]
        kind = f"layer-dependencies-{cache.key_of(_names(requirements))[:8]}"

        def fill(target: Path) -> None:
            title = f"Installing {', '.join(_names(requirements))}"
            with self._progress.step(title, remember=kind):
                root = target / "root"
                self._install(requirements, constraints if pins else None, root, kind)
                host_python.compile_folder(root, _DEPENDENCIES)
                images.write_layer(target, [(root, _DEPENDENCIES)])
                shutil.rmtree(root)

        key = cache.key_of([sys.version, *requirements, *relevant])
        return images.read_layer(self._cache.get_or_make(kind, key, fill))

    def _install(
        self, requirements: list[str], constraints: Path | None, root: Path, kind: str
    ) -> None:
        root.mkdir()
        pinned = ["--constraint", str(constraints)] if constraints else []
        processes.run_logged(
            [
                *(sys.executable, "-m", "pip", "install", "--no-compile", "--no-input"),
                *("--disable-pip-version-check", "--no-warn-script-location"),
                *("--root-user-action", "ignore", "--target", str(root), *pinned, *requirements),
            ],
            self._layout.build_logs / f"{kind}.log",
            what="Installing the image's dependencies",
        )
        for scripts in ("bin", "share", "include"):  # for machines, not for images
            shutil.rmtree(root / scripts, ignore_errors=True)

    def _source(self, name: str, packages: list[Path]) -> images.Layer:
        found = [p if p.is_absolute() else self._layout.checkout / p for p in packages]
        for path in found:
            if not path.is_dir():
                raise DevclusterError(f"There is no package {path}", "run from a complete checkout")

        def fill(target: Path) -> None:
            # Compiled in a copy: the checkout stays as it is.
            with tempfile.TemporaryDirectory(dir=target) as scratch:
                root = Path(scratch, "app")
                for path in found:
                    skipped = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(path, root / path.name, ignore=skipped)
                host_python.compile_folder(root, _APPLICATION)
                images.write_layer(target, [(root, _APPLICATION)])

        parts = [part for path in found for part in cache.tree_parts([path], path.parent)]
        kind = f"layer-source-{re.sub(r'[^a-z0-9]+', '-', name.lower())}"
        key = cache.key_of([sys.version, *parts])
        return images.read_layer(self._cache.get_or_make(kind, key, fill))


def expand(optional: dict[str, list[str]], extras: set[str]) -> set[str]:
    """Requirements of extras, following those that name others of the same distribution."""
    found: set[str] = set()
    pending, seen = set(extras), set()
    while pending:
        extra = pending.pop()
        seen.add(extra)
        if extra not in optional:
            raise DevclusterError(f"The distribution has no extra '{extra}'")
        for requirement in optional[extra]:
            own = re.fullmatch(r"canarium\[(.+)\]", requirement)
            if own:
                pending |= {e.strip() for e in own[1].split(",")} - seen
            else:
                found.add(requirement)
    return found


def _names(requirements: list[str]) -> list[str]:
    return [re.split(r"[^A-Za-z0-9._-]", r, maxsplit=1)[0] for r in requirements]


def _source_of(file: str) -> bytes:
    return Path(file).read_bytes()
