// Command devcluster is one binary that holds a whole Kubernetes node and control plane.
//
// Linking etcd, the API server, the controllers, the scheduler, kubelet, kube-proxy and kubectl
// together costs one build and 150 MB instead of seven builds and about 500 MB, since they share
// most of their code. Which of them runs is decided by the name the binary is called by (links
// named "kubectl" and so on) or by its first argument.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"canarium.dev/devcluster/internal/config"
	"canarium.dev/devcluster/internal/node"
	"canarium.dev/devcluster/internal/pki"
)

// components maps a Kubernetes server to the constructor of its command.
var components = map[string]func() *cobra.Command{
	"kube-apiserver":          func() *cobra.Command { return apiserver.NewAPIServerCommand() },
	"kube-controller-manager": func() *cobra.Command { return controllermanager.NewControllerManagerCommand() },
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	"kube-proxy":              func() *cobra.Command { return proxy.NewProxyCommand() },
}

// ours maps a sub-command of the node itself to its function.
var ours = map[string]func(config.Cluster) error{
	"start": node.Start, // on the host: open the sandbox and connect it
	"stop":  node.Stop,  // on the host: end the sandbox and remove its traces
	"node":  node.Run,   // in the sandbox: be PID 1
	"pki":   pki.Ensure, // certificates and kubeconfigs
}

func main() {
	name := filepath.Base(os.Args[0])
	if name == "devcluster" && len(os.Args) > 1 {
		name = os.Args[1]
		os.Args = os.Args[1:]
	}
	switch {
	case name == "kubectl":
		runKubectl()
	case name == "etcd":
		etcdmain.Main(os.Args)
	case components[name] != nil:
		os.Exit(cli.Run(components[name]()))
	case ours[name] != nil:
		runOurs(name)
	default:
		fmt.Fprintf(os.Stderr, "devcluster: unknown component %q\n", name)
		os.Exit(2)
	}
}

func runKubectl() {
	logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
}

// runOurs runs a sub-command that takes exactly "--config FILE".
func runOurs(name string) {
	if len(os.Args) != 3 || os.Args[1] != "--config" {
		fmt.Fprintf(os.Stderr, "usage: devcluster %s --config FILE\n", name)
		os.Exit(2)
	}
	cluster, err := config.Load(os.Args[2])
	if err == nil {
		err = ours[name](cluster)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "devcluster %s: %s\n", name, strings.TrimSpace(err.Error()))
		os.Exit(1)
	}
}
