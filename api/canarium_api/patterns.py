"""Patterns that several fields share."""

import re
from typing import Final

MODEL_URI_PATTERN: Final = (
    r"^(https?://[^/]+/.+|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+|"
    r"configmap://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+|file:///.+)$"
)
"""`model.uri`: https and http, a volume claim, a ConfigMap, or a file of the image."""
VERSION_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
FALLBACK_URL_PATTERN: Final = r"^https?://([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[^\s?#@]+)?/v2/models/[^\s?#@]+/infer$"
"""V2 infer URL of another server, without a user or password, which would stand in a ConfigMap."""
MAX_PORT: Final = 65535


def port_of(url: str) -> int:
    """Give the port that a URL names; 0: none, or one that is no number."""
    found = re.match(r"^[a-z]+://[^/]*:([0-9]+)(?:/|$)", url)
    return int(found[1]) if found else 0
