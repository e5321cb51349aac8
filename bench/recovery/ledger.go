package main

import "fmt"

// A ledger has what one client received in one room, whose messages are numbered from 1. It belongs
// to the goroutine of the client until that has ended.
type ledger struct {
	seen      []uint64 // one bit for each number
	last      int      // the highest number so far
	recovered int      // received after a join from a position

	// reporting means that the server has said that messages after last may be missing.
	reporting bool
	reported  []span

	duplicates int // received again
	disordered int // received after a higher number
}

// A span is the numbers from first to last, both included.
type span struct{ first, last int }

// add counts a message. It reports whether the message is new.
func (l *ledger) add(number int, recovered bool) bool {
	word, bit := number/64, uint64(1)<<(number%64)
	for len(l.seen) <= word {
		l.seen = append(l.seen, 0)
	}
	if l.seen[word]&bit != 0 {
		l.duplicates++
		return false
	}
	l.seen[word] |= bit
	if recovered {
		l.recovered++
	}
	if number < l.last {
		l.disordered++
		return true
	}
	l.endReport(number - 1)
	l.last = number
	return true
}

// report notes that messages after the last one may be missing.
func (l *ledger) report() { l.reporting = true }

// endReport ends a report: messages up to a number are reported if they are missing.
func (l *ledger) endReport(until int) {
	if l.reporting && until > l.last {
		l.reported = append(l.reported, span{l.last + 1, until})
	}
	l.reporting = false
}

// A tally adds up ledgers.
type tally struct {
	Expected   int `json:"expected"`
	Live       int `json:"live"`
	Recovered  int `json:"recovered"`
	Reported   int `json:"reported"`   // missing, and the server has said so
	Missed     int `json:"missed"`     // missing, and the server has not said so
	Duplicates int `json:"duplicates"` // received again
	Disordered int `json:"disordered"` // received after a later message
}

// settle adds a ledger of a room in which messages 1 to sent were published. It ends an open
// report. Afterwards the ledger must not be used.
func (t *tally) settle(l *ledger, sent int) {
	l.endReport(sent)
	distinct, reported := 0, 0
	for n := 1; n <= sent; n++ {
		switch {
		case l.has(n):
			distinct++
		case l.hasReported(n):
			reported++
		}
	}
	t.Expected += sent
	t.Live += distinct - l.recovered
	t.Recovered += l.recovered
	t.Reported += reported
	t.Missed += sent - distinct - reported
	t.Duplicates += l.duplicates
	t.Disordered += l.disordered
}

func (l *ledger) has(number int) bool {
	word := number / 64
	return word < len(l.seen) && l.seen[word]&(1<<(number%64)) != 0
}

func (l *ledger) hasReported(number int) bool {
	for _, s := range l.reported {
		if s.first <= number && number <= s.last {
			return true
		}
	}
	return false
}

// received returns the share of the expected messages that arrived, in percent.
func (t tally) received() float64 {
	if t.Expected == 0 {
		return 0
	}
	return 100 * float64(t.Live+t.Recovered) / float64(t.Expected)
}

// perfect reports whether all messages arrived once, in order.
func (t tally) perfect() bool {
	return t.Expected > 0 && t.Live+t.Recovered == t.Expected && t.Duplicates == 0 && t.Disordered == 0
}

func (t tally) String() string {
	return fmt.Sprintf("%.2f %% of %d, %d recovered, %d reported, %d missed, %d twice, %d out of order",
		t.received(), t.Expected, t.Recovered, t.Reported, t.Missed, t.Duplicates, t.Disordered)
}
