"""`spec.serving.fallbacks`: who answers when the model does not."""

from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from canarium_api.base import ApiModel, rules
from canarium_api.duration import Duration
from canarium_api.patterns import FALLBACK_URL_PATTERN, VERSION_PATTERN

FixedOutputs = Annotated[
    dict[str, Any],
    Field(json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""One row of each output, by name."""


class FallbackSpec(ApiModel):
    """One who stands in for the model: exactly one of `model`, `url` and `outputs`."""

    model_config = rules(
        (
            "[has(self.model), has(self.url), has(self.outputs)].filter(set, set).size() == 1",
            "serving.fallbacks[] is exactly one of model, url and outputs: set one, remove the others",
        ),
        (
            "!has(self.version) || has(self.model)",
            "serving.fallbacks[].version is that of serving.fallbacks[].model: set model, or remove version",
        ),
    )

    model: str | None = Field(default=None, min_length=1, max_length=63, pattern=VERSION_PATTERN)
    """Name of one of `serving.models` that takes the same inputs."""
    version: str | None = Field(default=None, min_length=1, max_length=63, pattern=VERSION_PATTERN)
    """Its version. Default: the first that `serving.models` lists."""
    url: str | None = Field(default=None, max_length=2048, pattern=FALLBACK_URL_PATTERN)
    """V2 infer URL of another server, such as `https://models.eu.example.com/v2/models/fraud/infer`."""
    timeout: Duration = timedelta(seconds=5)
    """Longest wait for that server."""
    outputs: FixedOutputs | None = None
    """A fixed answer: one row of each output, by name."""
