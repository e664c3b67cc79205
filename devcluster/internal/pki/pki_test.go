package pki

import (
	"crypto/x509"
	"os"
	"strings"
	"testing"

	"canarium.dev/devcluster/internal/config"
)

func cluster(t *testing.T) config.Cluster {
	return config.Cluster{Name: "t", StateDir: t.TempDir(), NodeName: "t-node",
		NodeIP: "10.99.0.2", APIServiceIP: "10.96.0.1"}
}

func ensure(t *testing.T, c config.Cluster) {
	t.Helper()
	if err := Ensure(c); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Every leaf verifies against its own CA for its own use, and not against the other CA.
func TestLeavesVerify(t *testing.T) {
	c := cluster(t)
	ensure(t, c)
	for _, l := range leaves(c) {
		p, err := load(c, l.name)
		if err != nil {
			t.Fatal(err)
		}
		for _, ca := range []string{"ca", "front-proxy-ca"} {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM([]byte(read(t, c.PKI(ca+".crt"))))
			_, err := p.cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{l.usage}})
			if good := ca == l.ca; good != (err == nil) {
				t.Errorf("%s against %s: %v", l.name, ca, err)
			}
		}
	}
}

// A second run leaves all files as they are: clients keep their credentials.
func TestSecondRunChangesNothing(t *testing.T) {
	c := cluster(t)
	ensure(t, c)
	before := map[string]string{}
	for _, f := range []string{"ca.crt", "apiserver.crt", "kubelet.kubeconfig", "sa.key"} {
		before[f] = read(t, c.PKI(f))
	}
	ensure(t, c)
	for f, text := range before {
		if read(t, c.PKI(f)) != text {
			t.Errorf("%s changed", f)
		}
	}
}

// A new address renews the serving certificates below the same CA.
func TestNewAddressRenewsServingCertificate(t *testing.T) {
	c := cluster(t)
	ensure(t, c)
	ca, serving := read(t, c.PKI("ca.crt")), read(t, c.PKI("apiserver.crt"))
	c.NodeIP = "10.99.1.2"
	ensure(t, c)
	if read(t, c.PKI("ca.crt")) != ca {
		t.Error("the CA changed")
	}
	if read(t, c.PKI("apiserver.crt")) == serving {
		t.Error("the serving certificate was kept")
	}
	if !strings.Contains(read(t, c.Kubeconfig()), "https://10.99.1.2:6443") {
		t.Error("the kubeconfig names the old address")
	}
}

// A key that was lost or cut short by a full disk is repaired.
func TestDamagedFileIsRepaired(t *testing.T) {
	c := cluster(t)
	ensure(t, c)
	if err := os.WriteFile(c.PKI("scheduler.key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ensure(t, c)
	if _, err := load(c, "scheduler"); err != nil {
		t.Fatal(err)
	}
}

// Private files are readable by their owner alone.
func TestFilesArePrivate(t *testing.T) {
	c := cluster(t)
	ensure(t, c)
	for _, f := range []string{c.PKI("ca.key"), c.Kubeconfig()} {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", f, info.Mode())
		}
	}
}
