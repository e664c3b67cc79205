"""Zip archives of models: unpacked below a folder of their own, never beside it, and never beyond a size."""

import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Final

from canarium_runtime.errors import LoadError

MAX_MEMBERS: Final = 10_000
"""Most files in an archive."""
DAMAGED: Final = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What reading an archive raises when it is damaged, encrypted, or packed by a method that Python does not know."""
_CHUNK_BYTES: Final = 1 << 20
_SYMLINK: Final = stat.S_IFLNK >> 12


def unpack(path: Path, parent: Path, max_bytes: int) -> Path:
    """Unpack a zip archive.

    Args:
        path: the archive, already verified.
        parent: folder below which a fresh one is made.
        max_bytes: most bytes of all files together, as they come out, whatever the archive says of them.

    Returns:
        The fresh folder.

    Raises:
        LoadError: ModelUnreadable, when it is no archive, is damaged, holds a path that leads out of it or a link, or
            is too large.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="model-", dir=parent))
        try:
            with zipfile.ZipFile(path) as archive:
                _unpack(archive, folder, max_bytes)
        except BaseException:
            remove(folder)
            raise
    except DAMAGED as error:
        raise _unreadable(f"it is no sound zip archive ({error})") from error
    except OSError as error:
        raise _unreadable(f"it cannot be unpacked below {parent} ({error.strerror})") from error
    return folder


def remove(folder: Path) -> None:
    """Remove what `unpack` made; what cannot be removed stays until the pod's volume goes."""
    shutil.rmtree(folder, ignore_errors=True)


def _unpack(archive: zipfile.ZipFile, folder: Path, max_bytes: int) -> None:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise _unreadable(f"it has {len(members)} files, more than {MAX_MEMBERS}")
    left_bytes = max_bytes
    for member in members:
        target = folder / _inner(member)
        if member.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, target.open("xb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                left_bytes -= len(chunk)
                if left_bytes < 0:
                    raise _unreadable(f"it unpacks to more than {max_bytes} bytes")
                file.write(chunk)


def _inner(member: zipfile.ZipInfo) -> PurePosixPath:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in member.filename:
        raise _unreadable(f"{member.filename!r} leads out of it")
    if member.external_attr >> 28 == _SYMLINK:
        raise _unreadable(f"{member.filename!r} is a link")
    return name


def _unreadable(why: str) -> LoadError:
    msg = f"the archive is refused: {why}. Make a plain zip archive with the files at its top (zip -r model.zip .)."
    return LoadError("ModelUnreadable", msg, permanent=True)
