package supervise

import (
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reaper collects orphans without taking away the exit status of our own children.
//
// PID 1 inherits every orphan of its namespace and must wait for it. A plain wait4(-1) would also
// swallow the status of processes that os/exec waits for, so the reaper looks first (WNOWAIT) and
// leaves the children it knows alone.
type reaper struct {
	mu  sync.Mutex
	own map[int]bool
}

func newReaper() *reaper { return &reaper{own: map[int]bool{}} }

// spawn starts cmd; the lock keeps a child that ends at once from being taken for an orphan.
func (r *reaper) spawn(cmd *exec.Cmd) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	r.own[cmd.Process.Pid] = true
	return nil
}

func (r *reaper) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	r.mu.Lock()
	delete(r.own, cmd.Process.Pid)
	r.mu.Unlock()
	return err
}

// start reaps in the background. It polls, since SIGCHLD coalesces and the peek below shows only
// one ended child at a time; a zombie may exist for a moment, which harms nobody.
func (r *reaper) start() (stop func()) {
	quit := make(chan struct{})
	go func() {
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				for r.reapOne() {
				}
			}
		}
	}()
	return func() { close(quit) }
}

func (r *reaper) reapOne() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var info unix.Siginfo
	options := unix.WEXITED | unix.WNOHANG | unix.WNOWAIT
	if err := unix.Waitid(unix.P_ALL, 0, &info, options, nil); err != nil {
		return false
	}
	pid := siginfoPID(&info)
	if pid == 0 || r.own[pid] {
		return false
	}
	_, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	return err == nil
}
