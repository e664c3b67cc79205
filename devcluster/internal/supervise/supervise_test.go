package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

type world struct {
	t      *testing.T
	dir    string
	cancel context.CancelFunc
	ended  chan struct{}
}

// run starts a supervisor; the test's end stops it.
func run(t *testing.T, processes ...Process) *world {
	ctx, cancel := context.WithCancel(context.Background())
	w := &world{t: t, dir: t.TempDir(), cancel: cancel, ended: make(chan struct{})}
	s := New(w.dir, filepath.Join(w.dir, "status.json"), t.Logf)
	go func() {
		s.Run(ctx, processes, 200*time.Millisecond)
		close(w.ended)
	}()
	t.Cleanup(func() { cancel(); <-w.ended })
	return w
}

func (w *world) state(name string) State {
	var file struct{ Components map[string]State }
	data, err := os.ReadFile(filepath.Join(w.dir, "status.json"))
	if err != nil || json.Unmarshal(data, &file) != nil {
		return State{}
	}
	return file.Components[name]
}

func (w *world) until(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			w.t.Fatalf("not reached: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A process that ends is started again, and the status counts it and says how it ended.
func TestEndedProcessStartsAgain(t *testing.T) {
	w := run(t, Process{Name: "p", Argv: []string{"sh", "-c", "exit 3"}})
	w.until("two restarts", func() bool { return w.state("p").Restarts >= 2 })
	if got := w.state("p").LastExit; got != "exit status 3" {
		t.Errorf("last exit: %q", got)
	}
}

// The pause before a restart doubles each time.
func TestBackoffDoubles(t *testing.T) {
	w := run(t, Process{Name: "p", Argv: []string{"false"}})
	began := time.Now()
	w.until("three restarts", func() bool { return w.state("p").Restarts >= 3 })
	if took := time.Since(began); took < 7*firstBackoff { // 1 + 2 + 4
		t.Errorf("three restarts after %s, sooner than the back-off allows", took)
	}
}

// A killed process is back under a new pid.
func TestKilledProcessComesBack(t *testing.T) {
	w := run(t, Process{Name: "p", Argv: []string{"sleep", "1000"}})
	w.until("running", func() bool { return w.state("p").State == Running })
	first := w.state("p").PID
	syscall.Kill(first, syscall.SIGKILL)
	w.until("a new pid", func() bool {
		s := w.state("p")
		return s.State == Running && s.PID != first
	})
}

// A process starts only when what it needs is there, and the status says what it waits for.
func TestProcessWaitsUntilReady(t *testing.T) {
	flag := filepath.Join(t.TempDir(), "flag")
	ready := func() error {
		if _, err := os.Stat(flag); err != nil {
			return errors.New("no flag yet")
		}
		return nil
	}
	w := run(t, Process{Name: "p", Argv: []string{"sleep", "1000"}, Ready: ready})
	w.until("waiting", func() bool { return w.state("p").Message == "no flag yet" })
	if err := os.WriteFile(flag, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w.until("running", func() bool { return w.state("p").State == Running })
}

// A process that ignores SIGTERM is killed after the grace period.
func TestStubbornProcessIsKilled(t *testing.T) {
	w := run(t, Process{Name: "p", Argv: []string{"sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"}})
	w.until("running", func() bool { return w.state("p").State == Running })
	w.cancel()
	select {
	case <-w.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the supervisor did not end")
	}
	if s := w.state("p").State; s != Stopped {
		t.Errorf("state %q", s)
	}
}

// Output goes to the component's log, between lines that say when it started and ended.
func TestOutputIsLogged(t *testing.T) {
	w := run(t, Process{Name: "p", Argv: []string{"sh", "-c", "echo hello; exit 1"}})
	w.until("a log", func() bool {
		data, _ := os.ReadFile(filepath.Join(w.dir, "p.log"))
		return strings.Contains(string(data), "hello\n") && strings.Contains(string(data), "end: exit status 1")
	})
}

// A log never takes more than twice its limit, and its newest lines are kept.
func TestLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	l, err := OpenLog(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", 99) + "\n"
	for range 100 {
		l.Write([]byte(line))
	}
	l.Write([]byte("last\n"))
	total := 0
	for _, p := range []string{path, path + ".1"} {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		total += len(data)
	}
	if total > 2000 {
		t.Errorf("%d bytes on disk", total)
	}
	data, _ := os.ReadFile(path)
	if !strings.HasSuffix(string(data), "last\n") {
		t.Error("the newest line is missing")
	}
}
