package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

const (
	silentSockets = 6000 // sockets that the attacker opens in total, in each way
	silentLimit   = 3000 // --max-connections

	// The sockets that one address may hold: twice the limit on unauthenticated clients of one
	// address, since as many connections again may not be WebSockets yet.
	mostHeld = 512
)

// silent measures how many sockets one silent address can hold, and whether the server rejects
// other addresses meanwhile.
func silent(ctx context.Context, l *lab) ([]figure, error) {
	var figures []figure
	for _, way := range []struct {
		name string
		open func(conn net.Conn, addr string) error
	}{
		{"WebSockets", openWebSocket},
		{"half requests", openHalf},
		{"keep-alives", openKeepAlive},
		{"long headers", openLongHeader},
	} {
		held, rejected, err := hold(ctx, l, way.open)
		l.close()
		if err != nil {
			return figures, fmt.Errorf("%s: %w", way.name, err)
		}
		rejected.name, held.name = "others rejected, "+way.name, "sockets held, "+way.name
		figures = append(figures, rejected, held)
	}
	return figures, nil
}

// openWebSocket accepts any answer: the socket counts whether it was upgraded or not.
func openWebSocket(conn net.Conn, addr string) error {
	if _, err := io.WriteString(conn, handshake(addr)); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 512))
	return err
}

func openHalf(conn net.Conn, addr string) error {
	_, err := io.WriteString(conn, strings.TrimSuffix(handshake(addr), "\r\n\r\n"))
	return err
}

func openKeepAlive(conn net.Conn, addr string) error {
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: "+addr+"\r\n\r\n"); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// openLongHeader sends more than the 16 KiB that a server accepts, but little enough that it is not
// rejected at once, and no end.
func openLongHeader(conn net.Conn, addr string) error {
	request := strings.TrimSuffix(handshake(addr), "\r\n") + "X-Filling: " + strings.Repeat("x", 18<<10)
	_, err := io.WriteString(conn, request)
	return err
}

// hold opens sockets from one address and counts the answers to other addresses.
func hold(ctx context.Context, l *lab, open func(net.Conn, string) error) (held, rejected figure, err error) {
	const (
		attackers = 32
		longest   = 5 * time.Second // for opening
		settle    = time.Second
	)
	s, err := l.serve(ctx, "--max-connections", fmt.Sprint(silentLimit))
	if err != nil {
		return held, rejected, err
	}
	var opened atomic.Int64
	sw := start(ctx, attackers, func(ctx context.Context, _ int) {
		opening, cancel := context.WithTimeout(ctx, longest)
		defer cancel()
		for opened.Add(1) <= silentSockets && opening.Err() == nil {
			conn, err := dialTCP(ctx, attacker, s.addr) // held until ctx is done
			if err != nil {
				_ = sleep(opening, rejectedPause)
				continue
			}
			if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
				continue
			}
			_ = open(conn, s.addr) // rejected or not, it is held
		}
	})
	defer sw.stop()
	tries, failed, why := 0, 0, error(nil)
	begun, last := time.Now(), time.Time{}
	for {
		c, err := connect(ctx, honest, s.addr)
		tries++
		if err != nil {
			failed, why = failed+1, err
		} else {
			c.close()
		}
		if last.IsZero() && (opened.Load() >= silentSockets || time.Since(begun) > longest) {
			last = time.Now()
		}
		if !last.IsZero() && time.Since(last) > settle {
			break
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return held, rejected, err
		}
	}
	n, err := s.heldBy(attacker)
	if err != nil {
		return held, rejected, err
	}
	if !s.Alive() {
		return held, rejected, errors.New("the server has ended")
	}
	rejected = figure{value: float64(failed), target: atMost(0), note: fmt.Sprintf("of %d", tries)}
	if why != nil {
		rejected.note += ": " + why.Error()
	}
	held = figure{value: float64(n), target: atMost(mostHeld),
		note: fmt.Sprintf("of %d opened; memory %s MiB", min(opened.Load(), silentSockets), number(s.peak()))}
	return held, rejected, nil
}
