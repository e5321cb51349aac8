package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

const clusterNodes = 3

// rolling restarts the nodes one after the other.
func rolling(ctx context.Context, l *lab, e entrant, size load) (result, error) {
	cl, err := startCluster(ctx, l, e, clusterNodes, nodeOptions{drain: size.drain})
	if err != nil {
		return result{}, err
	}
	c, r, _, err := disturb(ctx, cl, size, func(ctx context.Context, cl *cluster, c *crowd) error {
		for number := range cl.nodes {
			if err := sleep(ctx, size.before); err != nil {
				return err
			}
			if err := cl.restart(ctx, number); err != nil {
				return err
			}
			if err := c.awaitReady(ctx, size.clients); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	restarted := c.returned(func(a absence) bool { return a.cause == causeRestart }, whenLost)
	r.returned = c.returned(func(absence) bool { return true }, whenLost)
	r.add("closed with 1012 or 1001", float64(len(restarted)), "")
	if e.recovers {
		r.require("closed with 1012 or 1001", float64(len(restarted)), atLeast, float64(size.clients))
	}
	return r, nil
}

func whenLost(a absence) time.Time { return a.lost }

// avalanche kills a node, so that all of its clients connect to the others.
func avalanche(ctx context.Context, l *lab, e entrant, size load) (result, error) {
	cl, err := startCluster(ctx, l, e, clusterNodes, nodeOptions{})
	if err != nil {
		return result{}, err
	}
	var killed time.Time
	c, r, _, err := disturb(ctx, cl, size, func(ctx context.Context, cl *cluster, c *crowd) error {
		if err := sleep(ctx, size.before); err != nil {
			return err
		}
		killed = time.Now()
		return cl.kill(ctx, 0)
	})
	if err != nil {
		return r, err
	}
	lost := func(a absence) bool { return a.node == 0 && a.lost.After(killed) }
	r.returned = c.returned(lost, whenLost)
	back := c.returned(lost, func(absence) time.Time { return killed })
	if len(back) == 0 {
		return r, errors.New("no client of the killed node is back")
	}
	r.add("clients of the killed node", float64(len(back)), "")
	r.add("95 % of them were back after", percentile(back, 95), "ms")
	r.add("100 % of them were back after", percentile(back, 100), "ms")
	return r, nil
}

// frozen stops a node, which its clients have to notice by themselves.
func frozen(ctx context.Context, l *lab, e entrant, size load) (result, error) {
	cl, err := startCluster(ctx, l, e, clusterNodes, nodeOptions{heartbeat: size.heartbeat})
	if err != nil {
		return result{}, err
	}
	// docs/protocol.md §13: interval, which is a third of the heartbeat timeout, and timeout.
	promised := size.heartbeat/3 + 10*time.Second
	const late = 250 * time.Millisecond // of a timer on a busy machine
	var stopped time.Time
	c, r, _, err := disturb(ctx, cl, size, func(ctx context.Context, cl *cluster, c *crowd) error {
		if err := sleep(ctx, size.before); err != nil {
			return err
		}
		stopped = time.Now()
		if err := cl.nodes[0].process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		if err := sleep(ctx, promised+late); err != nil {
			return err
		}
		err := c.awaitReady(ctx, size.clients)
		if resume := cl.nodes[0].process.Signal(syscall.SIGCONT); err == nil {
			err = resume
		}
		return err
	})
	if err != nil {
		return r, err
	}
	noticed := func(a absence) bool { return a.cause == causeDead && a.node == 0 }
	r.returned = c.returned(noticed, whenLost)
	took := c.between(noticed, func(absence) time.Time { return stopped }, whenLost)
	if len(took) == 0 {
		return r, fmt.Errorf("no client has noticed that its node was stopped for %v", promised+late)
	}
	r.add("clients that noticed", float64(len(took)), "")
	r.add("p50 until they noticed", percentile(took, 50), "ms")
	r.add("worst", percentile(took, 100), "ms")
	r.add("promised", float64(promised.Milliseconds()), "ms")
	r.require("ms until the last client noticed", percentile(took, 100), atMost, float64((promised + late).Milliseconds()))
	return r, nil
}
