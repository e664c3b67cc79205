"""Writes `open_inference_pb2.py` and its types from `open_inference.proto`; with `--check` it only compares.

The messages get a descriptor pool of their own: other packages of the protocol (tritonclient is one) give theirs the
same names, and a process whose model imports such a package could not load both into the common pool.

It needs grpcio-tools, which the server does not.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from canarium_api.generated import write_or_compare

HERE = Path(__file__).parent
SOURCE = HERE / "open_inference.proto"
_COMMON_POOL = "_descriptor_pool.Default()"
_OWN_POOL = "_descriptor_pool.DescriptorPool()"


def generate() -> dict[Path, str]:
    """Compile the protocol: path to content.

    Raises:
        ValueError: the compiler refuses the source, or writes what we do not know.
    """
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            "protoc",
            f"--proto_path={HERE}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--python_out={folder}",
            f"--pyi_out={folder}",
            SOURCE.name,
        ]
        if protoc.main(arguments):
            msg = f"{SOURCE.name} cannot be compiled: see above"
            raise ValueError(msg)
        made = {path.name: path.read_text(encoding="utf-8") for path in Path(folder).iterdir()}
    module = made["open_inference_pb2.py"]
    if module.count(_COMMON_POOL) != 1:
        msg = f"the compiler's output has no single {_COMMON_POOL}: look how it registers messages now"
        raise ValueError(msg)
    made["open_inference_pb2.py"] = module.replace(_COMMON_POOL, _OWN_POOL)
    return {HERE / name: text for name, text in made.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or check them; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m canarium_runtime.rpc.protogen")
    parser.add_argument(
        "--check", action="store_true", help="compare with the files instead of writing"
    )
    check = parser.parse_args(arguments).check
    return write_or_compare(generate(), root=HERE, source=f"{SOURCE.name} says", check=check)


if __name__ == "__main__":
    sys.exit(main())
