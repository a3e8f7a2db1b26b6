package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Watchers that move between two replicas at random, one of which is killed and started again while
// instances start, get each change that their filters select once and in order.
func TestWatchersSurviveAKilledReplica(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "muster/bbs/cmd/bbs")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	o := options{bin: bin, watchers: 60, callers: 32, size: 1500, rounds: 1, stay: 300 * time.Millisecond, kill: true}
	if err := run(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	var res result
	if err := json.Unmarshal(out.Bytes(), &res); err != nil {
		t.Fatal(err)
	}
	if res.Lost != 0 || res.Repeated != 0 || res.Resumes < o.watchers {
		t.Errorf("%+v, want nothing lost, nothing repeated, and %d resumes or more", res, o.watchers)
	}
}
