package supervise

import (
	"os"
	"sync"
)

// LogFile is an append-only file of bounded size: when it is full it becomes NAME.1 and a new one
// starts, so one component takes at most twice the limit on disk, however long the cluster runs.
type LogFile struct {
	path  string
	limit int64

	mu   sync.Mutex
	file *os.File
	size int64
}

// OpenLog opens or continues a log of at most limit bytes for each of its two files.
func OpenLog(path string, limit int64) (*LogFile, error) {
	l := &LogFile{path: path, limit: limit}
	return l, l.open()
}

func (l *LogFile) open() error {
	file, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	l.file, l.size = file, info.Size()
	return nil
}

// Write never reports an error: a component must not stall or die because its log cannot grow.
func (l *LogFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(p)) > l.limit {
		l.rotate()
	}
	if l.file != nil {
		n, _ := l.file.Write(p)
		l.size += int64(n)
	}
	return len(p), nil
}

func (l *LogFile) rotate() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		os.Remove(l.path)
	}
	if err := l.open(); err != nil {
		l.file, l.size = nil, l.limit // try again at the next write
	}
}
