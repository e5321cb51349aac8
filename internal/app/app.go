// Package app is the standalone server behind `hearth serve`: its configuration, its logs, its life
// cycle from listening to draining, and its demo page. It uses only the public API of package
// hearth.
//
// In development mode clients sign in with any name and may join any room, and the handlers of
// demo.go serve the page. Because a client can claim any name, the server then listens only on
// addresses that other machines cannot reach. Otherwise the callbacks of service.go apply: clients
// authenticate as configured, and may do what their credentials allow.
package app
