package emitter_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hearthws/hearth/broker"
	"github.com/hearthws/hearth/broker/memory"
	"github.com/hearthws/hearth/emitter"
	"github.com/hearthws/hearth/protocol"
)

// connect stands for redis.New of broker/redis. A server on the bus reports the messages that it
// receives.
func connect() (b *memory.Broker, server *memory.Broker, said chan string) {
	bus := memory.NewBus(memory.Config{})
	server, said = bus.Broker(), make(chan string, 10)
	err := server.Start(context.Background(), broker.Receiver{
		ServerID: "a server",
		Deliver:  func(m protocol.Message) { said <- fmt.Sprintln(m.Type, m.Target, m.Event, string(m.Data), m.Exclude) },
	})
	if err != nil {
		panic(err)
	}
	return bus.Broker(), server, said
}

func Example() {
	b, server, said := connect() // redis.New(redis.Config{URL: "redis://localhost:6379"})
	defer server.Close()
	e, err := emitter.New(b)
	if err != nil {
		panic(err)
	}
	defer e.Close()

	ctx := context.Background()
	if err := e.Send(ctx, emitter.ToUser("ada"), "mail", map[string]int{"unread": 3}); err != nil {
		panic(err)
	}
	// Raw JSON is sent unchanged. The client with that id is excluded.
	if err := e.Send(ctx, emitter.ToRoom("lobby").Except("2f1b7c1e"), "price", json.RawMessage(`19.90`)); err != nil {
		panic(err)
	}
	if err := e.Send(ctx, emitter.ToAll(), "maintenance", "in five minutes"); err != nil {
		panic(err)
	}
	fmt.Print(<-said, <-said, <-said)
	// Output:
	// user ada mail {"unread":3} []
	// room lobby price 19.90 [2f1b7c1e]
	// broadcast  maintenance "in five minutes" []
}

// A batch sends many events in order, without waiting for each one.
func ExampleBatch() {
	b, server, said := connect()
	defer server.Close()
	e, err := emitter.New(b)
	if err != nil {
		panic(err)
	}
	defer e.Close()

	batch := e.Batch()
	for i, name := range []string{"ada", "", "grace"} {
		batch.Add(emitter.ToUser(name), "number", i)
	}
	for i, err := range batch.Send(context.Background()) {
		if err != nil {
			fmt.Println(i, err)
		}
	}
	fmt.Print(<-said, <-said)
	// Output:
	// 1 emitter: send "number" to user "": invalid target: the id of the user is empty
	// user ada number 0 []
	// user grace number 2 []
}
