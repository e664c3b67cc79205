package node

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"canarium.dev/devcluster/internal/config"
)

// prepare turns fresh namespaces into a node. Everything it mounts is private to the sandbox and
// vanishes with it; the machine's own files, sysctls and firewall stay as they are.
func prepare(c config.Cluster) error {
	if err := syscall.Sethostname([]byte(c.NodeName)); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	for _, step := range []struct {
		what string
		do   func(config.Cluster) error
	}{
		{"mounts", mountFiles},
		{"sysfs", mountSysfs},
		{"mount propagation", shareMounts},
		{"cgroups", enterCgroups},
		{"sysctls", showSysctls},
	} {
		if err := step.do(c); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}

func bind(source, target string) error {
	return mount(source, target, "", syscall.MS_BIND|syscall.MS_REC, "")
}

// mountFiles gives the node its own /proc, /run, /var/lib and /var/log.
//
// kubelet and containerd write to fixed places below these. The state directory itself may lie
// below /var/lib: it is kept aside while an empty file system goes over the machine's.
func mountFiles(c config.Cluster) error {
	if err := mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err // first of all: nothing below may reach the machine
	}
	if err := mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return err
	}
	for _, d := range []string{"etcd", "kubelet", "varlog", "containerd/root", "containerd/opt"} {
		if err := os.MkdirAll(c.Path(d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(c.Path("etcd"), 0o700); err != nil {
		return err
	}
	if err := bind(c.Path("varlog"), "/var/log"); err != nil {
		return err
	}
	if err := mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	const aside = "/run/state"
	if err := mkdirs(aside, "/run/lock", "/run/containerd"); err != nil {
		return err
	}
	if err := bind(c.StateDir, aside); err != nil {
		return err
	}
	if err := mount("tmpfs", "/var/lib", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	if err := mkdirs(c.StateDir, "/var/lib/kubelet"); err != nil {
		return err
	}
	if err := mount(aside, c.StateDir, "", syscall.MS_MOVE, ""); err != nil {
		return err
	}
	if err := bind(c.Path("kubelet"), "/var/lib/kubelet"); err != nil {
		return err
	}
	return hideResolver()
}

// hideResolver lets the node's own look-ups fail at once. There is no way from the node to the
// machine's name servers, and each attempt to pull an image that is not loaded would wait for
// them, with all other pulls behind it.
func hideResolver() error {
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		return nil // none, or a link to what /run had: then the library asks this node itself
	}
	nowhere := "/run/resolv.conf"
	if err := os.WriteFile(nowhere, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		return err
	}
	return bind(nowhere, target)
}

func mkdirs(paths ...string) error {
	for _, p := range paths {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// mountSysfs shows the new network namespace in /sys and carries the cgroup mounts over.
func mountSysfs(config.Cluster) error {
	const aside = "/run/cgroup"
	if err := mkdirs(aside); err != nil {
		return err
	}
	if err := bind("/sys/fs/cgroup", aside); err != nil {
		return err
	}
	if err := mount("sysfs", "/sys", "sysfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := bind(aside, "/sys/fs/cgroup"); err != nil {
		return err
	}
	return syscall.Unmount(aside, syscall.MNT_DETACH)
}

// shareMounts is what kubelet's mount propagation needs. It comes after mountSysfs, whose unmount
// would otherwise propagate.
func shareMounts(config.Cluster) error {
	return mount("none", "/", "", syscall.MS_REC|syscall.MS_SHARED, "")
}

// showSysctls puts the values that kubelet insists on before its eyes. They belong to the whole
// machine, so instead of changing them the node sees files with the wanted values.
func showSysctls(config.Cluster) error {
	wanted := map[string]string{
		"vm/overcommit_memory": "1\n", "kernel/panic": "10\n", "kernel/panic_on_oops": "1\n"}
	for name, value := range wanted {
		file := "/run/sysctl/" + name
		if err := mkdirs(filepath.Dir(file)); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			return err
		}
		if err := bind(file, "/proc/sys/"+name); err != nil {
			return err
		}
	}
	return nil
}
