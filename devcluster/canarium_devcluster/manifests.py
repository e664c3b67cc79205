"""Reads the add-ons' manifests and puts names, addresses and images in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_PLACEHOLDER = re.compile(r"@([A-Z_]+)@")


def render(path: Path, values: Mapping[str, str]) -> list[dict[str, Any]]:
    """The documents of one file.

    ``@MANIFEST_HASH@`` becomes the hash of the rest: as an annotation of pods it makes them start
    anew when only a ConfigMap of the same file changed.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            raise KeyError(f"{path.name} wants @{name}@, known are {', '.join(sorted(values))}")
        return values[name]

    template = path.read_text()
    text = _PLACEHOLDER.sub(
        lambda m: m[0] if m[1] == "MANIFEST_HASH" else value(m),
        template,
    )
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    text = text.replace("@MANIFEST_HASH@", digest)
    return [d for d in yaml.safe_load_all(text) if d]
