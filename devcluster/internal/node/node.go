// Package node is the sandbox that a cluster runs in: one process in namespaces of its own, PID 1
// of the node, which prepares file systems, cgroups and network and supervises every component.
// Ending that process ends everything inside.
package node

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"canarium.dev/devcluster/internal/config"
	"canarium.dev/devcluster/internal/supervise"
)

const (
	readyPipe      = 3               // Start closes it when the network is connected
	componentGrace = 2 * time.Second // from SIGTERM to SIGKILL for a component
)

// Run is PID 1 of the node. It returns after SIGTERM; the kernel then kills what is left.
func Run(c config.Cluster) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("runs only as PID 1 of its own namespaces: use start")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	connected := os.NewFile(readyPipe, "ready")
	if answer, err := io.ReadAll(connected); err != nil || string(answer) != "connected" {
		return fmt.Errorf("the network was not connected")
	}
	connected.Close()
	if err := prepare(c); err != nil {
		return err
	}
	if err := configureNetwork(c); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if err := writeConfigs(c); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	os.Setenv("PATH", c.BinDir+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	os.Setenv("GOGC", "50") // a third less memory for a few percent more CPU time
	os.Setenv("HOME", "/root")
	message("node %s is prepared, starting the components", c.NodeName)
	s := supervise.New(c.Path("logs"), c.Path("run", "status.json"), message)
	s.Run(ctx, components(c), componentGrace)
	message("stopped")
	return nil
}

func message(format string, args ...any) {
	fmt.Printf("%s %s\n", time.Now().UTC().Format(time.RFC3339), fmt.Sprintf(format, args...))
}
