"""`spec.rollout.fixed`: several versions that serve at once, each with a weight of its own."""

from typing import Final

from pydantic import Field

from canarium_api.base import ApiModel, rules
from canarium_api.matching import HEADER_PATTERN
from canarium_api.pinned import PinnedModel, digest_with_http

MAIN: Final = "main"
"""Name of the version that `spec.model` is."""


class VersionModel(PinnedModel):
    """The artefact of one version; all else is as in `spec.model`."""

    model_config = rules(digest_with_http("rollout.fixed.versions[].model"))


class FixedVersion(ApiModel):
    """One version beside that of `spec.model`."""

    name: str = Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Name in the header, in status and events. `main` is taken: it is `spec.model`."""
    model: VersionModel
    """What it serves, with the `serving` of the spec."""
    weight: int = Field(ge=0, le=99)
    """Percent of the traffic. 0: it is reached by the header alone."""


class FixedSpec(ApiModel):
    """Serve several versions for good. `spec.model` gets what they leave of the traffic."""

    model_config = rules(
        (
            "self.versions.map(v, v.weight).sum() <= 99",
            "rollout.fixed.versions[].weight add up to more than 99: lower them, spec.model gets the rest and needs "
            "at least 1",
        ),
        (
            "self.versions.all(v, self.versions.exists_one(w, w.name == v.name))",
            "rollout.fixed.versions[].name is there twice: give each version a name of its own",
        ),
        (
            "self.versions.all(v, v.name != 'main')",
            "rollout.fixed.versions[].name: main is the version of spec.model: choose another name",
        ),
    )

    versions: list[FixedVersion] = Field(min_length=1, max_length=9)
    """Versions beside that of `spec.model`."""
    header: str = Field(
        default="x-canarium-version", max_length=256, pattern=HEADER_PATTERN[:1] + "(" + HEADER_PATTERN[1:-1] + ")?$"
    )  # fmt: skip
    """Requests with this header, and the name of a version (or `main`) as its value, reach that version. Empty: there
    is no such way."""
