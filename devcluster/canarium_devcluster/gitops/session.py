"""`canarium cluster gitops`: a git server for this machine, and Flux that applies what is pushed to it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from canarium_devcluster.cluster import Cluster, locked
from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.gitops import flux
from canarium_devcluster.gitops.controller import controller, install_crds
from canarium_devcluster.gitops.git_server import git_server, make_repository
from canarium_devcluster.gitops.source import POLL_SECONDS, source
from canarium_devcluster.kube import Api
from canarium_devcluster.workshop import Workshop

DEFAULT_PORT: Final = 8418
_LOCK_SECONDS: Final = 0.5


def serve(workshop: Workshop, mine: Cluster, names: Sequence[str], port: int) -> None:
    """Serve repositories and run Flux until interrupted.

    Args:
        workshop: builds Flux's controller, once.
        mine: the cluster, which must run.
        names: of the repositories; those that are new are made, and all stay when this ends.
        port: of the git server, on loopback.

    Raises:
        DevclusterError: the cluster does not run, the port is taken, this runs for the cluster already, or a part
            of it has ended.
    """
    if mine.node() is None:
        raise DevclusterError(
            f"The cluster '{mine.name}' does not run",
            f"start it with `canarium cluster up --name {mine.name}`",
        )
    root = mine.directory / "git"
    root.mkdir(exist_ok=True)
    for name in names:
        make_repository(root, name)
    with contextlib.ExitStack() as parts:
        try:
            parts.enter_context(locked(root / ".session.lock", patience_seconds=_LOCK_SECONDS))
        except DevclusterError as problem:
            raise DevclusterError(
                f"`canarium cluster gitops` runs already for the cluster '{mine.name}'",
                "end that one first; one serves any number of repositories",
            ) from problem
        try:
            address = parts.enter_context(git_server(root, port))
        except OSError as problem:
            raise DevclusterError(
                f"Port {port} of 127.0.0.1 cannot be used ({problem.strerror})",
                "name another with --port",
            ) from problem
        _run(workshop, mine, names, address, parts)


def _run(
    workshop: Workshop,
    mine: Cluster,
    names: Sequence[str],
    address: str,
    parts: contextlib.ExitStack,
) -> None:
    say = workshop.progress.say
    program = flux.controller(workshop)
    api = Api(mine.kubeconfig)
    install_crds(api, flux.crds(workshop))
    mirrors = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="canarium-git-")))
    sources = []
    for name in names:
        url = f"{address}/{name}.git"

        def tell(commit: str, subject: str, name: str = name) -> None:
            say(f"{time.strftime('%H:%M:%S')}  {name}  {commit[:8]}  {subject}")

        sources.append(parts.enter_context(source(api, url, mirrors / name, tell)))
        say(f"{name}: {url}")
    # Before Flux starts: it would wait for minutes for archives at the address that the last session had.
    for each in sources:
        each.looked.wait()
    log = mine.logs / "kustomize-controller.log"
    running = parts.enter_context(controller(mine.kubeconfig, program, log))
    say(f"Flux applies what is pushed to `main`. Its log: {log}")
    say("Ctrl-C ends this; the repositories stay.")
    while True:
        running.part.check()
        for each in sources:
            if each.problem is not None:
                raise DevclusterError(f"A repository can no longer be read: {each.problem}")
        time.sleep(POLL_SECONDS)
