"""Install torch for tests on a CPU: torch itself, without the CUDA libraries that it is linked with.

torch's wheel for Linux on the package index is made for GPUs and needs 2.2 GB more of downloads to be imported at all.
A CPU never calls those libraries, so they are replaced by empty ones of the same names, whose functions end the
process. This is for tests alone: an image that serves torch models installs torch as its makers say (docs/howto).
A torch that can be imported already is left as it is.
"""

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
LIBRARIES: Final = re.compile(r"lib(cu|nv|nccl)\w*\.so")
REAL: Final = re.compile(r"lib(cudart|cupti|cuda)\.so")
"""Small enough to be installed: the runtime, so that torch asks it for GPUs and hears that there is none. libcuda is
the driver, which is looked for only where there is a GPU."""
FUNCTION: Final = re.compile(
    r"\s[Uw] (_*(?:cublas|cudnn|cufft|cusparse|cusolver|cuFile|nccl|nvrtc|nvshmem|nvJitLink)\w*)"
)


def main() -> int:
    """Install what is missing; the exit code."""
    if _works():
        return 0
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", f"torch=={_version()}"], check=True)
    if not _works():
        compiler = shutil.which("cc")
        if compiler is None:
            print(
                "torch needs a C compiler for its tests on a CPU: install cc (Debian: gcc), or install torch with the "
                "libraries for GPUs (pip install torch)",
                file=sys.stderr,
            )
            return 1
        _stand_ins(Path(sysconfig.get_path("purelib")) / "torch", compiler)
    probe = _import()
    print(probe.stderr, file=sys.stderr, end="")
    return probe.returncode


def _version() -> str:
    """The version that the constraints pin."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    found = re.search(r"^torch==(\S+)", pins, re.M)
    assert found is not None
    return found[1]


def _import() -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "import torch; torch.ones(1)"]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def _works() -> bool:
    return _import().returncode == 0


def _stand_ins(package: Path, compiler: str) -> None:
    """Put an empty library into torch's own folder for each that is missing."""
    files = [*package.glob("lib/*.so*"), *package.glob("_C*.so")]
    present = {file.name for file in files}
    needed: set[str] = set()
    functions: set[str] = set()
    for file in files:
        needed |= set(re.findall(r"NEEDED.*\[(.*)\]", _output("readelf", "-dW", str(file))))
        functions |= set(FUNCTION.findall(_output("nm", "-D", "--undefined-only", str(file))))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.c"
        bodies = "".join(f"void {name}(void) {{ abort(); }}\n" for name in sorted(functions))
        source.write_text(f"#include <stdlib.h>\n{bodies}")
        for name in sorted(needed - present):
            if LIBRARIES.match(name) and not REAL.match(name):
                target = ["-o", str(package / "lib" / name), f"-Wl,-soname,{name}"]
                command = [compiler, "-shared", "-fPIC", "-O0", *target, str(source)]
                subprocess.run(command, check=True)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
