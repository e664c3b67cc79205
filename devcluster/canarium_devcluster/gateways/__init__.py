"""Gateway implementations, exchangeable: a name, images, manifests, a class.

To add one: write a module with a ``Gateway`` value and put it into ``REGISTRY``. Its manifests
must bring a GatewayClass of that name, pods labelled ``app: gateway`` and the Service ``gateway``
in the namespace ``canarium-gateway`` at the address ``@GATEWAY_IP@``, which its Gateway's status
must show. The Gateway ``public`` itself is common to all (manifests/gateway.yaml).
"""

from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.gateways.base import Gateway
from canarium_devcluster.gateways.traefik import TRAEFIK

REGISTRY = {g.name: g for g in (TRAEFIK,)}
DEFAULT = TRAEFIK.name


def get(name: str) -> Gateway:
    """The implementation of that name."""
    if name not in REGISTRY:
        raise DevclusterError(f"There is no gateway '{name}'", f"use one of {', '.join(REGISTRY)}")
    return REGISTRY[name]


__all__ = ["DEFAULT", "REGISTRY", "Gateway", "get"]
