package supervise

import (
	"encoding/json"
	"os"
	"sync"
	"time"
)

// States of a process in the status file.
const (
	Waiting    = "waiting"    // something that it needs is not there yet
	Running    = "running"    // started
	BackingOff = "backingOff" // ended, starts again after a pause
	Stopped    = "stopped"    // ended because the supervisor ends
)

// State is one process in the status file.
type State struct {
	State    string    `json:"state"`
	PID      int       `json:"pid,omitempty"` // in the supervisor's PID namespace
	Restarts int       `json:"restarts"`
	Since    time.Time `json:"since"`
	LastExit string    `json:"lastExit,omitempty"`
	Message  string    `json:"message,omitempty"`
}

// statusFile is replaced in one step at each change, so a reader never sees half of it.
type statusFile struct {
	path string

	mu     sync.Mutex
	states map[string]State
}

func (f *statusFile) begin(processes []Process) {
	f.mu.Lock()
	f.states = map[string]State{}
	for _, p := range processes {
		f.states[p.Name] = State{State: Waiting, Since: time.Now()}
	}
	f.mu.Unlock()
	f.write()
}

// set records a change; the last exit is kept until there is a newer one.
func (f *statusFile) set(name string, s State) {
	f.mu.Lock()
	old := f.states[name]
	if s.LastExit == "" {
		s.LastExit = old.LastExit
	}
	if s.Since.IsZero() {
		s.Since = time.Now()
		if old.State == s.State {
			s.Since = old.Since
		}
	}
	unchanged := old == s
	f.states[name] = s
	f.mu.Unlock()
	if !unchanged {
		f.write()
	}
}

func (f *statusFile) write() {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, err := json.MarshalIndent(map[string]any{"components": f.states}, "", "  ")
	if err != nil {
		return
	}
	if os.WriteFile(f.path+".tmp", data, 0o644) == nil {
		os.Rename(f.path+".tmp", f.path)
	}
}
