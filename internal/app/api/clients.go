package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/hearthws/hearth"
)

// One selects one client, or the clients of one user.
type One struct {
	Client string `json:"client,omitempty" doc:"id of one client"`
	User   string `json:"user,omitempty" doc:"id of a user: all clients of the user"`
}

func (o One) target() (hearth.Target, error) { return Target{Client: o.Client, User: o.User}.target() }

// Disconnect is a request to close clients.
type Disconnect struct {
	One
	Code   int    `json:"code,omitempty" default:"1000" doc:"the close code: 3000 to 4999, or 1000, 1001, 1007 to 1014"`
	Reason string `json:"reason,omitempty" maxLength:"123" doc:"the reason in the close frame"`
}

// Rooms is a request to join or leave rooms.
type Rooms struct {
	One
	Rooms []string `json:"rooms" nullable:"false" minItems:"1" maxItems:"128" doc:"names of rooms"`
}

// Counted is the result of a request to all servers.
type Counted struct {
	Clients  int          `json:"clients" doc:"number of clients on the servers that have answered"`
	Complete bool         `json:"complete" doc:"whether all servers have answered without a failure"`
	Missing  []string     `json:"missing,omitempty" nullable:"false" doc:"ids of servers that did not answer in time; they may have done their part"`
	Failed   []NodeFailed `json:"failed,omitempty" nullable:"false" doc:"servers on which the request failed for some clients"`
}

// NodeFailed is a failure on one server.
type NodeFailed struct {
	Server string `json:"server" doc:"id of the server"`
	Detail string `json:"detail" doc:"what has failed"`
}

type counted struct{ Body Counted }

// countedOf converts the result of a call to all servers.
func countedOf(n int, err error) (*counted, error) {
	c := Counted{Clients: n, Complete: true}
	if partial, ok := errors.AsType[*hearth.ClusterError](err); ok {
		c.Complete, c.Missing, err = false, partial.Missing, nil
		for _, f := range partial.Failed {
			c.Failed = append(c.Failed, NodeFailed{f.NodeID, f.Err.Error()})
		}
	}
	if err != nil {
		return nil, err
	}
	return &counted{c}, nil
}

func (a *api) registerClients() {
	register(a, Manage, http.MethodPost, "/v1/disconnect", "disconnect", "Disconnect clients",
		"Closes the clients on all servers, and revokes their tickets, so that they cannot resume.", a.disconnect)
	register(a, Manage, http.MethodPost, "/v1/join", "join", "Join rooms",
		"Makes the clients members of the rooms. Clients that the user connects later do not join.",
		func(ctx context.Context, in *struct{ Body Rooms }) (*counted, error) {
			t, err := in.Body.target()
			if err != nil {
				return nil, err
			}
			return countedOf(a.Server.Join(ctx, t, in.Body.Rooms...))
		})
	register(a, Manage, http.MethodPost, "/v1/leave", "leave", "Leave rooms", "Removes the clients from the rooms.",
		func(ctx context.Context, in *struct{ Body Rooms }) (*counted, error) {
			t, err := in.Body.target()
			if err != nil {
				return nil, err
			}
			return countedOf(a.Server.Leave(ctx, t, in.Body.Rooms...))
		})
}

func (a *api) disconnect(ctx context.Context, in *struct{ Body Disconnect }) (*counted, error) {
	t, err := in.Body.target()
	if err != nil {
		return nil, err
	}
	name, _ := ctx.Value(keyName{}).(string)
	a.Log.Info("disconnecting clients", "target", t.String(), "code", in.Body.Code, "key", name)
	return countedOf(a.Server.Disconnect(ctx, t, in.Body.Code, in.Body.Reason))
}
