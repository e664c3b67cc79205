"""OCI images straight from files: no docker, no registry, reproducible.

Times and owners are zeroed and order is fixed, so equal files give equal digests. Layers stay
uncompressed: an import is then a plain copy. An image is a few small JSON documents around layers
that lie in the cache; the archive is only written when somebody wants one, and without the layers
that the receiver has.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO, Any

NONROOT = "65532:65532"
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_OCI = "application/vnd.oci.image"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer's tar file and its digest."""

    path: Path
    digest: str
    size_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """A named image; equal content gives an equal digest."""

    name: str
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = NONROOT
    workdir: str = "/"

    @property
    def digest(self) -> str:
        """The manifest's digest, which is the image's identity."""
        return _digest(self._manifest())

    def write_archive(self, out: IO[bytes], *, known: Collection[str] = ()) -> None:
        """Write an OCI archive, leaving out the layers whose digests are in ``known``."""
        config, manifest = self._config(), self._manifest()
        index = {
            "schemaVersion": 2,
            "manifests": [
                {
                    "mediaType": f"{_OCI}.manifest.v1+json",
                    "digest": _digest(manifest),
                    "size": len(manifest),
                    "platform": {"architecture": "amd64", "os": "linux"},
                    "annotations": {
                        "io.containerd.image.name": self.name,
                        "org.opencontainers.image.ref.name": self.name.rpartition(":")[2],
                    },
                }
            ],
        }
        with tarfile.open(fileobj=out, mode="w|") as tar:
            _add_bytes(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add_bytes(tar, "index.json", json.dumps(index).encode())
            for blob in (config, manifest):
                _add_bytes(tar, _blob_name(_digest(blob)), blob)
            for layer in {part.digest: part for part in self.layers}.values():
                if layer.digest not in known:
                    info = tarfile.TarInfo(_blob_name(layer.digest))
                    info.size = layer.size_bytes
                    with layer.path.open("rb") as data:
                        tar.addfile(info, data)

    def _config(self) -> bytes:
        settings: dict[str, Any] = {
            "Env": [f"PATH={_DEFAULT_PATH}", *self.env],
            "WorkingDir": self.workdir,
            "Entrypoint": list(self.entrypoint),
            "User": self.user,
        }
        digests = [part.digest for part in self.layers]
        return _json(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": settings,
                "rootfs": {"type": "layers", "diff_ids": digests},
            }
        )

    def _manifest(self) -> bytes:
        config = self._config()
        return _json(
            {
                "schemaVersion": 2,
                "mediaType": f"{_OCI}.manifest.v1+json",
                "config": {
                    "mediaType": f"{_OCI}.config.v1+json",
                    "digest": _digest(config),
                    "size": len(config),
                },
                "layers": [
                    {
                        "mediaType": f"{_OCI}.layer.v1.tar",
                        "digest": part.digest,
                        "size": part.size_bytes,
                    }
                    for part in self.layers
                ],
            }
        )


def write_layer(target: Path, contents: Iterable[tuple[Path, str]]) -> None:
    """Fill the folder ``target`` with a layer of (file or folder, place in the image)."""
    tar_file = target / "layer.tar"
    made: set[str] = set()
    with tarfile.open(tar_file, "w", format=tarfile.PAX_FORMAT) as tar:
        for source, place in contents:
            _add_parents(tar, place, made)
            _add_tree(tar, source, place.strip("/"), made)
    with tar_file.open("rb") as data:
        digest = f"sha256:{hashlib.file_digest(data, 'sha256').hexdigest()}"
    (target / "layer.digest").write_text(digest)


def read_layer(folder: Path) -> Layer:
    """The layer that ``write_layer`` left in a folder."""
    tar_file = folder / "layer.tar"
    return Layer(
        path=tar_file,
        digest=(folder / "layer.digest").read_text(),
        size_bytes=tar_file.stat().st_size,
    )


def save(image: Image, target: Path) -> Path:
    """Write a complete archive to a file."""
    with target.open("wb") as out:
        image.write_archive(out)
    return target


def _add_parents(tar: tarfile.TarFile, place: str, made: set[str]) -> None:
    parts = place.strip("/").split("/")
    for depth in range(1, len(parts)):
        name = "/".join(parts[:depth])
        if name not in made:
            made.add(name)
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)


def _add_tree(tar: tarfile.TarFile, source: Path, name: str, made: set[str]) -> None:
    if name not in made:
        info = tar.gettarinfo(source, arcname=name or ".")
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        # The image's user is not the one who built it; keep only the executable bit, and the
        # sticky bit of /tmp.
        info.mode = 0o777 | 0o1000 if info.mode & 0o1000 else 0o755 if info.mode & 0o100 else 0o644
        made.add(name)
        if info.isreg():
            with source.open("rb") as data:
                tar.addfile(info, data)
        else:
            tar.addfile(info)
    if source.is_dir() and not source.is_symlink():
        for child in sorted(source.iterdir()):
            _add_tree(tar, child, f"{name}/{child.name}".lstrip("/"), made)


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def copy_or_link(source: Path, target: Path) -> None:
    """A hard link where the file system allows it: large binaries then take no second place."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
