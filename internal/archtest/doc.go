// Package archtest checks the structure of the project: which package may import which, and habits
// that no linter checks. It has only tests, which read all source files, independent of build tags.
package archtest
