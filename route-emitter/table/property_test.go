package table

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/bbs/lrp"
)

// router believes messages the way a router does: an endpoint is an address, a URI has endpoints.
type router map[string]string

func (r router) hear(ms []Message) {
	for _, m := range ms {
		for _, uri := range m.Body.URIs {
			k := fmt.Sprintf("%s %s:%d/%d", uri, m.Body.Host, m.Body.Port, m.Body.TLSPort)
			if m.Kind == Unregister {
				delete(r, k)
				continue
			}
			r[k] = fmt.Sprint(m.Body.PrivateInstanceID, m.Body.PrivateInstanceIndex, m.Body.App, m.Body.Protocol, m.Body.RouteServiceURL, string(m.Body.Options), m.Body.Tags)
		}
	}
}

// history makes the versions of every record of a small world, and returns them record by record.
func history(t *rapid.T) [][]any {
	var records [][]any
	for _, name := range []string{"p", "q"} {
		var versions []any
		for v := range rapid.IntRange(1, 4).Draw(t, "versions of "+name) {
			element := route(rapid.SampledFrom([]string{"", name + "1.example", name + "1.example " + name + "2.example"}).Draw(t, "hosts"),
				rapid.SampledFrom([]string{"", `,"options":{"loadbalancing":"hash"}`, `,"protocol":"http2"`}).Draw(t, "extra"))
			d := desire(uint32(v), rapid.Int32Range(0, 3).Draw(t, "instances"), element)
			d.Process, d.LogGUID, d.Tag.Epoch = lrp.ProcessGUID(name), name, name
			versions = append(versions, d)
		}
		records = append(records, versions)
		for index := range int32(2) {
			for _, presence := range []lrp.Presence{lrp.Ordinary, lrp.Suspect} {
				var versions []any
				for v := range rapid.IntRange(0, 4).Draw(t, "versions of an instance") {
					a := running(index, uint32(v))
					a.Process, a.Presence = lrp.ProcessGUID(name), presence
					a.Tag.Epoch = fmt.Sprint(name, index, presence)
					a.Instance = lrp.InstanceGUID(fmt.Sprint(name, index, presence, rapid.IntRange(0, 1).Draw(t, "attempt")))
					// Instances of one process fight for few ports; processes have a cell of their own.
					a.NetInfo.Address = "10.0.0." + name
					a.NetInfo.Ports = []lrp.PortMapping{{ContainerPort: 8080, HostPort: uint32(rapid.IntRange(60000, 60002).Draw(t, "port"))}}
					a.Since = time.Unix(int64(rapid.IntRange(1, 3).Draw(t, "since")), 0)
					a.State = rapid.SampledFrom([]lrp.State{lrp.Running, lrp.Running, lrp.Claimed, lrp.Crashed}).Draw(t, "state")
					a.Routable = rapid.SampledFrom([]bool{true, true, false}).Draw(t, "routable")
					a.Retiring = a.State == lrp.Running && rapid.SampledFrom([]bool{false, false, true}).Draw(t, "retiring")
					versions = append(versions, a)
				}
				records = append(records, versions)
			}
		}
	}
	return records
}

// TestOrderLeavesNoTrace (T1 to T4): whatever the order in which the versions of all records arrive,
// also repeated and newest first, table and router end where one list of the newest versions ends.
func TestOrderLeavesNoTrace(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		records := history(t)
		removed := map[int]bool{}
		var events []any
		newest := Snapshot{Fresh: []lrp.Domain{"cf-apps"}}
		for i, versions := range records {
			if len(versions) == 0 {
				continue
			}
			events = append(events, versions...)
			last := versions[len(versions)-1]
			removed[i] = rapid.SampledFrom([]bool{false, false, false, true}).Draw(t, "removed")
			switch v := last.(type) {
			case lrp.SchedulingInfo:
				if removed[i] {
					events = append(events, lrp.SchedulingInfo{Process: v.Process, Tag: v.Tag, LogGUID: "gone"})
				} else {
					newest.Desired = append(newest.Desired, v)
				}
			case lrp.Actual:
				if removed[i] {
					events = append(events, lrp.Change{Before: &v})
				} else {
					newest.Actuals = append(newest.Actuals, v)
				}
			}
		}
		order := append(rapid.Permutation(events).Draw(t, "order"), rapid.Permutation(events).Draw(t, "again")...)

		tb, heard := New(defaults), router{}
		for _, ev := range order {
			var out Output
			switch v := ev.(type) {
			case lrp.SchedulingInfo:
				if v.LogGUID == "gone" {
					out = tb.RemoveDesired(v)
				} else {
					out = tb.SetDesired(v)
				}
			case lrp.Actual:
				out = tb.Change(after(v))
			case lrp.Change:
				out = tb.Change(v)
			}
			checkOrder(t, out.Messages)
			heard.hear(out.Messages)
		}

		fresh, want := New(defaults), router{}
		want.hear(fresh.Swap(newest).Messages)
		if diff := cmp.Diff(said(fresh.Registrations()), said(tb.Registrations())); diff != "" {
			t.Fatalf("table differs from that of a list:\n%s", diff)
		}
		if diff := cmp.Diff(want, heard); diff != "" {
			t.Fatalf("router differs from one that heard the list:\n%s", diff)
		}
		if tb.Count() != len(heard) || fresh.Count() != len(want) {
			t.Fatalf("counts %d and %d, routers know %d and %d", tb.Count(), fresh.Count(), len(heard), len(want))
		}
		// A list after the events changes nothing, and repeats hurt nobody.
		if out := tb.Swap(newest); len(out.Messages) > 0 {
			t.Fatalf("the list says %q", said(out.Messages))
		}
		for range 3 {
			heard.hear(tb.Repeat())
		}
		if diff := cmp.Diff(want, heard); diff != "" {
			t.Fatalf("repeats broke the router:\n%s", diff)
		}
	})
}

// checkOrder (T3): unregisters come first, and name nothing that is registered with them.
func checkOrder(t *rapid.T, ms []Message) {
	if !slices.IsSortedFunc(ms, func(a, b Message) int {
		if a.Kind == b.Kind {
			return 0
		}
		if a.Kind == Unregister {
			return -1
		}
		return 1
	}) {
		t.Fatalf("a register before an unregister: %q", said(ms))
	}
	before, after := router{}, router{}
	for _, m := range ms {
		r := after
		if m.Kind == Unregister {
			r = before
			m.Kind = Register
		}
		r.hear([]Message{m})
	}
	for k := range before {
		if _, both := after[k]; both {
			t.Fatalf("%s is unregistered and registered: %q", k, said(ms))
		}
	}
}

func BenchmarkSwap(b *testing.B) {
	s := Snapshot{Fresh: []lrp.Domain{"cf-apps"}}
	for i := range 10_000 {
		d := desire(1, 1, route(fmt.Sprintf("h%d.example", i), ""))
		d.Process = lrp.ProcessGUID(fmt.Sprint("p", i))
		a := running(0, 1)
		a.Process, a.Instance = d.Process, lrp.InstanceGUID(fmt.Sprint("i", i))
		a.NetInfo.Address = fmt.Sprintf("10.%d.%d.1", i/250, i%250)
		s.Desired, s.Actuals = append(s.Desired, d), append(s.Actuals, a)
	}
	tb := New(defaults)
	for b.Loop() {
		tb.Swap(s)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/10_000, "us/route")
}
