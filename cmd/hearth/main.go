// Command hearth is a realtime WebSocket server: see hearth --help.
package main

import (
	"os"

	"github.com/hearthws/hearth/internal/cli"
)

func main() { os.Exit(cli.Run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) }
