// Package app is the standalone server behind `hearth serve`: its configuration, its logs, its life
// cycle from listening to draining, and its demo page. It uses only the public API of package
// hearth.
//
// It has only development mode: clients sign in with any name and may join any room, and the
// handlers of demo.go serve the page. Because a client can claim any name, the server listens only
// on addresses that other machines cannot reach.
package app
