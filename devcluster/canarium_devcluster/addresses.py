"""Addresses of a cluster, all derived from one number, its slot.

Sixteen slots share the ranges that single-node clusters use by habit. Worked example, slot 2: host
link 10.99.2.0/30, pods 10.244.32.0/20, services 10.96.32.0/20, DNS 10.96.32.10.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Collection, Iterable
from pathlib import Path

from canarium_devcluster.errors import DevclusterError

SLOTS = 16
LINK_PREFIX = 30
RANGE_PREFIX = 20

# Below the first 256 addresses of the service range, which are not given out automatically.
_API, _DNS, _GATEWAY, _GATEWAY_BESIDE, _PROMETHEUS = 1, 10, 80, 81, 90


@dataclasses.dataclass(frozen=True)
class Addresses:
    """What slot number ``slot`` uses."""

    slot: int

    def __post_init__(self) -> None:
        if not 0 <= self.slot < SLOTS:
            raise ValueError(f"slot {self.slot} is not in 0..{SLOTS - 1}")

    @property
    def link(self) -> ipaddress.IPv4Network:
        """The veth pair between machine and node."""
        return ipaddress.IPv4Network(f"10.99.{self.slot}.0/{LINK_PREFIX}")

    @property
    def pods(self) -> ipaddress.IPv4Network:
        """Addresses of pods."""
        return ipaddress.IPv4Network(f"10.244.{16 * self.slot}.0/{RANGE_PREFIX}")

    @property
    def services(self) -> ipaddress.IPv4Network:
        """Addresses of Services."""
        return ipaddress.IPv4Network(f"10.96.{16 * self.slot}.0/{RANGE_PREFIX}")

    @property
    def host_ip(self) -> str:
        """The machine, as pods see it."""
        return str(self.link[1])

    @property
    def node_ip(self) -> str:
        """The node and its API server."""
        return str(self.link[2])

    @property
    def api_service_ip(self) -> str:
        """The ``kubernetes`` Service."""
        return str(self.services[_API])

    @property
    def dns_ip(self) -> str:
        """CoreDNS."""
        return str(self.services[_DNS])

    @property
    def gateway_ip(self) -> str:
        """The ``public`` Gateway."""
        return str(self.services[_GATEWAY])

    @property
    def gateway_beside_ip(self) -> str:
        """The Gateway that ``--also`` adds."""
        return str(self.services[_GATEWAY_BESIDE])

    @property
    def prometheus_ip(self) -> str:
        """The ``prometheus`` Service."""
        return str(self.services[_PROMETHEUS])

    @property
    def networks(self) -> tuple[ipaddress.IPv4Network, ...]:
        """All ranges that must be free on the machine."""
        return (self.link, self.pods, self.services)


def pick_slot(taken: Collection[int], routes: Iterable[ipaddress.IPv4Network]) -> int:
    """The first slot that no cluster has and whose ranges no route of the machine touches."""
    known = [r for r in routes if r.prefixlen > 0]  # the default route touches everything
    for slot in range(SLOTS):
        if slot in taken:
            continue
        wanted = Addresses(slot).networks
        if not any(w.overlaps(r) for w in wanted for r in known):
            return slot
    raise DevclusterError(
        f"All {SLOTS} address ranges for clusters are taken on this machine",
        "remove a cluster with `canarium cluster down --name NAME --purge`",
    )


def machine_routes(table: Path = Path("/proc/net/route")) -> list[ipaddress.IPv4Network]:
    """The machine's IPv4 routes, read from the kernel so that no tool is needed."""
    routes = []
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        routes.append(ipaddress.IPv4Network((destination, mask.bit_count())))
    return routes
