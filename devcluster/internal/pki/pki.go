// Package pki makes the certificates and kubeconfigs of one cluster.
//
// It stands in for openssl and shell: keys are ECDSA P-256 (RSA for service accounts, whose tokens
// every client library verifies), files are private to root, and a second run changes nothing
// unless a certificate is about to expire or no longer covers the cluster's addresses.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"canarium.dev/devcluster/internal/config"
)

const (
	validity = 10 * 365 * 24 * time.Hour
	renewal  = 30 * 24 * time.Hour // a leaf with less than this left is made anew
)

// leaf is one certificate below a CA; user marks those that get a kubeconfig.
type leaf struct {
	name, ca, commonName, organization string
	usage                              x509.ExtKeyUsage
	dnsNames                           []string
	addresses                          []string
	kubeconfig                         string
}

func leaves(c config.Cluster) []leaf {
	client, server := x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	inCluster := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local", "localhost"}
	return []leaf{
		{name: "apiserver", ca: "ca", commonName: "kube-apiserver", usage: server,
			dnsNames: inCluster, addresses: []string{"127.0.0.1", c.APIServiceIP, c.NodeIP}},
		{name: "kubelet-serving", ca: "ca", commonName: c.NodeName, usage: server,
			dnsNames: []string{c.NodeName}, addresses: []string{c.NodeIP, "127.0.0.1"}},
		{name: "apiserver-kubelet", ca: "ca", commonName: "apiserver-kubelet",
			organization: "system:masters", usage: client},
		{name: "front-proxy", ca: "front-proxy-ca", commonName: "front-proxy-client", usage: client},
		{name: "admin", ca: "ca", commonName: "admin", organization: "system:masters",
			usage: client, kubeconfig: c.Kubeconfig()},
		{name: "controller-manager", ca: "ca", commonName: "system:kube-controller-manager",
			usage: client, kubeconfig: c.PKI("controller-manager.kubeconfig")},
		{name: "scheduler", ca: "ca", commonName: "system:kube-scheduler", usage: client,
			kubeconfig: c.PKI("scheduler.kubeconfig")},
		{name: "proxy", ca: "ca", commonName: "system:kube-proxy", usage: client,
			kubeconfig: c.PKI("proxy.kubeconfig")},
		{name: "kubelet", ca: "ca", commonName: "system:node:" + c.NodeName,
			organization: "system:nodes", usage: client, kubeconfig: c.PKI("kubelet.kubeconfig")},
	}
}

// Ensure makes whatever is missing.
func Ensure(c config.Cluster) error {
	if err := os.MkdirAll(c.PKI(""), 0o700); err != nil {
		return err
	}
	authorities := map[string]*pair{}
	for _, name := range []string{"ca", "front-proxy-ca"} {
		ca, err := ensureAuthority(c, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		authorities[name] = ca
	}
	if err := ensureServiceAccountKey(c); err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	for _, l := range leaves(c) {
		p, err := ensureLeaf(c, l, authorities[l.ca])
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		if l.kubeconfig == "" {
			continue
		}
		text := kubeconfig(c, authorities["ca"].certPEM, p.certPEM, p.keyPEM)
		if err := writePrivate(l.kubeconfig, text); err != nil {
			return err
		}
	}
	return nil
}

// pair is a certificate with its key, parsed and as PEM.
type pair struct {
	cert            *x509.Certificate
	key             *ecdsa.PrivateKey
	certPEM, keyPEM []byte
}

func ensureAuthority(c config.Cluster, name string) (*pair, error) {
	if p, err := load(c, name); err == nil && time.Until(p.cert.NotAfter) > renewal {
		return p, nil
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: c.Name + "-" + name},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	return issue(c, name, template, nil)
}

func ensureLeaf(c config.Cluster, l leaf, ca *pair) (*pair, error) {
	if p, err := load(c, l.name); err == nil && stillGood(p.cert, l, ca) {
		return p, nil
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: l.commonName},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{l.usage},
		DNSNames:              l.dnsNames,
		BasicConstraintsValid: true,
	}
	if l.organization != "" {
		template.Subject.Organization = []string{l.organization}
	}
	for _, a := range l.addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(a))
	}
	return issue(c, l.name, template, ca)
}

func stillGood(cert *x509.Certificate, l leaf, ca *pair) bool {
	if time.Until(cert.NotAfter) < renewal || cert.Subject.CommonName != l.commonName {
		return false
	}
	for _, name := range append(append([]string{}, l.dnsNames...), l.addresses...) {
		if cert.VerifyHostname(name) != nil {
			return false
		}
	}
	return cert.CheckSignatureFrom(ca.cert) == nil
}

// issue signs template with ca, or with its own key when ca is nil, and writes both files.
func issue(c config.Cluster, name string, template *x509.Certificate, ca *pair) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour) // a clock that is a little late still accepts it
	template.NotAfter = time.Now().Add(validity)
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := writePrivate(c.PKI(name+".key"), encode("PRIVATE KEY", keyDER)); err != nil {
		return nil, err
	}
	if err := writePrivate(c.PKI(name+".crt"), encode("CERTIFICATE", der)); err != nil {
		return nil, err
	}
	return load(c, name)
}

func load(c config.Cluster, name string) (*pair, error) {
	certPEM, err := os.ReadFile(c.PKI(name + ".crt"))
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(c.PKI(name + ".key"))
	if err != nil {
		return nil, err
	}
	certBlock, _ := pem.Decode(certPEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certBlock == nil || keyBlock == nil {
		return nil, fmt.Errorf("%s: not PEM", name)
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s: key and certificate do not belong together", name)
	}
	return &pair{cert: cert, key: key, certPEM: certPEM, keyPEM: keyPEM}, nil
}

func ensureServiceAccountKey(c config.Cluster) error {
	if _, err := os.Stat(c.PKI("sa.pub")); err == nil {
		return nil
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	if err := writePrivate(c.PKI("sa.key"), encode("PRIVATE KEY", private)); err != nil {
		return err
	}
	return writePrivate(c.PKI("sa.pub"), encode("PUBLIC KEY", public))
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// writePrivate replaces a file in one step, so that an interruption leaves the old one or the new.
func writePrivate(path string, data []byte) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
