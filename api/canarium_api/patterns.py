"""Patterns that several fields share."""

from typing import Final

MODEL_URI_PATTERN: Final = (
    r"^(https?://[^/]+/.+|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+|"
    r"configmap://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/.+|file:///.+)$"
)
"""`model.uri`: https and http, a volume claim, a ConfigMap, or a file of the image."""
VERSION_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
