"""What all generators of committed files end with: write the files, or with `--check` compare them.

They are `canarium_api.crdgen`, `canarium_runtime.rpc.protogen`, `docs/generate.py` and `manifests/argocd/generate.py`;
`make generate` and `make verify` run them. A file that is not made any more is not removed.
"""

import sys
from collections.abc import Mapping
from pathlib import Path


def write_or_compare(files: Mapping[Path, str], *, root: Path, source: str, check: bool) -> int:
    """Write the files that are not what they should be, or only name them; gives the exit status.

    Args:
        files: content by path.
        root: a folder above them; what is printed names them from there.
        source: who says what they should be, with the verb: `the code says`.
        check: compare only, and fail where a file differs.
    """
    stale = [path for path, content in files.items() if not _holds(path, content)]
    for path in stale:
        name = path.relative_to(root)
        if check:
            remedy = "run make generate and commit the result"
            print(f"{name} is not what {source}: {remedy}", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], encoding="utf-8")
            print(f"wrote {name}")
    return 1 if check and stale else 0


def _holds(path: Path, content: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == content
