"""Revisions: which changes of a spec make a new version of what is served, and how it is named.

A revision is the hash of everything that decides a prediction or its latency: the model's bytes, the runtime
image and the whole serving configuration. Autoscaling, traffic and rollout settings are not part of it: they
change in place, without a canary.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from canarium_api.base import ApiModel
from canarium_api.v1alpha1 import ModelDeploymentSpec, ModelSpec, ServingSpec

HASH_LENGTH = 10


@dataclass(frozen=True, kw_only=True)
class Revision:
    """One immutable version: its name and what it is made from."""

    name: str
    """Hash, HASH_LENGTH hex characters; part of the names of all its objects."""
    model: ModelSpec
    serving: ServingSpec
    image: str
    """Runtime image, resolved."""

    @property
    def model_version(self) -> str:
        """Version for people."""
        return self.model.version or self._fallback_version

    @property
    def _fallback_version(self) -> str:
        seed = self.model.sha256 or hashlib.sha256(self.model.uri.encode()).hexdigest()
        return seed[:8]

    @property
    def display(self) -> str:
        """`v7@9c1fab12`."""
        version = self.model_version
        return f"{version if version.startswith('v') else 'v' + version}@{self.name[:8]}"

    def to_template(self) -> dict[str, Any]:
        """Render for the revision's ConfigMap, so that the revision outlives the spec that named it."""
        return {
            "model": self.model.to_manifest(),
            "serving": self.serving.to_manifest(),
            "image": self.image,
        }

    @classmethod
    def from_template(cls, name: str, template: dict[str, Any]) -> "Revision":
        """Read back what `to_template` wrote; raises pydantic's ValidationError."""
        return cls(
            name=name,
            model=ModelSpec.from_manifest(template["model"]),
            serving=ServingSpec.from_manifest(template["serving"]),
            image=template["image"],
        )


def revision_of(spec: ModelDeploymentSpec, default_image: str) -> Revision:
    """Name the revision that a spec asks for.

    With a digest, the URI is left out of the hash: moving the same bytes to another bucket is no new revision. The
    number of workers of batch jobs is left out, and so are fields at their default, so that an operator that knows one
    field more names the same revisions as before.
    """
    image = spec.serving.image or default_image
    model = _explicit(spec.model)
    if spec.model.sha256 is not None:
        model.pop("uri")
    serving = _explicit(spec.serving)
    if "jobs" in serving:
        # How many workers there are, and how large, decides no prediction.
        serving["jobs"].pop("workers", None)
    content = {"model": model, "serving": serving, "image": image}
    digest = hashlib.sha256(
        json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()
    return Revision(name=digest[:HASH_LENGTH], model=spec.model, serving=spec.serving, image=image)


def variant_of(
    spec: ModelDeploymentSpec,
    default_image: str,
    *,
    uri: str,
    sha256: str | None,
    version: str | None,
) -> Revision:
    """Name the revision that a spec would ask for with another artefact in its `model`."""
    changes = {"uri": uri, "sha256": sha256, "version": version}
    model = spec.model.model_copy(update=changes)
    return revision_of(spec.model_copy(update={"model": model}), default_image)


def _explicit(part: ApiModel) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
