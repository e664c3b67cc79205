"""Puts images into a running cluster's containerd, and only what it does not have yet."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from pathlib import Path

from canarium_devcluster.cluster import Cluster
from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.images import Image

_IMPORT_SECONDS = 300


def wait_until_listening(cluster: Cluster, seconds: float = 30) -> None:
    """Wait for containerd after a start."""
    deadline = time.monotonic() + seconds
    while subprocess.run(_ctr(cluster, "version"), capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise DevclusterError(
                "containerd does not answer",
                f"read `canarium cluster logs containerd --name {cluster.name}`",
            )
        time.sleep(0.1)


def load_images(cluster: Cluster, images: list[Image]) -> list[str]:
    """Import those of the images that changed; returns their names."""
    present = _present(cluster)
    changed = [i for i in images if present.get(i.name) != i.digest]
    known = _known_blobs(cluster) if changed else set()
    for image in changed:
        _import(cluster, image, known)
    return [i.name for i in changed]


def load_archive(cluster: Cluster, archive: Path) -> None:
    """Import an OCI or docker archive that somebody else made."""
    with archive.open("rb") as data:
        done = subprocess.run(
            _ctr(cluster, "images", "import", "-"),
            stdin=data,
            capture_output=True,
            text=True,
            timeout=_IMPORT_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        raise _failed(str(archive), done.stderr)


def _import(cluster: Cluster, image: Image, known: set[str]) -> None:
    with subprocess.Popen(
        _ctr(cluster, "images", "import", "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        if process.stdin is None or process.stderr is None:
            raise AssertionError("opened with pipes")
        watchdog = threading.Timer(_IMPORT_SECONDS, process.kill)
        watchdog.start()
        try:
            # A broken pipe means that it failed; the reason is on its standard error.
            with contextlib.suppress(BrokenPipeError), process.stdin as out:
                image.write_archive(out, known=known)
            problem = process.stderr.read().decode(errors="replace")
            if process.wait() != 0:
                raise _failed(image.name, problem)
        finally:
            watchdog.cancel()


def _failed(what: str, problem: str) -> DevclusterError:
    return DevclusterError(
        f"containerd did not take {what}", "read `canarium cluster logs containerd`", problem
    )


def _present(cluster: Cluster) -> dict[str, str]:
    """Name and digest of each image."""
    rows = [line.split() for line in _ask(cluster, "images", "ls").splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def _known_blobs(cluster: Cluster) -> set[str]:
    return set(_ask(cluster, "content", "ls", "-q").split())


def _ask(cluster: Cluster, *arguments: str) -> str:
    done = subprocess.run(_ctr(cluster, *arguments), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise _failed("a question", done.stderr)
    return done.stdout


def _ctr(cluster: Cluster, *arguments: str) -> list[str]:
    socket = str(cluster.containerd_socket)
    return [str(cluster.bin / "ctr"), "--address", socket, "--namespace", "k8s.io", *arguments]
