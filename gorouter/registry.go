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
	turn     *proxy.Turn // for the next new route

	pruneEvery time.Duration
	pruneAt    time.Time
	away       bool // NATS was away at the last tick
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
	t := r.table.Load()
	for _, raw := range batch {
		m, err := routes.ParseMessage(raw.Payload)
		if err != nil {
			r.meter.Add(meter.BadMessages, 1)
			r.log.Error("route message refused", "remove", raw.Remove, "payload", string(raw.Payload[:min(len(raw.Payload), 2048)]), "error", err)
			continue
		}
		if raw.Remove {
			r.meter.Add(meter.UnregistryMessages, 1)
			t = r.unregister(t, m)
		} else {
			r.meter.Add(meter.RegistryMessages, 1)
			t = r.register(t, m)
		}
	}
	r.changed.Store(r.now().UnixNano())
	r.show(t)
}

func (r *registry) show(t *proxy.Table) {
	r.table.Store(t)
	r.set(t)
}

func (r *registry) register(t *proxy.Table, m routes.Message) *proxy.Table {
	id := proxy.ID{Address: m.Address, TLS: m.TLS, ServerName: m.ServerName, App: m.App, InstanceID: m.InstanceID, Index: m.InstanceIndex}
	h := r.backends[id]
	if h == nil {
		h = &held{backend: r.make(id)}
		r.backends[id] = h
	}
	for _, uri := range m.URIs {
		var out routes.Outcome[*proxy.Backend]
		ep := routes.Endpoint[*proxy.Backend]{Info: m.Info, StaleAfter: m.StaleAfter, Link: h.backend}
		t, out = t.Register(uri, ep, r.spareTurn(), r.now())
		if out.NewRoute {
			r.turn = nil
		}
		switch out.Change {
		case routes.Updated:
			h.routes++
			r.release(out.Replaced.Link)
		case routes.Added:
			h.routes++
			r.log.Info("endpoint registered", "uri", uri, "address", m.Address, "app", m.App, "instance_guid", m.InstanceID, "index", m.InstanceIndex)
		}
	}
	r.drop(h)
	return t
}

func (r *registry) unregister(t *proxy.Table, m routes.Message) *proxy.Table {
	for _, uri := range m.URIs {
		var gone *routes.Endpoint[*proxy.Backend]
		if t, gone = t.Unregister(uri, m.Address, m.InstanceID, r.now()); gone != nil {
			r.log.Info("endpoint unregistered", "uri", uri, "address", gone.Address, "app", gone.App, "instance_guid", gone.InstanceID, "index", gone.InstanceIndex)
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
		r.log.Info("endpoint pruned", "address", e.Address, "app", e.App, "instance_guid", e.InstanceID, "index", e.InstanceIndex)
		r.release(e.Link)
	}
	r.meter.Add(meter.RoutesPruned, uint64(len(gone)))
	r.show(t)
}
