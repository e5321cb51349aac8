// Command serve runs the server's side of the behaviour suite for a client in another language. It
// prints the addresses for the client, and ends when its standard input ends. See docs/clients.md.
package main

import (
	"fmt"
	"os"

	"github.com/hearthws/hearth/internal/test/behaviour"
)

func main() {
	if err := behaviour.Serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}
