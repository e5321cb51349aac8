//go:build stepclock

package main

import "time"

// step moves the wall clock. The overlay adds the variable to package time.
func step(seconds int64) { time.WallStep += seconds }
