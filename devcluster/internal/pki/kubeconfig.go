package pki

import (
	"encoding/base64"
	"fmt"

	"canarium.dev/devcluster/internal/config"
)

// kubeconfig is one file with everything inside, so that it can be copied anywhere on the host.
func kubeconfig(c config.Cluster, ca, cert, key []byte) []byte {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: %[1]s
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[1]s}
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[1]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
`, c.Name, c.APIServer(), b64(ca), b64(cert), b64(key))
}
