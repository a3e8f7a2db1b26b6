package gorouter

import (
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"muster/gorouter/internal/meter"
	"muster/gorouter/internal/proxy"
	"muster/gorouter/internal/subscribe"
	"muster/gorouter/routes"
)

// registry turns messages into tables. One goroutine calls its methods; only table is for others.
type registry struct {
	log   *slog.Logger
	meter *meter.Shard
	make  func(proxy.ID) *proxy.Backend
	set   func(*proxy.Table)
	now   func() time.Time

	table    atomic.Pointer[proxy.Table]
	backends map[proxy.ID]*held
	heard    heard
	turn     *proxy.Turn // for the next new route

	pruneEvery time.Duration
	pruneAt    time.Time
	away       bool // NATS was away at the last tick
	lines      int  // logged in this period
	linesUntil time.Time
	untold     untold
	changed    atomic.Int64
}

// held is a backend and how many routes lead to it.
type held struct {
	backend *proxy.Backend
	routes  int
}

func (r *registry) spareTurn() *proxy.Turn {
	if r.turn == nil {
		r.turn = proxy.NewTurn(rand.Uint32())
	}
	return r.turn
}

// messages takes messages in, in order, and then shows the result.
func (r *registry) messages(batch []subscribe.Message) {
	t, now := r.table.Load(), r.now()
	for _, raw := range batch {
		var id digest
		if !raw.Remove {
			id = r.heard.digest(raw.Payload)
			if r.heard.refresh(t, id, now) {
				r.meter.Add(meter.RegistryMessages, 1)
				continue
			}
		}
		m, err := routes.ParseMessage(raw.Payload)
		if err != nil {
			r.meter.Add(meter.BadMessages, 1)
			if r.mayLog(&r.untold.refused) {
				r.log.Error("route message refused", "remove", raw.Remove, "payload", string(raw.Payload[:min(len(raw.Payload), 2048)]), "error", err)
			}
			continue
		}
		if raw.Remove {
			r.meter.Add(meter.UnregistryMessages, 1)
			t = r.unregister(t, m, now)
		} else {
			r.meter.Add(meter.RegistryMessages, 1)
			t = r.register(t, m, id, now)
		}
	}
	r.changed.Store(now.UnixNano())
	r.show(t)
}

func (r *registry) show(t *proxy.Table) {
	r.table.Store(t)
	r.set(t)
}

func (r *registry) register(t *proxy.Table, m routes.Message, said digest, now time.Time) *proxy.Table {
	id := proxy.ID{Address: m.Address, TLS: m.TLS, ServerName: m.ServerName, App: m.App, InstanceID: m.InstanceID, Index: m.InstanceIndex}
	h := r.backends[id]
	if h == nil {
		h = &held{backend: r.make(id)}
		r.backends[id] = h
	}
	led := make([]registration, 0, len(m.URIs))
	for _, uri := range m.URIs {
		var out routes.Outcome[*proxy.Backend]
		ep := routes.Endpoint[*proxy.Backend]{Info: m.Info, StaleAfter: m.StaleAfter, Link: h.backend}
		t, out = t.Register(uri, ep, r.spareTurn(), now)
		if out.NewRoute {
			r.turn = nil
		}
		switch out.Change {
		case routes.Ignored:
			continue
		case routes.Updated:
			h.routes++
			if was := out.Replaced; was.InstanceID != m.InstanceID && r.mayLog(&r.untold.registered) {
				r.logEndpoint("address taken over", uri, m.Info, "was_app", was.App, "was_instance_guid", was.InstanceID)
			}
			r.release(out.Replaced.Link)
		case routes.Added:
			h.routes++
			if r.mayLog(&r.untold.registered) {
				r.logEndpoint("endpoint registered", uri, m.Info)
			}
		}
		led = append(led, registration{uri, out.Endpoint})
	}
	r.heard.add(said, led)
	r.drop(h)
	return t
}

func (r *registry) unregister(t *proxy.Table, m routes.Message, now time.Time) *proxy.Table {
	for _, uri := range m.URIs {
		var gone *proxy.Endpoint
		if t, gone = t.Unregister(uri, m.Address, m.InstanceID, now); gone != nil {
			if r.mayLog(&r.untold.unregistered) {
				r.logEndpoint("endpoint unregistered", uri, gone.Info)
			}
			r.release(gone.Link)
		}
	}
	return t
}

func (r *registry) release(b *proxy.Backend) {
	h := r.backends[b.ID]
	h.routes--
	r.drop(h)
}

// drop closes a backend that no route leads to.
func (r *registry) drop(h *held) {
	if h.routes == 0 {
		delete(r.backends, h.backend.ID)
		h.backend.Close()
	}
}

// tick prunes when it is time. While NATS is away nobody can register again, so nothing gets stale;
// once it is back, everybody has the whole time again.
func (r *registry) tick(connected bool) {
	now := r.now()
	r.tellRest(now)
	if !connected {
		r.away = true
		return
	}
	if r.away {
		r.away = false
		r.show(r.table.Load().Freshen(now))
	}
	if now.Before(r.pruneAt) {
		return
	}
	r.pruneAt = now.Add(r.pruneEvery)
	t, gone := r.table.Load().Prune(now)
	for _, e := range gone {
		if r.mayLog(&r.untold.pruned) {
			r.log.Info("endpoint pruned", "address", e.Address, "app", e.App, "instance_guid", e.InstanceID, "index", e.InstanceIndex)
		}
		r.release(e.Link)
	}
	r.meter.Add(meter.RoutesPruned, uint64(len(gone)))
	r.show(t)
}

// A change has a line of its own, up to linesPerPeriod in a period; the rest is counted and told in one line.
const (
	linesPerPeriod = 100
	linePeriod     = 5 * time.Second
)

// untold counts what has no line of its own.
type untold struct{ registered, unregistered, pruned, refused int }

// mayLog allows a line, or counts it.
func (r *registry) mayLog(instead *int) bool {
	if r.lines++; r.lines <= linesPerPeriod {
		return true
	}
	*instead++
	return false
}

// tellRest begins a period.
func (r *registry) tellRest(now time.Time) {
	if now.Before(r.linesUntil) {
		return
	}
	r.linesUntil = now.Add(linePeriod)
	if u := r.untold; u != (untold{}) {
		t := r.table.Load()
		r.log.Info("more than can be told one by one", "endpoints_registered", u.registered, "endpoints_unregistered", u.unregistered,
			"endpoints_pruned", u.pruned, "messages_refused", u.refused, "routes", t.Routes(), "endpoints", t.Endpoints())
	}
	r.lines, r.untold = 0, untold{}
}

func (r *registry) logEndpoint(what, uri string, i routes.Info, more ...any) {
	r.log.Info(what, append([]any{"uri", uri, "address", i.Address, "app", i.App, "instance_guid", i.InstanceID, "index", i.InstanceIndex}, more...)...)
}
