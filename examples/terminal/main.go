// Command terminal is a chat in a terminal, a client of the page that `hearth serve` shows. Start it
// several times with different names.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/hearthws/hearth/client"
)

type login struct {
	Name string `json:"name"`
}

type line struct {
	Room string `json:"room"`
	Text string `json:"text"`
	From struct {
		User string `json:"user"`
	} `json:"from,omitzero"`
}

func main() {
	name := "ada"
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	if err := chat(context.Background(), name, client.Config{URL: "ws://localhost:8080/ws"}, os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// chat sends the lines of in to the room tea, and writes what is said there to out.
func chat(ctx context.Context, name string, cfg client.Config, in io.Reader, out io.Writer) error {
	cfg.Credentials = login{name}
	cfg.OnState = func(s client.State) { fmt.Fprintln(out, "*", s.Phase) }
	c, err := client.New(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	client.On(c, "say", func(l line) { fmt.Fprintf(out, "%s: %s\n", l.From.User, l.Text) })
	room, err := c.Join("tea", client.RoomConfig{})
	if err != nil {
		return err
	}
	if err := c.Connect(ctx); err != nil {
		return err
	}
	if err := room.Wait(ctx); err != nil {
		return err
	}
	scanner := bufio.NewScanner(in)
	for scanner.Scan() {
		if _, err := client.Request[any](ctx, c, "say", line{Room: "tea", Text: scanner.Text()}); err != nil {
			return err
		}
	}
	return scanner.Err()
}
