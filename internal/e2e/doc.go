// Package e2e tests the whole server through its public API and real connections: every way to
// serve, several servers on one broker, encryption, limits, and the scripts in testdata.
package e2e
