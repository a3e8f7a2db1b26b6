// Command bbs runs one replica of the BBS.
package main

import (
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"muster/bbs"
	"muster/internal/daemon"
)

// How often garbage is collected, unless the environment says so with GOGC and GOMEMLIMIT.
const (
	// gcPercent is how much garbage may be made before it is collected, in percent of what is in use, at
	// most. Calls leave a lot of it behind, and little stays. Up: less processor time, more memory; down:
	// the other way round; 100 is the default of Go.
	gcPercent = 400
	// gcHeadroom is how much that may be in bytes, unless so much is in use that it would be collected all
	// the time: then minPercent counts. Up and down: as gcPercent, where much is in use.
	gcHeadroom = 192 << 20
	minPercent = 50
	// adjustEvery is how often the percentage is adjusted to what is in use.
	adjustEvery = time.Second
	// memoryLimit is the size in bytes from which on garbage is collected sooner than that. Up: a replica
	// with many records or watches may become larger; down: the same for a small machine.
	memoryLimit = 2 << 30
)

func main() {
	if os.Getenv("GOGC") == "" {
		go adjust()
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	os.Exit(daemon.Main("bbs", bbs.Defaults(), bbs.Run))
}

// adjust keeps the headroom of the heap, as long as the process lives.
func adjust() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for now := 0; ; time.Sleep(adjustEvery) {
		metrics.Read(live)
		if want := percent(live[0].Value.Uint64()); want != now {
			debug.SetGCPercent(want)
			now = want
		}
	}
}

// percent returns how much garbage may be made while so many bytes are in use.
func percent(live uint64) int {
	if live == 0 {
		return gcPercent
	}
	return int(math.Max(minPercent, math.Min(gcPercent, float64(gcHeadroom)/float64(live)*100)))
}
