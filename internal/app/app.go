// Package app is the standalone server behind `hearth serve`: its configuration, its logs, its life from listening to
// draining, and the page that it shows. It uses only the public API of package hearth.
//
// What exists so far is development mode: any name is a user, any room may be joined, and the handlers of demo.go serve
// the page. Because anybody may be anybody there, such a server listens on this machine only.
package app
