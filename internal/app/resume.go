package app

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hearthws/hearth"
)

// minResumeKey is the least length of a key, in bytes.
const minResumeKey = 32

var errResumeKey = errors.New("takes 32 random bytes or more in base64, as printed by: openssl rand -base64 32")

// parseResumeKey checks a key.
func parseResumeKey(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	_, err := decodeResumeKey(s)
	return s, err
}

// decodeResumeKey returns the bytes of a key. The error does not show the key.
func decodeResumeKey(s string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(key) < minResumeKey {
		return nil, errResumeKey
	}
	return key, nil
}

// readResumeKeys returns the keys in the lines of a file. It ignores empty lines.
func readResumeKeys(name string) ([][]byte, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var keys [][]byte
	for number, line := range strings.Split(string(b), "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, err := decodeResumeKey(line)
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", name, number+1, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s has no key", name)
	}
	return keys, nil
}

// resumeConfig returns the configuration of the tickets. It reads the file with the keys.
func resumeConfig(c Config) (hearth.Resume, error) {
	r := hearth.Resume{Enabled: c.Resume, Lifetime: c.ResumeLifetime}
	var err error
	switch {
	case c.ResumeKey != "":
		r.Keys = make([][]byte, 1)
		r.Keys[0], err = decodeResumeKey(c.ResumeKey)
	case c.ResumeKeyFile != "":
		r.Keys, err = readResumeKeys(c.ResumeKeyFile)
	}
	return r, err
}

// checkResume reports options for tickets that cannot work together.
func checkResume(c Config, wrong func(option, format string, args ...any)) {
	const off = "has no effect without resume: add --resume, or remove this option"
	switch {
	case c.ResumeKey != "" && c.ResumeKeyFile != "":
		wrong("resume-key", "resume-key-file is set, too: put this key into the file, or remove one of the options")
	case !c.Resume && c.ResumeKey != "":
		wrong("resume-key", off)
	case !c.Resume && c.ResumeKeyFile != "":
		wrong("resume-key-file", off)
	case c.Resume && c.Redis != "" && c.ResumeKey == "" && c.ResumeKeyFile == "":
		wrong("resume", "the servers of a Redis need the same key, or clients could not resume on another one: set resume-key or resume-key-file")
	}
	if c.ResumeLifetime < time.Second || c.ResumeLifetime > 24*time.Hour {
		wrong("resume-lifetime", "takes 1s to 24h")
	}
	if _, err := resumeConfig(c); err != nil {
		wrong("resume-key-file", "read the keys: %w", err)
	}
}
