// Package config holds the description of one cluster that the launcher writes and the node reads.
//
// Every name and address is a parameter, none is derived here: the launcher is the one that knows
// which addresses are free on this machine, and two clusters must be able to run side by side.
package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Cluster is the launcher's cluster.json.
type Cluster struct {
	Name          string `json:"name"`
	StateDir      string `json:"stateDir"`      // everything that the cluster writes
	BinDir        string `json:"binDir"`        // devcluster, containerd, runc, CNI plugins
	NodeName      string `json:"nodeName"`      // the Kubernetes node, also the sandbox's host name
	HostInterface string `json:"hostInterface"` // host end of the veth pair, at most 15 characters
	Cgroup        string `json:"cgroup"`        // absolute, in every hierarchy: "/canarium-NAME"
	HostIP        string `json:"hostIP"`
	NodeIP        string `json:"nodeIP"` // the API server listens here
	LinkPrefix    int    `json:"linkPrefix"`
	PodCIDR       string `json:"podCIDR"`
	ServiceCIDR   string `json:"serviceCIDR"`
	APIServiceIP  string `json:"apiServiceIP"` // first address of ServiceCIDR
	DNSIP         string `json:"dnsIP"`
	PauseImage    string `json:"pauseImage"`

	// After our own flags, so that they win; for measurements.
	ControllerManagerFlags []string `json:"controllerManagerFlags"`

	File string `json:"-"` // where this was loaded from
}

// Load reads a cluster.json and refuses one with a field missing.
func Load(path string) (Cluster, error) {
	var c Cluster
	data, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	c.File = path
	for field, value := range map[string]string{
		"name": c.Name, "stateDir": c.StateDir, "binDir": c.BinDir, "nodeName": c.NodeName,
		"hostInterface": c.HostInterface, "cgroup": c.Cgroup, "hostIP": c.HostIP,
		"nodeIP": c.NodeIP, "podCIDR": c.PodCIDR, "serviceCIDR": c.ServiceCIDR,
		"apiServiceIP": c.APIServiceIP, "dnsIP": c.DNSIP, "pauseImage": c.PauseImage,
	} {
		if value == "" {
			return c, fmt.Errorf("%s: %s is missing", path, field)
		}
	}
	if !filepath.IsAbs(c.StateDir) || !filepath.IsAbs(c.Cgroup) || c.Cgroup == "/" {
		return c, fmt.Errorf("%s: stateDir and cgroup must be absolute", path)
	}
	return c, nil
}

// Path joins parts under the state directory.
func (c Cluster) Path(parts ...string) string {
	return filepath.Join(append([]string{c.StateDir}, parts...)...)
}

// PKI is the path of a file among the certificates.
func (c Cluster) PKI(name string) string { return c.Path("pki", name) }

// Bin is the path of a binary.
func (c Cluster) Bin(name string) string { return filepath.Join(c.BinDir, name) }

// Kubeconfig is the administrator's kubeconfig.
func (c Cluster) Kubeconfig() string { return c.Path("kubeconfig") }

// ContainerdSocket is visible from the host too: a socket's path is not bound to a namespace.
func (c Cluster) ContainerdSocket() string { return c.Path("containerd", "containerd.sock") }

// APIServer is the URL that host and pods reach the API server under.
func (c Cluster) APIServer() string { return "https://" + c.NodeIP + ":6443" }
