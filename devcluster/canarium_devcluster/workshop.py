"""Everything that builds, bundled for those who need several of its parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from canarium_devcluster import cache, images, layout
from canarium_devcluster.binaries import Builder
from canarium_devcluster.progress import Progress
from canarium_devcluster.python_image import PythonImages

COMPONENT_IMAGES = "canarium.dev/devcluster"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workshop:
    """Paths, cache, console and builders."""

    layout: layout.Layout
    cache: cache.Cache
    progress: Progress
    builder: Builder
    python_images: PythonImages

    def binary_image(self, name: str, binary: Path, key: str) -> images.Image:
        """An image that holds one static binary; its tag follows its content."""
        return self.files_image(name, [(binary, f"/{name}")], key)

    def files_image(
        self, name: str, contents: Sequence[tuple[Path, str]], key: str
    ) -> images.Image:
        """An image of (file, place); its tag follows its content, the entrypoint is ``/name``."""

        def fill(target: Path) -> None:
            images.write_layer(target, contents)

        layer = images.read_layer(self.cache.get_or_make(f"layer-{name}", key, fill))
        tag = layer.digest.partition(":")[2][:12]
        return images.Image(
            name=f"{COMPONENT_IMAGES}/{name}:{tag}", layers=(layer,), entrypoint=(f"/{name}",)
        )

    def component_image(self, name: str) -> images.Image:
        """The image of a binary that we build from Go."""
        folder = self.builder.ensure_named(name)
        return self.binary_image(name, folder / name, folder.name)


def open_workshop(console: Console | None = None) -> Workshop:
    """The workshop of this checkout and this user."""
    where = layout.find()
    store = cache.Cache(where.cache)
    progress = Progress(console or Console(), store)
    return Workshop(
        layout=where,
        cache=store,
        progress=progress,
        builder=Builder(where, store, progress),
        python_images=PythonImages(where, store, progress),
    )
