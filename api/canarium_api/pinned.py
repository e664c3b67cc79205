"""A model's file as it is named beside `spec.model`: where it is, and which bytes it must be."""

from pydantic import Field

from canarium_api.base import ApiModel
from canarium_api.patterns import MODEL_URI_PATTERN, VERSION_PATTERN


class PinnedModel(ApiModel):
    """The fields; who uses them adds `digest_with_http` to its rules."""

    uri: str = Field(min_length=1, max_length=2048, pattern=MODEL_URI_PATTERN)
    """Where its model is, as `model.uri`."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest of the file."""
    version: str | None = Field(default=None, min_length=1, max_length=63, pattern=VERSION_PATTERN)
    """Version for people. Default: as for `model.version`."""


def digest_with_http(field: str) -> tuple[str, str]:
    """Make the rule that a transport which proves nothing needs a digest.

    Args:
        field: path of the model in the spec, for the message.
    """
    return (
        "!self.uri.startsWith('http://') || has(self.sha256)",
        f"{field}.sha256 is required with an http:// URI: add the digest or use https://",
    )
