//go:build unix

package cli

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// writePIDFile writes the number of this process to a file, and locks the file until the process
// ends. remove removes it. It fails if another process holds the lock. An empty name means no file.
func writePIDFile(name string) (remove func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("write the file of --pid-file: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s (--pid-file): another server uses it: %w", name, err)
	}
	if err = f.Truncate(0); err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write the file of --pid-file: %w", err)
	}
	return func() {
		os.Remove(name)
		f.Close() // unlocks
	}, nil
}

// signalServer sends SIGHUP to the server that holds the lock of a pid file, and returns the number
// of its process. The lock shows that the number is not that of another, later process.
func signalServer(name string) (int, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("%w: %w", errNoServer, err)
	}
	if err != nil {
		return 0, fmt.Errorf("read the file of --pid-file: %w", err)
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return 0, fmt.Errorf("%w: %s is left over from one that was killed", errNoServer, name)
	}
	pid, err := readPID(f)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		return 0, fmt.Errorf("send SIGHUP to process %d: %w", pid, err)
	}
	return pid, nil
}
