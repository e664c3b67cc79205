"""Where things lie: sources in the checkout, builds in the cache, clusters in the state directory.

The cache belongs to the user and survives clones; the state belongs to root and to one cluster.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from canarium_devcluster.errors import DevclusterError

DEFAULT_STATE = "/var/lib/canarium/clusters"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The three roots that everything else hangs from."""

    source: Path
    cache: Path
    state: Path

    @property
    def checkout(self) -> Path:
        """The repository's root."""
        return self.source.parent

    @property
    def build_logs(self) -> Path:
        """Logs of builds, one file a step, overwritten by the next."""
        return self.cache / "logs"


def find() -> Layout:
    """Look at the environment; the sources are beside this package."""
    source = Path(__file__).resolve().parent.parent
    if not (source / "go.mod").exists():
        raise DevclusterError(
            "The cluster's Go sources are not beside this package",
            "install canarium from a checkout with `pip install -e .`",
        )
    cache_home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Layout(
        source=source,
        cache=Path(cache_home) / "canarium" / "devcluster",
        state=Path(os.environ.get("CANARIUM_STATE_DIR") or DEFAULT_STATE),
    )
