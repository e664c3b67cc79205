package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"canarium.dev/devcluster/internal/config"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchies are the mounted cgroup v1 hierarchies (and the v2 one beside them, if any).
func hierarchies() ([]string, error) {
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		path := filepath.Join(cgroupRoot, e.Name())
		if _, err := os.Stat(filepath.Join(path, "cgroup.procs")); e.IsDir() && err == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroup v1 hierarchies below " + cgroupRoot)
	}
	return found, nil
}

// enterCgroups makes the cluster's cgroup in every hierarchy and moves this process into its
// "node" child; kubelet puts the pods beside it.
func enterCgroups(c config.Cluster) error {
	found, err := hierarchies()
	if err != nil {
		return err
	}
	pid := []byte(strconv.Itoa(os.Getpid()))
	for _, h := range found {
		own := filepath.Join(h, c.Cgroup)
		if err := os.MkdirAll(filepath.Join(own, "node"), 0o755); err != nil {
			return err
		}
		switch filepath.Base(h) {
		case "cpuset": // a new cpuset is empty and would refuse every process
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				value, err := os.ReadFile(filepath.Join(h, file))
				if err != nil {
					return err
				}
				for _, d := range []string{own, filepath.Join(own, "node")} {
					if err := os.WriteFile(filepath.Join(d, file), value, 0o644); err != nil {
						return err
					}
				}
			}
		case "memory": // missing on kernels where it is always on
			os.WriteFile(filepath.Join(own, "memory.use_hierarchy"), []byte("1"), 0o644)
		}
		if err := os.WriteFile(filepath.Join(own, "node", "cgroup.procs"), pid, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes what enterCgroups and kubelet made. A cgroup empties a moment after its
// last process is killed, hence the deadline.
func removeCgroups(c config.Cluster, patience time.Duration) error {
	found, err := hierarchies()
	if err != nil {
		return nil // nothing can be left where nothing could be made
	}
	deadline := time.Now().Add(patience)
	for {
		var last error
		for _, h := range found {
			if err := removeTree(filepath.Join(h, c.Cgroup)); err != nil {
				last = err
			}
		}
		if last == nil || time.Now().After(deadline) {
			return last
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// removeTree removes directories from the deepest up; the files in a cgroup go with it.
func removeTree(root string) error {
	var directories []string
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			directories = append(directories, path)
		}
		return nil
	})
	var last error
	for _, d := range slices.Backward(directories) {
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			last = err
		}
	}
	return last
}
