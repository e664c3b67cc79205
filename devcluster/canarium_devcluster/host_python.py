"""A base layer made of the Python that runs this: interpreter, standard library, shared libraries.

It stands in for a distribution's base image where no registry of images can be reached. The
closure of shared libraries is what the dynamic linker reports; a shell and a few tools are added
for ``kubectl exec``. One limitation: it is as new, and as old, as the machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_TOOLS = ("sh", "ls", "cat", "env", "sleep", "id", "kill")
_SKIPPED_FOLDERS = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "lib2to3",
    "ensurepip",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "pydoc_data",
}
_SKIPPED_FILES = re.compile(r"_tkinter|_test|xxlimited|.*\.pyc$")
# Opened at run time by name, so the linker does not list them; and those of compiled wheels.
_OPENED_LATER = (
    "libstdc++.so.6",
    "libgcc_s.so.1",
    "libnss_dns.so.2",
    "libnss_files.so.2",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libutil.so.1",
)
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def identity() -> str:
    """What the layer's content depends on, for its key."""
    executable = Path(sys.base_prefix, "bin", VERSION).resolve()
    release = Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else ""
    return f"{sys.version} {executable.stat().st_size} {release}"


def fill(root: Path) -> None:
    """Write the root file system of the layer into the folder ``root``."""
    prefix = Path(sys.base_prefix).resolve()
    programs = [*_standard_library(root, prefix), prefix / "bin" / VERSION]
    _copy(prefix / "bin" / VERSION, root / "usr/local/bin" / VERSION)
    for name in ("python3", "python"):
        (root / "usr/local/bin" / name).symlink_to(VERSION)
    (root / "usr/local/lib" / VERSION / "site-packages").mkdir(parents=True)
    for tool in _TOOLS:
        found = shutil.which(tool, path="/usr/bin:/bin")
        if found:
            _copy(Path(found), root / "usr/bin" / tool)
            programs.append(Path(found).resolve())
    for name, path in _shared_libraries(programs):
        _copy(path, root / _place_of_library(name, path, prefix))
    compile_folder(root / "usr/local/lib" / VERSION, f"/usr/local/lib/{VERSION}")
    _skeleton(root)


def libraries_of(program: Path) -> list[tuple[Path, str]]:
    """The shared libraries of a program that is no Python: (file, its place in an image).

    The dynamic linker's place is the one that programs name, ``/lib64``.
    """
    listing = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True)
    found = []
    for name, path in re.findall(r"(?:(\S+) => )?(/\S+) \(0x", listing.stdout):
        place = path if not name else f"/lib/x86_64-linux-gnu/{name}"
        found.append((Path(path).resolve(), place))
    return found


def _standard_library(root: Path, prefix: Path) -> list[Path]:
    """Copy it; returns the compiled modules, whose libraries are needed too."""
    library = prefix / "lib" / VERSION
    modules = []
    for folder, folders, files in os.walk(library):
        folders[:] = [
            f for f in folders if f not in _SKIPPED_FOLDERS and not f.startswith("config-")
        ]
        for name in files:
            if _SKIPPED_FILES.match(name):
                continue
            source = Path(folder, name)
            _copy(source, root / "usr/local/lib" / VERSION / source.relative_to(library))
            if ".so" in name:
                modules.append(source)
    return modules


def _shared_libraries(programs: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Name and file of everything that the programs are linked against."""
    cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True)
    known = dict(re.findall(r"^\s+(\S+) \(libc6,x86-64.*?\) => (\S+)$", cache.stdout, re.M))
    needed = {name: known[name] for name in _OPENED_LATER if name in known}
    listing = subprocess.run(
        ["ldd", *map(str, programs), *needed.values()], capture_output=True, text=True, check=False
    )
    for name, path in re.findall(r"(?:(\S+) => )?(/\S+) \(0x", listing.stdout):
        needed[name or path] = path
    return ((name, Path(path)) for name, path in sorted(needed.items()))


def _place_of_library(name: str, path: Path, prefix: Path) -> str:
    if name.startswith("/lib64"):
        return f"usr{name}"  # the dynamic linker itself
    if name.startswith("/"):
        return name.lstrip("/")
    return f"usr/local/lib/{name}" if path.is_relative_to(prefix) else f"{_LIBRARIES}/{name}"


def _skeleton(root: Path) -> None:
    for link in ("bin", "lib", "lib64"):
        (root / "usr" / link).mkdir(parents=True, exist_ok=True)
        (root / link).symlink_to(f"usr/{link}")
    for folder in ("etc/ssl/certs", "proc", "sys", "dev", "run", "home/app", "var/tmp", "tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for shared in ("tmp", "var/tmp"):
        (root / shared).chmod(0o1777)
    (root / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\napp:x:65532:65532::/home/app:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\napp:x:65532:\n")
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    if _CERTIFICATES.exists():
        _copy(_CERTIFICATES, root / "etc/ssl/certs" / _CERTIFICATES.name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source.resolve(), target)


def compile_folder(folder: Path, place: str) -> None:
    """Compile once here, since a pod with a read-only root would do it at each start.

    ``unchecked-hash``: the files' times are zeroed in the layer and could not be compared.
    """
    subprocess.run(
        [
            *(sys.executable, "-m", "compileall", "-q", "-j", "0"),
            *("--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", place, str(folder)),
        ],
        check=False,  # a few packages ship files for other versions of Python
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
