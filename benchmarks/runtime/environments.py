"""Virtual environments of the servers and of the tools: one each under build/bench, made once and kept.

An environment is named by its list in requirements/ and has a stamp with what it was made from; a changed list makes it
anew. What pip or Python say when that fails is the reason of `MissingError`, and the server is reported as not run.
"""

import json
import subprocess
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from .interpreters import Interpreter
from .progress import say

REPOSITORY = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
OURS = "ours"
"""Canarium's own: what pyproject.toml says for the server, and nothing else; the code itself is the working tree's."""
TOOLS = "tools"
_EXTRAS = ("runtime", "onnx", "cache", "security")
"""Of those, the ones that pyproject.toml has: what the measured variants need."""
_STAMP = "bench-requirements.json"


class MissingError(Exception):
    """An environment that cannot be made; the message is the reason."""


@dataclass(frozen=True)
class Environments:
    """All environments of one build folder.

    Args:
        folder: where they are.
        interpreter: what they are made with.
        make: False: those that are not there are missing, and nothing is installed.
    """

    folder: Path
    interpreter: Interpreter
    make: bool = True

    def python(self, name: str) -> Path:
        """Give the interpreter of an environment, made first where needed.

        Raises:
            MissingError: it cannot be made.
        """
        home = self.folder / name
        wanted = _requirements(name, self.interpreter.version)
        stamp = home / _STAMP
        if stamp.exists() and stamp.read_text() == wanted:
            return home / "bin" / "python"
        if not self.make:
            raise MissingError(f"no environment {home}, and --no-install says to make none")
        began = time.monotonic()
        say(f"making the environment {name} (once; a minute or a few) ...")
        _run(name, [self.interpreter.path, "-m", "venv", "--clear", home])
        python = home / "bin" / "python"
        command: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        _run(name, [*command, *_arguments(name)])
        stamp.write_text(wanted)
        say(f"  {name} is ready after {time.monotonic() - began:.0f} s")
        return python

    def versions(self, name: str) -> dict[str, str]:
        """Tell which versions of the listed packages are installed in an environment that is there."""
        folders = (self.folder / name).glob("lib/python*/site-packages/*.dist-info")
        installed = dict(folder.stem.rsplit("-", 1) for folder in folders)
        named = {package.lower().replace("_", "-"): v for package, v in installed.items()}
        return {package: named[package] for package in sorted(_listed(name)) if package in named}


def _arguments(name: str) -> list[str]:
    if name == OURS:
        constraints = REPOSITORY / "constraints.txt"
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
        extras = ",".join(e for e in _EXTRAS if e in project["optional-dependencies"])
        return ["--constraint", str(constraints), "--editable", f"{REPOSITORY}[{extras}]"]
    return ["--requirement", str(REQUIREMENTS / f"{name}.txt")]


def _requirements(name: str, version: str) -> str:
    """What the environment is made from, as the stamp holds it."""
    if name == OURS:
        sources = [REPOSITORY / "pyproject.toml", REPOSITORY / "constraints.txt"]
    else:
        sources = [REQUIREMENTS / f"{name}.txt"]
    return json.dumps([version, *(path.read_text() for path in sources)])


def _listed(name: str) -> set[str]:
    """Names of the packages that a list pins; for ours, those that decide the figures."""
    if name == OURS:
        return {
            "fastapi",
            "httptools",
            "numpy",
            "onnxruntime",
            "orjson",
            "pysimdjson",
            "uvicorn",
            "uvloop",
        }
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    pins = (line.partition("==")[0] for line in lines if line and not line.startswith("#"))
    return {pin.partition("[")[0].lower() for pin in pins}


def _run(name: str, command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise MissingError(f"{name} cannot be installed: {said[-1] if said else done.returncode}")
