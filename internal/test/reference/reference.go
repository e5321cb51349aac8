// Package reference installs the published implementation of the protocol from npm. Benchmarks
// compare Hearth with it, and tests run both together. Versions are pinned in bench/reference.
package reference

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// installTimeout bounds an installation, for which npm may download packages.
const installTimeout = 4 * time.Minute

// An Installation is a folder with the reference's modules, and the runtime that they need.
type Installation struct {
	Modules string // the folder node_modules
	Bun     string // the runtime's binary
}

// Install returns the installation for package.json and package-lock.json in the folder pins. It
// looks for the installation in the folder cache, and makes it if there is none. Several processes
// may install at the same time. It needs node and npm.
func Install(ctx context.Context, pins, cache string) (Installation, error) {
	hash := sha256.New()
	files := map[string][]byte{}
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, err := os.ReadFile(filepath.Join(pins, name))
		if err != nil {
			return Installation{}, fmt.Errorf("install the reference: %w", err)
		}
		files[name] = data
		fmt.Fprintf(hash, "%d\n%s", len(data), data)
	}
	dir := filepath.Join(cache, "reference-"+hex.EncodeToString(hash.Sum(nil))[:16])
	if _, err := os.Stat(dir); err == nil {
		return in(dir), nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Installation{}, fmt.Errorf("install the reference: %w", err)
	}
	// Install into a temporary folder and rename it at the end, so that no process finds half an
	// installation.
	work, err := os.MkdirTemp(cache, "reference-new-")
	if err != nil {
		return Installation{}, fmt.Errorf("install the reference: %w", err)
	}
	defer os.RemoveAll(work)
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(work, name), data, 0o644); err != nil {
			return Installation{}, fmt.Errorf("install the reference: %w", err)
		}
	}
	if err := npm(ctx, work); err != nil {
		return Installation{}, fmt.Errorf("install the reference: %w", err)
	}
	if err := os.Rename(work, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		if _, other := os.Stat(dir); other != nil { // no other process has installed it meanwhile
			return Installation{}, fmt.Errorf("install the reference: %w", err)
		}
	}
	return in(dir), nil
}

func in(dir string) Installation {
	modules := filepath.Join(dir, "node_modules")
	return Installation{Modules: modules, Bun: filepath.Join(modules, ".bin", "bun")}
}

// Link lets programs in the folder dir import the reference's modules.
func (i Installation) Link(dir string) error {
	link := filepath.Join(dir, "node_modules")
	if err := os.RemoveAll(link); err != nil { // this removes a link, not its target
		return fmt.Errorf("link the reference: %w", err)
	}
	if err := os.Symlink(i.Modules, link); err != nil {
		return fmt.Errorf("link the reference: %w", err)
	}
	return nil
}

// npm installs the packages of the lock file in dir, and checks that they work.
func npm(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	for _, command := range [][]string{
		// No scripts of packages run, except the one that installs Bun's binary.
		{"npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"},
		{"node", filepath.Join("node_modules", "bun", "install.js")},
		{in(dir).Bun, "--version"},
	} {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = dir
		cmd.WaitDelay = 5 * time.Second // npm's children may hold its pipes
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Run(); err != nil {
			text := said.Bytes()
			return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, text[max(0, len(text)-2000):])
		}
	}
	return nil
}
