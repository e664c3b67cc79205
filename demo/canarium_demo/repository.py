"""The git repository of the demo: what a team would keep, and what Flux or Argo CD would apply.

It starts as a copy of examples/01-canary. Each version is one commit: the model's file, one line for its ConfigMap, and
the three lines of the ModelDeployment that name the model.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from canarium_demo.errors import DemoError
from canarium_demo.models import Artefact

_FILES: Final = ("kustomization.yaml", "namespace.yaml", "modeldeployment.yaml")
_WHO: Final = ("-c", "user.name=Demo", "-c", "user.email=demo@example.com")
_PLAIN: Final = ("-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null")


class Repository:
    """A working tree with its history.

    Args:
        folder: emptied at the start.
        template: the example's manifests.
    """

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder
        self._template = template

    def create(self) -> None:
        """Begin anew, without any version."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "models").mkdir(parents=True)
        for name in _FILES:
            shutil.copyfile(self._template / name, self.folder / name)
        self._git("init", "--quiet", "--initial-branch=main")

    def commit(self, artefact: Artefact) -> str:
        """Make a version the wanted one and commit it; gives the commit's short name."""
        version = artefact.version
        (self.folder / "models" / f"{version}.onnx").write_bytes(artefact.content)
        self._edit("kustomization.yaml", lambda text: with_config_map(text, version))
        self._edit("modeldeployment.yaml", lambda text: with_model(text, version, artefact.sha256))
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", f"digits {version}: {artefact.summary}")
        return self._git("rev-parse", "--short", "HEAD").strip()

    def changes(self) -> str:
        """Give what the latest commit changed in the ModelDeployment; of the first commit, the whole of it."""
        shown = self._git("show", "--format=", "--unified=0", "HEAD", "--", "modeldeployment.yaml")
        lines = [line for line in shown.splitlines() if re.match(r"[-+](?![-+]{2})", line)]
        is_new = not any(line.startswith("-") for line in lines)
        return "\n".join(line.removeprefix("+") if is_new else line for line in lines)

    def _edit(self, name: str, change: Callable[[str], str]) -> None:
        path = self.folder / name
        path.write_text(change(path.read_text()))

    def _git(self, *arguments: str) -> str:
        # A hook that runs the demo must not lend it its own repository.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        try:
            done = subprocess.run(
                ["git", *_WHO, *_PLAIN, *arguments],
                cwd=self.folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise DemoError(
                "There is no `git` on the PATH: install git (apt-get install git)."
            ) from error
        if done.returncode != 0:
            raise DemoError(f"`git {' '.join(arguments)}` failed in {self.folder}.", done.stderr)
        return done.stdout


def with_config_map(text: str, version: str) -> str:
    """Have kustomize make a ConfigMap of a version's file, beside those that are there."""
    entry = f"- {{name: digits-{version}, files: [model.onnx=models/{version}.onnx]}}"
    return text if entry in text.splitlines() else f"{text.rstrip()}\n{entry}\n"


def with_model(text: str, version: str, sha256: str) -> str:
    """Name a version in the ModelDeployment, as text: comments and layout are the team's."""
    text = re.sub(r"^ *sha256: .*\n", "", text, flags=re.M)
    uri = rf"\g<1>uri: configmap://digits-{version}/model.onnx\n\g<1>sha256: {sha256}"
    text = re.sub(r"^( +)uri: .*$", uri, text, count=1, flags=re.M)
    return re.sub(r"^( +)version: .*$", rf"\g<1>version: {version}", text, count=1, flags=re.M)
