"""Slots: sixteen clusters whose addresses never meet."""

import ipaddress
import itertools

import pytest

from canarium_devcluster import addresses
from canarium_devcluster.errors import DevclusterError


def net(text: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(text)


def test_the_worked_example_of_slot_two() -> None:
    """The module's docstring tells the truth."""
    slot = addresses.Addresses(2)
    assert [str(n) for n in slot.networks] == ["10.99.2.0/30", "10.244.32.0/20", "10.96.32.0/20"]
    assert (slot.host_ip, slot.node_ip, slot.dns_ip) == ("10.99.2.1", "10.99.2.2", "10.96.32.10")


def test_no_two_slots_overlap() -> None:
    """Any two clusters can run at once."""
    for one, other in itertools.combinations(range(addresses.SLOTS), 2):
        for a in addresses.Addresses(one).networks:
            assert not any(a.overlaps(b) for b in addresses.Addresses(other).networks)


def test_fixed_service_addresses_lie_where_none_is_given_out() -> None:
    """Kubernetes hands out addresses above the first 256 of a /20 first."""
    slot = addresses.Addresses(15)
    fixed = (slot.api_service_ip, slot.dns_ip, slot.gateway_ip, slot.prometheus_ip)
    for ip in (*fixed, slot.gateway_beside_ip):
        assert int(ipaddress.IPv4Address(ip)) - int(slot.services[0]) < 256


@pytest.mark.parametrize(
    ("taken", "routes", "expected"),
    [
        (set(), [], 0),
        ({0, 1}, [], 2),
        (set(), ["10.99.0.0/30"], 1),
        (set(), ["10.96.0.0/16"], None),
        (set(), ["10.244.0.0/17"], 8),
        (set(), ["0.0.0.0/0", "192.168.0.0/16"], 0),
    ],
)
def test_the_first_free_slot_is_taken(
    taken: set[int], routes: list[str], expected: int | None
) -> None:
    """Neither another cluster nor a route of the machine may be in the way."""
    if expected is None:
        with pytest.raises(DevclusterError, match="are taken on this machine"):
            addresses.pick_slot(taken, map(net, routes))
    else:
        assert addresses.pick_slot(taken, map(net, routes)) == expected


def test_routes_are_read_from_the_kernel(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Destination and mask are little-endian hexadecimal in /proc/net/route."""
    table = tmp_path / "route"
    table.write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
        "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\n"
        "cn-a\t0010600A\t0200630A\t0003\t0\t0\t0\t00F0FFFF\n"
    )
    assert addresses.machine_routes(table) == [net("0.0.0.0/0"), net("10.96.16.0/20")]
