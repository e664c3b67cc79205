"""`rollout.fixed` as values: which versions a spec names, and what the status makes of each.

Pure arithmetic on a status, for the plan as well as for the rules in `rollout.fixed`. A version is a name under which
some revision serves; `main` is the one of `spec.model`, whose revision is the stable one of the status.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from canarium_api.fixed import MAIN
from canarium_api.status import ModelDeploymentStatus, VersionState, VersionStatus
from canarium_api.v1alpha1 import AutoscalingSpec, ModelDeploymentSpec
from canarium_operator.core.revision import Revision, variant_of

ALL: Final = 100


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version as the spec asks for it."""

    name: str
    revision: Revision
    weight: int
    """Percent."""


def versions_of(spec: ModelDeploymentSpec, main: Revision) -> tuple[Version, ...]:
    """Give the versions that a spec names, `main` first with what the others leave; none without `rollout.fixed`.

    Args:
        spec: names them.
        main: the revision of `spec.model`; the others have its serving configuration and image.
    """
    fixed = spec.rollout.fixed
    if fixed is None:
        return ()
    named = [
        Version(
            name=version.name,
            revision=variant_of(
                spec,
                main.image,
                uri=version.model.uri,
                sha256=version.model.sha256,
                version=version.model.version,
            ),
            weight=version.weight,
        )
        for version in fixed.versions
    ]
    rest = ALL - sum(version.weight for version in named)
    return (Version(name=MAIN, revision=main, weight=rest), *named)


def shares(versions: Sequence[VersionStatus]) -> dict[str, int]:
    """Add up what the route gives to each revision, without zeros; two names may have one revision for a while."""
    found: dict[str, int] = {}
    for version in versions:
        if version.revision and version.weight > 0:
            found[version.revision] = found.get(version.revision, 0) + version.weight
    return found


def is_pending(version: VersionStatus) -> bool:
    """Tell whether a version is on its way to what the spec asks for."""
    return version.next is not None or version.weight != version.wanted_weight


def is_settled(versions: Sequence[VersionStatus]) -> bool:
    """Tell whether every version serves what the spec asks for."""
    serving = all(version.state is VersionState.SERVING for version in versions)
    return serving and not any(map(is_pending, versions))


def running(versions: Sequence[VersionStatus], scaling: AutoscalingSpec) -> dict[str, int]:
    """Give the revisions that must run, with their fewest pods.

    Each has at least `minReplicas`, since it serves for good; more while weights move.
    """
    sizes: dict[str, int] = {}
    for version in versions:
        following = version.next.revision if version.next is not None else ""
        for revision in filter(None, (version.revision, following)):
            size = max(scaling.min_replicas, version.needed_replicas)
            sizes[revision] = max(size, sizes.get(revision, 0))
    return sizes


def pods_for(total: int, percent: int, scaling: AutoscalingSpec) -> int:
    """Pods that a share of the traffic needs, if all of it needs `total`; within the bounds of the autoscaler.

    12 pods for all: 30 % needs 4, with `minReplicas` 3 and `maxReplicas` 20.
    """
    share = math.ceil(total * percent / ALL)
    return max(scaling.min_replicas, min(share, scaling.max_replicas))


def revisions_of(versions: Sequence[VersionStatus]) -> frozenset[str]:
    """Name every revision that serves or comes up under some name."""
    found = {version.revision for version in versions}
    found |= {version.next.revision for version in versions if version.next is not None}
    return frozenset(found - {""})


def words(status: ModelDeploymentStatus) -> str:
    """Write `main 70%, eu 30%`."""
    return ", ".join(f"{version.name} {version.weight}%" for version in status.versions)
