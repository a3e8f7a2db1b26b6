package gorouter

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster/gorouter/internal/subscribe"
)

// TestWhatIsHeardAgainDoesTheSame sends random messages, most of them again and again, to two registries, of which one
// forgets everything it has heard before each message: what they know must stay the same, ages included.
func TestWhatIsHeardAgainDoesTheSame(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		quick, now := registryWorld(t)
		slow, slowNow := registryWorld(t)
		message := rapid.Custom(func(t *rapid.T) string {
			pick := func(what string, of ...string) string { return rapid.SampledFrom(of).Draw(t, what) }
			return fmt.Sprintf(`{"host":"h","port":%s,"uris":[%s],"private_instance_id":"%s","route_service_url":"%s","availability_zone":"%s","stale_threshold_in_seconds":%s}`,
				pick("port", "1", "2"), pick("uris", `"a"`, `"b/P"`, `"a","b/p"`, `"/"`, ``), pick("instance", "i", "j", ""),
				pick("route service", "", "", "https://x"), pick("zone", "z", "y"), pick("stale", "0", "60"))
		})
		said := rapid.SliceOfN(message, 1, 6).Draw(rt, "messages")
		for range rapid.IntRange(1, 50).Draw(rt, "steps") {
			m := messages(rapid.SampledFrom([]string{"", "", "", "-"}).Draw(rt, "kind") + rapid.SampledFrom(said).Draw(rt, "message"))
			quick.messages(m)
			slow.heard = newHeard(time.Hour)
			slow.messages(m)
			*now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(rt, "seconds")) * time.Second)
			*slowNow = *now
			quick.tick(true)
			slow.tick(true)
			if a, b := contents(quick), contents(slow); a != b {
				rt.Fatalf("after %s: got\n%swant\n%s", m[0].Payload, a, b)
			}
		}
	})
}

func contents(r *registry) string {
	var lines []string
	for p := range r.table.Load().All() {
		line := fmt.Sprintf("%s %q:", p.URI, p.RouteService)
		for _, e := range p.Endpoints {
			line += fmt.Sprintf(" %s %s %s %v", e.Address, e.InstanceID, e.Zone, e.StaleAfter)
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "") + fmt.Sprintln(len(r.backends), "backends")
}

func TestWhatIsNotHeardAnyMoreIsForgotten(t *testing.T) {
	t.Parallel()
	r, now := registryWorld(t)
	r.messages(messages(`{"host":"h","port":1,"uris":["a"]}`))
	for range 12 { // four minutes
		*now = now.Add(20 * time.Second)
		r.messages(messages(`{"host":"h","port":2,"uris":["b"]}`))
	}
	if n := len(r.heard.young) + len(r.heard.old); n != 2 {
		t.Errorf("%d messages are remembered, want the one that is still heard, in both generations", n)
	}
}

func TestRefreshingAllocatesNothing(t *testing.T) {
	r, _ := registryWorld(t)
	again := messages(`{"host":"h","port":1,"uris":["a.example.com","b.example.com/path"],"tags":{"x":"y"}}`)
	r.messages(again)
	before := r.table.Load()
	if n := testing.AllocsPerRun(100, func() { r.messages(again) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if r.table.Load() != before {
		t.Error("a refresh has made a new table")
	}
}

// TestLogSaysEnoughAndNotMore counts the lines of a router that learns many routes and hears them again.
func TestLogSaysEnoughAndNotMore(t *testing.T) {
	t.Parallel()
	r, now := registryWorld(t)
	var log bytes.Buffer
	r.log = slog.New(slog.NewTextHandler(&log, nil))
	var batch []subscribe.Message
	for i := range 10_000 {
		batch = append(batch, messages(fmt.Sprintf(`{"host":"h","port":1,"uris":["a%d"],"private_instance_id":"old"}`, i))...)
	}
	lines := func() int { defer log.Reset(); return strings.Count(log.String(), "\n") }
	r.messages(batch)
	if n := lines(); n != linesPerPeriod {
		t.Errorf("%d lines about 10,000 routes", n)
	}
	*now = now.Add(linePeriod)
	r.tick(true)
	if text := log.String(); !strings.Contains(text, "endpoints_registered=9900 ") || lines() != 1 {
		t.Errorf("the rest: %s", text)
	}
	r.messages(batch)
	if n := lines(); n != 0 {
		t.Errorf("%d lines about refreshes", n)
	}
	r.messages(messages(`{"host":"h","port":1,"uris":["a7"],"private_instance_id":"new","app":"x"}`))
	if text := log.String(); !strings.Contains(text, `"address taken over"`) || !strings.Contains(text, "was_instance_guid=old") || lines() != 1 {
		t.Errorf("a port that changed hands: %s", text)
	}
}
