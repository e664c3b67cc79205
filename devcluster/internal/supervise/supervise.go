// Package supervise keeps a set of processes running, as PID 1 of the node does.
//
// It restarts what ends, with a back-off that doubles up to a limit and starts over after a good
// run; it writes bounded logs; it keeps a status file that the launcher reads; and it reaps every
// orphan, because containerd's shims outlive the processes that start them. It does not know what
// it runs: the node package says that.
package supervise

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Limits on everything that grows or waits.
const (
	firstBackoff = 250 * time.Millisecond
	maxBackoff   = 10 * time.Second
	goodRun      = 30 * time.Second // a process that ran this long starts over with firstBackoff
	logLimit     = 8 << 20          // bytes for each of a component's two log files
)

// Process is one thing to keep running.
type Process struct {
	Name string
	Argv []string
	Env  []string // added to the supervisor's own

	// Ready is asked before each start until it returns nil; nil means: start at once.
	Ready func() error
}

// Supervisor runs processes until its context ends.
type Supervisor struct {
	logDir  string
	status  *statusFile
	reaper  *reaper
	message func(format string, args ...any)
}

// New makes a supervisor that writes logs to logDir and states to statusPath.
func New(logDir, statusPath string, message func(string, ...any)) *Supervisor {
	return &Supervisor{
		logDir: logDir, status: &statusFile{path: statusPath}, reaper: newReaper(), message: message,
	}
}

// Run keeps all processes running; it returns when ctx is done and they have ended, or when they
// did not end within grace and were killed.
func (s *Supervisor) Run(ctx context.Context, processes []Process, grace time.Duration) {
	s.status.begin(processes)
	stopReaper := s.reaper.start()
	defer stopReaper()
	var all sync.WaitGroup
	for _, p := range processes {
		all.Go(func() { s.keep(ctx, p, grace) })
	}
	all.Wait()
}

// keep is the life of one process: wait until it may start, start, wait, back off, again.
func (s *Supervisor) keep(ctx context.Context, p Process, grace time.Duration) {
	log, err := OpenLog(filepath.Join(s.logDir, p.Name+".log"), logLimit)
	if err != nil {
		s.message("%s has no log: %v", p.Name, err)
	}
	backoff := firstBackoff
	for restarts := 0; ; restarts++ {
		if !s.waitReady(ctx, p, restarts) {
			return
		}
		started := time.Now()
		ended := s.runOnce(ctx, p, log, grace, restarts)
		if ctx.Err() != nil {
			s.status.set(p.Name, State{State: Stopped, Restarts: restarts, LastExit: ended})
			return
		}
		if time.Since(started) >= goodRun {
			backoff = firstBackoff
		}
		s.message("%s ended (%s), again in %s", p.Name, ended, backoff)
		s.status.set(p.Name, State{State: BackingOff, Restarts: restarts, LastExit: ended})
		if !sleep(ctx, backoff) {
			return
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

func (s *Supervisor) waitReady(ctx context.Context, p Process, restarts int) bool {
	for p.Ready != nil {
		err := p.Ready()
		if err == nil {
			break
		}
		s.status.set(p.Name, State{State: Waiting, Restarts: restarts, Message: err.Error()})
		if !sleep(ctx, 50*time.Millisecond) {
			return false
		}
	}
	return ctx.Err() == nil
}

// runOnce starts the process, waits for its end and says how it ended.
func (s *Supervisor) runOnce(ctx context.Context, p Process, log *LogFile, grace time.Duration, restarts int) string {
	fmt.Fprintf(log, "--- %s start: %q\n", time.Now().UTC().Format(time.RFC3339), p.Argv)
	cmd := exec.Command(p.Argv[0], p.Argv[1:]...)
	cmd.Env = append(os.Environ(), p.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 500 * time.Millisecond // shims may keep the pipe open after containerd has ended
	if err := s.reaper.spawn(cmd); err != nil {
		fmt.Fprintf(log, "--- cannot start: %v\n", err)
		return err.Error()
	}
	s.status.set(p.Name, State{State: Running, PID: cmd.Process.Pid, Restarts: restarts, Since: time.Now()})
	gone := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
			terminate(cmd.Process, gone, grace)
		case <-gone:
		}
	}()
	err := s.reaper.wait(cmd)
	close(gone)
	ended := "exit status 0"
	if err != nil {
		ended = err.Error()
	}
	fmt.Fprintf(log, "--- %s end: %s\n", time.Now().UTC().Format(time.RFC3339), ended)
	return ended
}

// terminate asks, and insists after grace.
func terminate(process *os.Process, gone <-chan struct{}, grace time.Duration) {
	process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
		process.Kill()
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
