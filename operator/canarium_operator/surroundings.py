"""What a spec refers to besides its own children: analysis templates, and the class of its gateway.

Nothing wakes the operator when they change, so they are read again after a while.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from canarium_operator.core.mirroring import shadowed_gateway
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observation import GatewayClass
from canarium_operator.core.observing import read_gateway_class
from canarium_operator.core.templates import TemplateKey, references_of
from canarium_operator.ports import Cluster

FRESH_FOR: Final = timedelta(seconds=60)
"""An edit counts within this time, and what is missing is looked for again."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """As they were read."""

    templates: Mapping[TemplateKey, Any] = field(default_factory=dict)
    """`.spec` of those that exist."""
    gateway_class: GatewayClass | None = None
    """None: nobody needs to know it, or there is none."""
    template_keys: frozenset[TemplateKey] = frozenset()
    """What was asked for."""
    gateway: tuple[str, str] | None = None
    """Namespace and name of the Gateway whose class was asked for."""
    read_at: datetime | None = None

    @property
    def lack_a_template(self) -> bool:
        """Whether one that the spec names was not there."""
        return self.template_keys != self.templates.keys()


async def look_around(
    cluster: Cluster, ref: ObjectRef, raw: Any, known: Surroundings, now: datetime
) -> Surroundings:
    """Read what a raw `.spec` refers to, where what is known is old, of another spec, or lacks something.

    Raises:
        ClusterError: it cannot be read.
    """
    keys, gateway = references_of(raw), shadowed_gateway(ref, raw)
    if not keys and gateway is None:
        return Surroundings()
    fresh = known.read_at is not None and now < known.read_at + FRESH_FOR
    same = (known.template_keys, known.gateway) == (keys, gateway)
    if fresh and same and not known.lack_a_template:
        return known
    templates = {}
    for cluster_wide, name in sorted(keys):
        found = await cluster.template(None if cluster_wide else ref.namespace, name)
        if found is not None:
            templates[cluster_wide, name] = found.get("spec")
    gateway_class = await cluster.gateway_class(*gateway) if gateway is not None else None
    return Surroundings(
        templates=templates,
        gateway_class=read_gateway_class(gateway_class) if gateway_class is not None else None,
        template_keys=keys,
        gateway=gateway,
        read_at=now,
    )
