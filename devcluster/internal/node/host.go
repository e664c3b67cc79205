package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"canarium.dev/devcluster/internal/config"
	"canarium.dev/devcluster/internal/pki"
)

const (
	stopGrace   = 8 * time.Second // from SIGTERM to SIGKILL for the whole node
	killGrace   = 10 * time.Second
	cgroupGrace = 10 * time.Second
)

// record is what identifies the node's process on the machine. A pid alone does not: it may belong
// to somebody else after a reboot.
type record struct {
	PID       int    `json:"pid"`
	StartTime string `json:"startTime"` // field 22 of /proc/PID/stat, in clock ticks since boot
}

func (r record) path(c config.Cluster) string { return c.Path("run", "node.json") }

// Start opens the sandbox: it makes what is missing of the certificates, starts PID 1 in new
// namespaces, connects the network, and returns while the components come up.
func Start(c config.Cluster) error {
	if r, alive := running(c); alive {
		return fmt.Errorf("the node runs already (process %d)", r.PID)
	}
	// What an earlier node left when the machine or the process was killed.
	if err := sweep(c); err != nil {
		return err
	}
	for _, d := range []string{"run", "logs"} {
		if err := os.MkdirAll(c.Path(d), 0o755); err != nil {
			return err
		}
	}
	if err := pki.Ensure(c); err != nil {
		return err
	}
	os.Remove(c.Path("run", "status.json"))
	connected, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd, err := spawn(c, connected)
	if err != nil {
		return err
	}
	connected.Close()
	if err := introduce(c, cmd.Process.Pid, tell); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		sweep(c)
		return err
	}
	return cmd.Process.Release()
}

// introduce records the node and lets it go on.
func introduce(c config.Cluster, pid int, tell *os.File) error {
	defer tell.Close()
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	r := record{PID: pid, StartTime: start}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.path(c), append(data, '\n'), 0o644); err != nil {
		return err
	}
	if err := connectHost(c, pid); err != nil {
		return err
	}
	_, err = tell.WriteString("connected")
	return err
}

func spawn(c config.Cluster, connected *os.File) (*exec.Cmd, error) {
	log, err := os.Create(c.Path("logs", "node.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(c.Bin("devcluster"), "node", "--config", c.File)
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{connected} // becomes readyPipe
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	return cmd, cmd.Start()
}

// Stop ends the node and removes all that it had on the machine.
func Stop(c config.Cluster) error {
	if r, alive := running(c); alive {
		syscall.Kill(r.PID, syscall.SIGTERM)
		if !ended(c, stopGrace) {
			syscall.Kill(r.PID, syscall.SIGKILL)
			if !ended(c, killGrace) {
				return fmt.Errorf("process %d does not end", r.PID)
			}
		}
	}
	return sweep(c)
}

// sweep removes the traces of a node that no longer runs.
func sweep(c config.Cluster) error {
	if err := disconnectHost(c); err != nil {
		return fmt.Errorf("interface %s: %w", c.HostInterface, err)
	}
	if err := removeCgroups(c, cgroupGrace); err != nil {
		return fmt.Errorf("cgroups: %w", err)
	}
	for _, f := range []string{"node.json", "status.json"} {
		os.Remove(c.Path("run", f))
	}
	return nil
}

func ended(c config.Cluster, patience time.Duration) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if _, alive := running(c); !alive {
			return true
		}
	}
	return false
}

// running says whether the recorded process still is this cluster's node. A zombie is not: all
// that was in its namespaces has ended.
func running(c config.Cluster) (record, bool) {
	var r record
	data, err := os.ReadFile(r.path(c))
	if err != nil || json.Unmarshal(data, &r) != nil {
		return r, false
	}
	start, err := startTime(r.PID)
	if err != nil || start != r.StartTime {
		return r, false
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.PID))
	return r, err == nil && bytes.Contains(cmdline, []byte(c.File))
}

func startTime(pid int) (string, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name before it may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat is cut short", pid)
	}
	if fields[0] == "Z" {
		return "", os.ErrProcessDone
	}
	return fields[19], nil
}
