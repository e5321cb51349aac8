// Package archtest holds the project to its shape: which package may import which, and habits that no linter checks.
// It is tests only, which read the source files as they are, build tags or not.
package archtest
