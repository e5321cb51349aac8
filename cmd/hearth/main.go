// Command hearth is a realtime WebSocket server. Run hearth --help for its usage.
package main

import (
	"os"

	"github.com/hearthws/hearth/internal/cli"
)

func main() { os.Exit(cli.Run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) }
