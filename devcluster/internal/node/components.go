package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"canarium.dev/devcluster/internal/config"
	"canarium.dev/devcluster/internal/supervise"
)

// components lists what the node runs. All start at once as far as their Ready allows; the
// supervisor restarts what loses a race.
func components(c config.Cluster) []supervise.Process {
	runtime := socketReady(c.ContainerdSocket())
	apiServer := func() func() error { return apiServerReady(c) } // one client for each waiter
	return []supervise.Process{
		{Name: "etcd", Argv: etcd(c)},
		{Name: "kube-apiserver", Argv: apiServerArgs(c), Ready: portReady("127.0.0.1:2379")},
		{Name: "kube-controller-manager", Argv: controllerManager(c), Ready: apiServer()},
		{Name: "kube-scheduler", Argv: scheduler(c), Ready: apiServer()},
		{Name: "containerd", Argv: []string{c.Bin("containerd"), "--config", c.Path("containerd", "config.toml")}},
		{Name: "kubelet", Argv: kubelet(c), Ready: both(runtime, apiServer())},
		{Name: "kube-proxy", Argv: []string{c.Bin("devcluster"), "kube-proxy",
			"--config=" + c.Path("kube-proxy.yaml"), "--hostname-override=" + c.NodeName}, Ready: apiServer()},
	}
}

func etcd(c config.Cluster) []string {
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	return []string{c.Bin("devcluster"), "etcd", "--name=n", "--data-dir=" + c.Path("etcd"),
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=n=" + peer,
		// A development cluster may lose its last second in a power cut; it may not be slow.
		"--unsafe-no-fsync", "--snapshot-count=5000", "--log-level=warn",
		"--auto-compaction-retention=10m"}
}

func apiServerArgs(c config.Cluster) []string {
	return []string{c.Bin("devcluster"), "kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", "--bind-address=0.0.0.0",
		"--advertise-address=" + c.NodeIP, "--service-cluster-ip-range=" + c.ServiceCIDR,
		"--client-ca-file=" + c.PKI("ca.crt"),
		"--tls-cert-file=" + c.PKI("apiserver.crt"), "--tls-private-key-file=" + c.PKI("apiserver.key"),
		"--kubelet-client-certificate=" + c.PKI("apiserver-kubelet.crt"),
		"--kubelet-client-key=" + c.PKI("apiserver-kubelet.key"),
		"--kubelet-certificate-authority=" + c.PKI("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP,Hostname",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.PKI("sa.pub"),
		"--service-account-signing-key-file=" + c.PKI("sa.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--requestheader-client-ca-file=" + c.PKI("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + c.PKI("front-proxy.crt"),
		"--proxy-client-key-file=" + c.PKI("front-proxy.key"),
		"--enable-aggregator-routing=true", "--allow-privileged=true", "--profiling=false",
		"--event-ttl=1h", "--shutdown-delay-duration=0s"}
}

func controllerManager(c config.Cluster) []string {
	kubeconfig := c.PKI("controller-manager.kubeconfig")
	flags := []string{c.Bin("devcluster"), "kube-controller-manager", "--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--leader-elect=false", "--use-service-account-credentials=true",
		"--service-account-private-key-file=" + c.PKI("sa.key"), "--root-ca-file=" + c.PKI("ca.crt"),
		"--cluster-signing-cert-file=" + c.PKI("ca.crt"), "--cluster-signing-key-file=" + c.PKI("ca.key"),
		"--profiling=false", "--bind-address=127.0.0.1", "--node-monitor-grace-period=20s",
		// The CPU that a pod burns while it starts makes an autoscaler overshoot with the
		// defaults, and nobody wants to wait five minutes for a scale-down on a laptop.
		"--horizontal-pod-autoscaler-sync-period=5s",
		"--horizontal-pod-autoscaler-downscale-stabilization=20s",
		"--horizontal-pod-autoscaler-cpu-initialization-period=20s",
		"--horizontal-pod-autoscaler-initial-readiness-delay=5s"}
	return append(flags, c.ControllerManagerFlags...)
}

func scheduler(c config.Cluster) []string {
	kubeconfig := c.PKI("scheduler.kubeconfig")
	return []string{c.Bin("devcluster"), "kube-scheduler", "--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false"}
}

func kubelet(c config.Cluster) []string {
	return []string{c.Bin("devcluster"), "kubelet", "--config=" + c.Path("kubelet.yaml"),
		"--kubeconfig=" + c.PKI("kubelet.kubeconfig"), "--root-dir=/var/lib/kubelet",
		"--hostname-override=" + c.NodeName, "--node-ip=" + c.NodeIP}
}

func portReady(address string) func() error {
	return func() error {
		connection, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return fmt.Errorf("nothing listens on %s yet", address)
		}
		return connection.Close()
	}
}

func socketReady(path string) func() error {
	return func() error {
		connection, err := net.DialTimeout("unix", path, time.Second)
		if err != nil {
			return fmt.Errorf("nothing listens on %s yet", path)
		}
		return connection.Close()
	}
}

// apiServerReady asks /readyz, which includes the RBAC bootstrap that the controllers need.
func apiServerReady(c config.Cluster) func() error {
	var client *http.Client
	return func() error {
		if client == nil {
			ca, err := os.ReadFile(c.PKI("ca.crt"))
			if err != nil {
				return err
			}
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(ca)
			client = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
				DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
		}
		response, err := client.Get("https://127.0.0.1:6443/readyz")
		if err != nil {
			return errors.New("the API server does not answer yet")
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New("the API server is not ready yet")
		}
		return nil
	}
}

func both(first, second func() error) func() error {
	return func() error {
		if err := first(); err != nil {
			return err
		}
		return second()
	}
}
