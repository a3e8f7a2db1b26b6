package diego_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"muster/integration/diego"
)

const (
	instanceStream = "/v1/events/lrp_instances.r1"
	taskStream     = "/v1/events/tasks.r1"
	groupStream    = "/v1/events.r1"
)

// open opens a stream until the test ends.
func open(t *testing.T, c *diego.Client, method, path, cell string) *diego.Stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := c.Stream(ctx, method, path, m().Text(1, cell))
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); s.Close() })
	return s
}

// heard are the events of a stream so far.
type heard struct {
	*testing.T
	stream *diego.Stream
	next   int
}

// hear waits for an event and compares its name.
func (h *heard) hear(name string) diego.Message {
	h.Helper()
	ev, err := h.stream.Next()
	if err != nil {
		h.Fatalf("waiting for %s: %v", name, err)
	}
	if ev.ID != fmt.Sprint(h.next) || ev.Name != name {
		h.Fatalf("event %s %s, want %d %s", ev.ID, ev.Name, h.next, name)
	}
	h.next++
	return ev.Data
}

// is compares an event with the bytes that it must be.
func (h *heard) is(name string, got, want diego.Message) {
	h.Helper()
	if string(got) != string(want) {
		h.Errorf("%s is\n%q, want\n%q", name, got, want)
	}
}

// The life of a process as each kind of stream tells it.
func TestStreamsTellALife(t *testing.T) {
	t.Parallel()
	i := install(t)
	const trace = "2f3b1c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d"
	cc, c1 := i.cc.WithTrace(trace), i.cell("c1")
	do := func(c *diego.Client, path string, body diego.Message) {
		t.Helper()
		_, err := c.Do(t.Context(), path, body)
		must(t, err)
	}
	all := &heard{T: t, stream: open(t, i.operator, http.MethodPost, instanceStream, "")}
	older := &heard{T: t, stream: open(t, i.operator, http.MethodPost, "/v1/events/lrp_instances", "")}
	mine := &heard{T: t, stream: open(t, i.operator, http.MethodPost, instanceStream, "c1")}
	other := &heard{T: t, stream: open(t, i.operator, http.MethodPost, instanceStream, "c2")}
	cell := &heard{T: t, stream: open(t, c1, http.MethodPost, instanceStream, "c1")}
	group := &heard{T: t, stream: open(t, i.operator, http.MethodGet, groupStream, "")}
	groupOfCell := &heard{T: t, stream: open(t, i.operator, http.MethodGet, "/v1/events", "c1")}
	if got := all.stream.Response.Header; got.Get("Content-Type") != "text/event-stream; charset=utf-8" ||
		got.Get("Cache-Control") != "no-cache, no-store, must-revalidate" || all.stream.Response.TransferEncoding[0] != "chunked" {
		t.Errorf("the head of a stream is %v %v", got, all.stream.Response.TransferEncoding)
	}

	do(cc, "/v1/desired_lrp/desire.r2", m().Message(1, desired("p", 1)))
	record := m().Text(1, "p").Text(2, "cf-apps").Text(3, "preloaded:cflinuxfs4").Number(4, 1)
	created := all.hear("desired_lrp_created")
	tag := m().Text(1, created.TextAt(1, 21, 1))
	record = record.Message(21, tag).EntryMessage(35, "source_id", m().Text(1, "s"))
	all.is("desired_lrp_created", created, m().Message(1, record).Text(2, trace))
	ev := all.hear("actual_lrp_instance_created")
	unclaimed := actual(ev.At(1), key("p", 0), m(), m(), diego.Message("UNCLAIMED")).Present(13, 0)
	all.is("actual_lrp_instance_created", ev, m().Message(1, unclaimed).Text(2, trace))
	for _, h := range []*heard{older, group, mine, other, groupOfCell} { // DesiredLRPs pass whatever the cell is
		h.is("desired_lrp_created", h.hear("desired_lrp_created"), created)
	}
	older.is("actual_lrp_instance_created", older.hear("actual_lrp_instance_created"), ev)
	group.is("actual_lrp_created", group.hear("actual_lrp_created"), m().Message(1, m().Message(1, unclaimed)))

	by := instance("i1", "c1")
	info := func(netInfo diego.Message, crashes int64, reason, state string, got diego.Message, routable int64) diego.Message {
		return m().Message(3, netInfo).Number(4, crashes).Text(5, reason).Text(6, state).Number(8, got.NumberAt(8)).
			Message(9, m().Text(1, unclaimed.TextAt(9, 1)).Number(2, got.NumberAt(9, 2))).Present(11, routable)
	}
	do(c1.WithTrace("r"), "/v1/actual_lrps/claim", claim("p", 0, by))
	ev = all.hear("actual_lrp_instance_changed")
	all.is("claimed", ev, m().Message(1, key("p", 0)).Message(2, by).Message(3, info(m(), 0, "", "UNCLAIMED", ev.At(3), 0)).
		Message(4, info(m(), 0, "", "CLAIMED", ev.At(4), 0)).Text(5, "r"))
	mine.is("claimed", mine.hear("actual_lrp_instance_changed"), ev)
	cell.is("claimed", cell.hear("actual_lrp_instance_changed"), ev) // a cell hears of no DesiredLRPs
	changed := group.hear("actual_lrp_changed")
	groupOfCell.is("claimed", groupOfCell.hear("actual_lrp_changed"), changed)
	if changed.TextAt(1, 1, 6) != "UNCLAIMED" || changed.TextAt(2, 1, 6) != "CLAIMED" || changed.Has(3) {
		t.Errorf("the group changed: %q", changed)
	}

	do(c1, "/v1/actual_lrps/start.r1", start("p", 0, by))
	ev = all.hear("actual_lrp_instance_changed")
	all.is("started", ev, m().Message(1, key("p", 0)).Message(2, by).Message(3, info(m(), 0, "", "CLAIMED", ev.At(3), 0)).
		Message(4, info(net4(), 0, "", "RUNNING", ev.At(4), 1)))
	mine.hear("actual_lrp_instance_changed")
	group.hear("actual_lrp_changed")

	// The first crash: the instance is gone, and another one waits for a place.
	do(c1, "/v1/actual_lrps/crash", crash("p", 0, by, "exited"))
	ev = all.hear("actual_lrp_crashed")
	now, err := i.cc.Do(t.Context(), "/v1/actual_lrps/list", m().Text(3, "p"))
	must(t, err)
	crashed := m().Message(1, key("p", 0)).Message(2, by).Number(3, 1).Text(4, "exited").Number(5, now.NumberAt(2, 8))
	all.is("crashed", ev, crashed)
	if again := all.hear("actual_lrp_instance_created"); again.TextAt(1, 6) != "UNCLAIMED" || again.NumberAt(1, 4) != 1 {
		t.Errorf("after a crash there is %q", again)
	}
	if gone := all.hear("actual_lrp_instance_removed"); gone.TextAt(1, 2, 1) != "i1" {
		t.Errorf("after a crash goes %q", gone)
	}
	mine.is("crashed", mine.hear("actual_lrp_crashed"), crashed)
	mine.hear("actual_lrp_instance_removed") // a record without a cell is nobody's
	group.is("crashed", group.hear("actual_lrp_crashed"), crashed)
	group.hear("actual_lrp_changed")

	// An instance that is to be stopped is gone for these clients, and so is the process.
	do(c1, "/v1/actual_lrps/start.r1", start("p", 0, instance("i2", "c1")))
	all.hear("actual_lrp_instance_changed")
	do(cc, "/v1/desired_lrp/update", m().Text(1, "p").Message(2, m().Element(3, "n")))
	ev = all.hear("desired_lrp_changed")
	if ev.TextAt(1, 19) != "" || ev.TextAt(2, 19) != "n" || ev.NumberAt(2, 21, 2) != 1 || ev.TextAt(3) != trace {
		t.Errorf("the DesiredLRP changed: %q", ev)
	}
	do(cc, "/v1/desired_lrp/remove", guid("p"))
	seen := map[string]diego.Message{}
	for range 2 {
		e, err := all.stream.Next()
		must(t, err)
		all.next++
		seen[e.Name] = e.Data
	}
	if gone := seen["actual_lrp_instance_removed"]; gone.TextAt(1, 2, 1) != "i2" || gone.TextAt(2) != trace {
		t.Errorf("when nobody wants it any more the instance goes as %q", gone)
	}
	if gone := seen["desired_lrp_removed"]; gone.TextAt(1, 1) != "p" || gone.TextAt(2) != trace {
		t.Errorf("the process goes as %q", gone)
	}
	do(c1, "/v1/actual_lrps/remove", claim("p", 0, instance("i2", "c1")))
	all.hear("actual_lrp_instance_removed") // for who listed it meanwhile
	other.hear("desired_lrp_changed")
	other.hear("desired_lrp_removed")
}

func TestStreamOfTasks(t *testing.T) {
	t.Parallel()
	i := install(t)
	for _, path := range []string{taskStream, "/v1/events/tasks"} {
		h := &heard{T: t, stream: open(t, i.operator, http.MethodPost, path, "ignored")}
		g := "t" + strings.ReplaceAll(path[len("/v1/events/"):], ".", "-")
		for _, call := range []struct {
			as   *diego.Client
			path string
			body diego.Message
		}{
			{i.cc, "/v1/desired_lrp/desire.r2", m().Message(1, desired(g, 1))}, // of which this stream says nothing
			{i.cc, "/v1/tasks/desire.r2", task(g)}, {i.cell("c1"), "/v1/tasks/start", m().Text(1, g).Text(2, "c1")},
			{i.cc, "/v1/tasks/cancel", guid(g)}, {i.cc, "/v1/tasks/resolving", guid(g)}, {i.cc, "/v1/tasks/delete", guid(g)},
		} {
			_, err := call.as.Do(t.Context(), call.path, call.body)
			must(t, err)
		}
		if ev := h.hear("task_created"); ev.TextAt(1, 2) != g || ev.NumberAt(1, 7) != 1 || ev.TextAt(1, 1, 13) != "mine" {
			t.Errorf("created: %q", ev)
		}
		for _, states := range [][2]int64{{1, 2}, {2, 3}, {3, 4}} {
			if ev := h.hear("task_changed"); ev.NumberAt(1, 7) != states[0] || ev.NumberAt(2, 7) != states[1] {
				t.Errorf("changed: %q, want state %d to %d", ev, states[0], states[1])
			}
		}
		if ev := h.hear("task_removed"); ev.TextAt(1, 2) != g || ev.NumberAt(1, 10) != 1 {
			t.Errorf("removed: %q", ev)
		}
	}
}

// A client that does not read is cut off; others hear everything, and callers notice nothing.
func TestSlowStreamsHarmNobody(t *testing.T) {
	t.Parallel()
	i := install(t)
	slow := open(t, i.operator, http.MethodPost, instanceStream, "")
	fast := open(t, i.operator, http.MethodPost, instanceStream, "")
	_, err := i.cc.Do(t.Context(), "/v1/desired_lrp/desire.r2", m().Message(1, desired("p", 0)))
	must(t, err)
	// Far more than connections and the list of a stream hold.
	const updates, size = 350, 120_000
	done := make(chan error, 1)
	go func() {
		for n := range updates {
			blob := fmt.Sprintf("%q", strings.Repeat(string(rune('a'+n%26)), size))
			if _, err := i.cc.Do(t.Context(), "/v1/desired_lrp/update", m().Text(1, "p").Message(2, m().Message(2, m().Message(1, m().Text(1, "x").Text(2, blob))))); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for n := range updates + 1 {
		if _, err := fast.Next(); err != nil {
			t.Fatalf("the fast one hears %d events: %v", n, err)
		}
	}
	must(t, <-done)
	n := 0
	for ; err == nil; n++ {
		_, err = slow.Next()
	}
	if n >= updates {
		t.Errorf("the slow one heard %d events of %d: nothing was cut off", n, updates+1)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the slow one ends with %v, want an end", err)
	}
}

// As many streams as cells and more, at once: each hears what concerns it, and nothing else.
func TestAThousandStreams(t *testing.T) {
	t.Parallel()
	i := install(t)
	const n, atOnce = 1000, 50
	streams := make([]*heard, n)
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for s := range n {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			cell := ""
			if s%2 == 1 {
				cell = fmt.Sprintf("c%d", s)
			}
			ctx, cancel := context.WithCancel(context.Background())
			stream, err := i.operator.Stream(ctx, http.MethodPost, instanceStream, m().Text(1, cell))
			if err != nil {
				cancel()
				t.Errorf("stream %d: %v", s, err)
				return
			}
			t.Cleanup(func() { cancel(); stream.Close() })
			streams[s] = &heard{T: t, stream: stream}
		})
	}
	if wg.Wait(); t.Failed() {
		return
	}
	_, err := i.cc.Do(t.Context(), "/v1/desired_lrp/desire.r2", m().Message(1, desired("p", 1)))
	must(t, err)
	_, err = i.cell("c501").Do(t.Context(), "/v1/actual_lrps/start.r1", start("p", 0, instance("i", "c501")))
	must(t, err)
	_, err = i.cc.Do(t.Context(), "/v1/desired_lrp/desire.r2", m().Message(1, desired("q", 0)))
	must(t, err)
	for s, h := range streams {
		h.hear("desired_lrp_created")
		if s%2 == 0 {
			h.hear("actual_lrp_instance_created")
		}
		if s%2 == 0 || s == 501 {
			h.hear("actual_lrp_instance_changed")
		}
		h.hear("desired_lrp_created")
	}
	// They end when the BBS does.
	i.stop()
	for s, h := range streams {
		if _, err := h.stream.Next(); err == nil {
			t.Errorf("stream %d goes on without a server", s)
		} else if !errors.Is(err, io.EOF) {
			t.Errorf("stream %d ends with %v, want its end", s, err)
		}
	}
}
