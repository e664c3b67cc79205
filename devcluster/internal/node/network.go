package node

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"

	"canarium.dev/devcluster/internal/config"
)

const nodeInterface = "eth0"

// connectHost joins machine and node by a veth pair, and routes the pod and service ranges
// through it. The routes go when the interface goes.
func connectHost(c config.Cluster, nodePID int) error {
	pair := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: c.HostInterface},
		PeerName:  nodeInterface, PeerNamespace: netlink.NsPid(nodePID),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("veth pair %s: %w", c.HostInterface, err)
	}
	link, err := netlink.LinkByName(c.HostInterface)
	if err != nil {
		return err
	}
	if err := address(link, c.HostIP, c.LinkPrefix); err != nil {
		return err
	}
	for _, cidr := range []string{c.PodCIDR, c.ServiceCIDR} {
		_, destination, err := net.ParseCIDR(cidr)
		if err != nil {
			return err
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: destination, Gw: net.ParseIP(c.NodeIP)}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("route to %s: %w", cidr, err)
		}
	}
	return nil
}

// disconnectHost removes the pair, and with it addresses and routes. It is usually gone already:
// a network namespace takes its interfaces along, but some time after its last process.
func disconnectHost(c config.Cluster) error {
	link, err := netlink.LinkByName(c.HostInterface)
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if _, again := netlink.LinkByName(c.HostInterface); errors.As(again, &notFound) {
		return nil
	}
	return err
}

// configureNetwork is the node's side.
func configureNetwork(c config.Cluster) error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return err
	}
	link, err := netlink.LinkByName(nodeInterface)
	if err != nil {
		return err
	}
	if err := address(link, c.NodeIP, c.LinkPrefix); err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(c.HostIP)}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return err
	}
	// Only there when the bridge netfilter module is loaded.
	os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0o644)
	return nil
}

func address(link netlink.Link, ip string, prefix int) error {
	parsed, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", ip, prefix))
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, parsed); err != nil {
		return fmt.Errorf("address %s: %w", parsed, err)
	}
	return netlink.LinkSetUp(link)
}
