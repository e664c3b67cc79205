"""Gateway implementations: a name, images, manifests, a class.

``REGISTRY`` holds those that can serve the Gateway ``public``; a cluster has exactly one of them.
To add one: write a module with a ``Gateway`` value and put it there. Its manifests must bring a
GatewayClass of that name, pods labelled ``app: gateway`` and the Service ``gateway`` in the
namespace ``canarium-gateway`` at the address ``@GATEWAY_IP@``, which its Gateway's status must
show. The Gateway ``public`` itself is common to all (manifests/gateway.yaml).

``BESIDE`` holds those that a cluster gets only when asked (``--also``), each with a Gateway of its
own name in the same namespace, for what the one of ``public`` cannot do.
"""

from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.gateways.base import Gateway
from canarium_devcluster.gateways.envoy import ENVOY
from canarium_devcluster.gateways.traefik import TRAEFIK

REGISTRY = {g.name: g for g in (TRAEFIK,)}
BESIDE = {g.name: g for g in (ENVOY,)}
DEFAULT = TRAEFIK.name


def get(name: str) -> Gateway:
    """The implementation of that name, to serve ``public``."""
    if name not in REGISTRY:
        hint = f"use one of {', '.join(REGISTRY)}"
        if name in BESIDE:
            hint += f", or `--also {name}` to have it beside that one"
        raise DevclusterError(f"There is no gateway '{name}'", hint)
    return REGISTRY[name]


def beside(name: str) -> Gateway:
    """The implementation of that name, with a Gateway of its own."""
    if name not in BESIDE:
        raise DevclusterError(
            f"There is no gateway '{name}' to have beside another",
            f"use one of {', '.join(BESIDE)}",
        )
    return BESIDE[name]


__all__ = ["BESIDE", "DEFAULT", "REGISTRY", "Gateway", "beside", "get"]
