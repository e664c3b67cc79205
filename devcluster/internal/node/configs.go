package node

import (
	"bytes"
	"embed"
	"os"
	"path/filepath"
	"text/template"

	"canarium.dev/devcluster/internal/config"
)

//go:embed files
var templates embed.FS

// writeConfigs renders the components' configuration files into the state directory. They are
// written at each start, so that a new version of this program brings its own.
func writeConfigs(c config.Cluster) error {
	targets := map[string]string{
		"containerd.toml": c.Path("containerd", "config.toml"),
		"cni.conflist":    c.Path("cni", "10-bridge.conflist"),
		"kubelet.yaml":    c.Path("kubelet.yaml"),
		"kube-proxy.yaml": c.Path("kube-proxy.yaml"),
	}
	for name, target := range targets {
		parsed, err := template.ParseFS(templates, "files/"+name)
		if err != nil {
			return err
		}
		var text bytes.Buffer
		if err := parsed.Execute(&text, c); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, text.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(c.Path("resolv.conf"), nil, 0o644)
}
