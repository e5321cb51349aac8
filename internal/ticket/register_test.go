package ticket_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hearthws/hearth/internal/ticket"
	"pgregory.net/rapid"
)

func issued(client byte, generation uint32, user string) *ticket.Ticket {
	return &ticket.Ticket{Client: [16]byte{client}, Generation: generation, User: user, Issued: time.Now()}
}

// TestRegisterUse checks that one ticket of each generation is accepted.
func TestRegisterUse(t *testing.T) {
	t.Parallel()
	r := ticket.NewRegister(lifetime, 10, 10)
	for i, step := range []struct {
		tk   *ticket.Ticket
		want error
	}{
		{issued(1, 0, "u"), nil},
		{issued(1, 0, "u"), ticket.ErrUsed},
		{issued(2, 0, "u"), nil},
		{issued(1, 1, "u"), nil},
		{issued(1, 0, "u"), ticket.ErrUsed},
		{issued(1, 1, "u"), ticket.ErrUsed},
		{issued(1, 5, "u"), nil},
		{issued(1, 4, "u"), ticket.ErrUsed},
		{issued(1, 1<<32-1, "u"), ticket.ErrUsed},
		{issued(1, 1<<32-2, "u"), nil},
		{issued(1, 1<<32-2, "u"), ticket.ErrUsed},
	} {
		if err := r.Accept(step.tk); !errors.Is(err, step.want) {
			t.Errorf("step %d: %v, want %v", i, err, step.want)
		}
	}
	if err := r.Use([16]byte{2}, 0); !errors.Is(err, ticket.ErrUsed) {
		t.Errorf("another node uses the same ticket: %v", err)
	}
	if err := r.Use([16]byte{2}, 1); err != nil {
		t.Errorf("another node uses the next ticket: %v", err)
	}
	if err := r.Accept(issued(2, 1, "u")); !errors.Is(err, ticket.ErrUsed) {
		t.Errorf("after another node used it: %v", err)
	}
}

// TestRegisterFull checks that a full register rejects further sessions, and does not forget.
func TestRegisterFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := ticket.NewRegister(lifetime, 3, 10)
		for i := range byte(3) {
			if err := r.Accept(issued(i, 0, "")); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Accept(issued(3, 0, "")); !errors.Is(err, ticket.ErrFull) {
			t.Errorf("one more: %v", err)
		}
		for i := range byte(3) {
			if err := r.Accept(issued(i, 1, "")); err != nil {
				t.Errorf("a session that is known: %v", err)
			}
		}
		time.Sleep(lifetime)
		if err := r.Accept(issued(3, 0, "")); !errors.Is(err, ticket.ErrFull) {
			t.Errorf("within the time to remember: %v", err)
		}
		time.Sleep(2 * (lifetime + 2*ticket.MaxSkew))
		for i := range byte(3) {
			if err := r.Accept(issued(10+i, 0, "")); err != nil {
				t.Errorf("later: %v", err)
			}
		}
		r.RevokeClient([16]byte{99}) // there is no room to remember one client
		time.Sleep(time.Second)
		if err := r.Accept(issued(10, 1, "")); !errors.Is(err, ticket.ErrRevoked) {
			t.Errorf("after a revocation that did not fit: %v", err)
		}
		time.Sleep(ticket.MaxSkew)
		if err := r.Accept(issued(10, 1, "")); err != nil {
			t.Errorf("a ticket that was issued later: %v", err)
		}
	})
}

// TestRegisterRevoke checks the revocation of clients and users.
func TestRegisterRevoke(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := ticket.NewRegister(lifetime, 10, 2)
		before, other := issued(1, 0, "ada"), issued(2, 0, "eve")
		r.RevokeUser("ada")
		if err := r.Accept(before); !errors.Is(err, ticket.ErrRevoked) {
			t.Errorf("a ticket of the user: %v", err)
		}
		if err := r.Accept(other); err != nil {
			t.Errorf("a ticket of another user: %v", err)
		}
		time.Sleep(ticket.MaxSkew + time.Millisecond)
		if err := r.Accept(before); !errors.Is(err, ticket.ErrRevoked) {
			t.Errorf("later: %v", err)
		}
		if err := r.Accept(issued(1, 0, "ada")); err != nil {
			t.Errorf("a ticket that was issued later: %v", err)
		}

		r.RevokeClient([16]byte{3})
		for _, generation := range []uint32{0, 1, 1<<32 - 2} {
			if err := r.Accept(issued(3, generation, "bob")); !errors.Is(err, ticket.ErrUsed) {
				t.Errorf("a ticket of the client: %v", err)
			}
		}

		old := issued(4, 0, "dan")
		for i := range 3 { // more than the register remembers
			r.RevokeUser(fmt.Sprint("user ", i))
		}
		if err := r.Accept(old); !errors.Is(err, ticket.ErrRevoked) {
			t.Errorf("after too many revocations: %v", err)
		}
		if err := r.Accept(issued(5, 0, "ada")); !errors.Is(err, ticket.ErrRevoked) {
			t.Errorf("after too many revocations: %v", err)
		}
	})
}

// TestRegisterRemembers compares the register with a list of everything that happened: it never
// accepts a ticket twice while the ticket is valid.
func TestRegisterRemembers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(*testing.T) {
			r := ticket.NewRegister(lifetime, 1000, 1000)
			used := map[byte]uint32{} // by client: the generation that follows
			revoked := map[string]time.Time{}
			var tickets []*ticket.Ticket
			for range rapid.IntRange(1, 60).Draw(rt, "steps") {
				time.Sleep(time.Duration(rapid.IntRange(0, 100).Draw(rt, "pause")) * time.Second)
				switch client := rapid.ByteRange(0, 3).Draw(rt, "client"); rapid.IntRange(0, 3).Draw(rt, "action") {
				case 0, 1:
					tickets = append(tickets, issued(client, used[client], fmt.Sprint(client%2)))
				case 2:
					user := fmt.Sprint(client % 2)
					r.RevokeUser(user)
					revoked[user] = time.Now()
				case 3:
					if len(tickets) == 0 {
						continue
					}
					tk := rapid.SampledFrom(tickets).Draw(rt, "ticket")
					if time.Since(tk.Issued) >= lifetime {
						continue // the Sealer rejects it
					}
					err, c := r.Accept(tk), tk.Client[0]
					reused := tk.Generation < used[c]
					revoked := !tk.Issued.After(revoked[tk.User])
					if err == nil && (reused || revoked) {
						rt.Fatalf("accepted %+v: used before %v, revoked %v", tk, reused, revoked)
					}
					if err == nil {
						used[c] = tk.Generation + 1
					}
				}
			}
		})
	})
}
