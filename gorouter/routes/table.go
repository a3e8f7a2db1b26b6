package routes

import (
	"bytes"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
)

// Rules are the times of a table.
type Rules struct {
	// StaleAfter is how long an endpoint without TLS lives after its last registration, and the most a
	// registration may ask for.
	StaleAfter time.Duration
	// TLSStaleFactor times StaleAfter is how long an endpoint with TLS lives. It can be long, because a
	// connection to the wrong instance fails, and must not be for ever, because an unregistration can be lost.
	TLSStaleFactor int
	// KeepEmpty is how long a pool without endpoints stays, to be told apart from an unknown route.
	KeepEmpty time.Duration
}

// Endpoint is one instance of an app, or of something else that registers, under one route.
type Endpoint[E any] struct {
	Info
	// StaleAfter is how long the endpoint lives without being registered again.
	StaleAfter time.Duration
	Link       E

	// seen is the last registration. It is no part of the value: all tables that hold the endpoint share
	// it, and only whoever changes tables looks at it. So a refresh, which is nearly every message,
	// makes no new table.
	seen time.Time
}

// Pool is a route: its endpoints in the order of their first registration.
type Pool[P, E any] struct {
	// URI is the route as its first registration wrote it, without query and outer slashes.
	URI       string
	Endpoints []*Endpoint[E]
	// RouteService is the URL of the newest registration.
	RouteService string
	Link         P

	emptied time.Time
}

// Table is the routing table. The zero Table is not usable: New makes one. It may be read by any
// number of goroutines; Register, Refresh, Unregister, Prune and Freshen are for one at a time.
type Table[P, E any] struct {
	rules     Rules
	hosts     trie[*node[P, E]]
	wildcards int // hosts that start with a star
	routes    int
	endpoints int // counted once for each of their routes
	fresh     time.Time
}

// New returns an empty table.
func New[P, E any](rules Rules) *Table[P, E] { return &Table[P, E]{rules: rules} }

// Routes returns how many routes there are, those without endpoints included.
func (t *Table[P, E]) Routes() int { return t.routes }

// Endpoints returns how many endpoints there are, each counted once for every route it serves.
func (t *Table[P, E]) Endpoints() int { return t.endpoints }

// All visits every pool, in no particular but a repeatable order.
func (t *Table[P, E]) All() iter.Seq[*Pool[P, E]] {
	return func(yield func(*Pool[P, E]) bool) {
		t.hosts.each(func(_ string, n *node[P, E]) bool { return n.each(yield) })
	}
}

// Lookup returns the pool for a request, nil when there is no such route. host has no port; path is
// as it was received, percent-encoding kept. A pool without endpoints is returned when it is what the
// request means.
func (t *Table[P, E]) Lookup(host, path []byte) *Pool[P, E] {
	if len(path) > 0 && path[0] == '/' {
		path = path[1:]
	}
	if len(path) > 0 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	if n, ok := t.hosts.find(hashOf(hashSeed, host), "", host); ok {
		if p := n.lookup(path); p != nil {
			return p
		}
	}
	if t.wildcards == 0 {
		return nil
	}
	star := hashOf(hashSeed, "*")
	for {
		i := bytes.IndexByte(host, '.')
		if i < 0 {
			return nil
		}
		rest := host[i:]
		if n, ok := t.hosts.find(hashOf(star, rest), "*", rest); ok {
			if p := n.lookup(path); p != nil {
				return p
			}
		}
		host = host[i+1:]
	}
}

// split normalises a URI of a registration.
func split(uri string) (written, host, path string) {
	written, _, _ = strings.Cut(uri, "?")
	written = strings.TrimSuffix(strings.TrimPrefix(written, "/"), "/")
	host, path, _ = strings.Cut(asciiLower(written), "/")
	return written, host, path
}

func asciiLower(s string) string {
	for i := range len(s) {
		if lower(s[i]) != s[i] {
			b := []byte(s)
			for j := range b {
				b[j] = lower(b[j])
			}
			return string(b)
		}
	}
	return s
}

// Change says what a registration did.
type Change uint8

// The changes.
const (
	Ignored Change = iota // the URI has no host
	Added
	Updated
	Refreshed
)

// String returns the change in lower case.
func (c Change) String() string {
	return [...]string{"ignored", "added", "updated", "refreshed"}[c]
}

// Outcome is what a registration did. Endpoint is what is registered now, nil after Ignored; Replaced is
// what had the address before, after Updated.
type Outcome[E any] struct {
	Change   Change
	NewRoute bool
	Endpoint *Endpoint[E]
	Replaced *Endpoint[E]
}

// Register returns the table with an endpoint under a URI. link becomes the Link of the pool if the
// outcome says that the route is new.
func (t *Table[P, E]) Register(uri string, ep Endpoint[E], link P, now time.Time) (*Table[P, E], Outcome[E]) {
	written, host, path := split(uri)
	if host == "" {
		return t, Outcome[E]{}
	}
	ep.StaleAfter, ep.seen = t.rules.life(ep), now
	out := Outcome[E]{Change: Added, Endpoint: &ep}
	old := t.pool(host, path)
	if old == nil {
		out.NewRoute = true
		return t.with(host, path, &Pool[P, E]{URI: written, Endpoints: []*Endpoint[E]{&ep}, RouteService: ep.RouteService, Link: link}), out
	}
	pool := *old
	pool.RouteService = ep.RouteService
	switch at := pool.index(ep.Address); {
	case at < 0:
		pool.Endpoints = append(slices.Clip(pool.Endpoints), &ep)
	case pool.Endpoints[at].equal(ep):
		out.Change, out.Endpoint = Refreshed, pool.Endpoints[at]
		out.Endpoint.seen = now
		if old.RouteService == ep.RouteService {
			return t, out
		}
	default:
		out.Change, out.Replaced = Updated, pool.Endpoints[at]
		pool.Endpoints = slices.Clone(pool.Endpoints)
		pool.Endpoints[at] = &ep
	}
	return t.with(host, path, &pool), out
}

// Refresh does what Register would do if it were given again what ep was registered with under a URI, and
// would change no table: it makes ep young. It returns false, having done nothing, when ep is not what is
// registered there any more or Register would do more.
func (t *Table[P, E]) Refresh(uri string, ep *Endpoint[E], now time.Time) bool {
	_, host, path := split(uri)
	pool := t.pool(host, path)
	if pool == nil || pool.RouteService != ep.RouteService || !slices.Contains(pool.Endpoints, ep) {
		return false
	}
	ep.seen = now
	return true
}

func (r Rules) life(e interface{ stale() (time.Duration, bool) }) time.Duration {
	asked, tls := e.stale()
	most := r.StaleAfter
	if tls {
		most *= time.Duration(max(r.TLSStaleFactor, 1))
	}
	if asked <= 0 || asked > r.StaleAfter {
		return most
	}
	return asked
}

func (e Endpoint[E]) stale() (time.Duration, bool) { return e.StaleAfter, e.TLS }

func (e *Endpoint[E]) equal(o Endpoint[E]) bool {
	a, b := e.Info, o.Info
	a.Tags, b.Tags = nil, nil
	return e.StaleAfter == o.StaleAfter && a.same(b) && maps.Equal(e.Tags, o.Tags)
}

// Unregister returns the table without an endpoint under a URI, and that endpoint. An unknown one,
// or an address that now belongs to another instance, changes nothing and returns nil.
func (t *Table[P, E]) Unregister(uri, address, instanceID string, now time.Time) (*Table[P, E], *Endpoint[E]) {
	_, host, path := split(uri)
	old := t.pool(host, path)
	if old == nil {
		return t, nil
	}
	at := old.index(address)
	if at < 0 {
		return t, nil
	}
	gone := old.Endpoints[at]
	if instanceID != "" && gone.InstanceID != "" && instanceID != gone.InstanceID {
		return t, nil
	}
	pool := *old
	pool.drop(at)
	return t.settle(host, path, &pool, now), gone
}

// settle puts a pool that lost endpoints back, unless it is empty and need not be kept.
func (t *Table[P, E]) settle(host, path string, pool *Pool[P, E], now time.Time) *Table[P, E] {
	if len(pool.Endpoints) == 0 {
		if pool.emptied.IsZero() || len(t.pool(host, path).Endpoints) > 0 {
			pool.emptied = now
		}
		if now.Sub(pool.emptied) >= t.rules.KeepEmpty {
			pool = nil
		}
	}
	return t.with(host, path, pool)
}

// Prune returns the table without endpoints that were not registered for too long and without pools
// that were empty for too long, and the endpoints that went.
func (t *Table[P, E]) Prune(now time.Time) (*Table[P, E], []*Endpoint[E]) {
	next := t
	var gone []*Endpoint[E]
	for old := range t.All() {
		var pool *Pool[P, E]
		for at := len(old.Endpoints) - 1; at >= 0; at-- {
			seen := old.Endpoints[at].seen
			if t.fresh.After(seen) {
				seen = t.fresh
			}
			if now.Sub(seen) <= old.Endpoints[at].StaleAfter {
				continue
			}
			if pool == nil {
				c := *old
				pool = &c
			}
			gone = append(gone, old.Endpoints[at])
			pool.drop(at)
		}
		if pool == nil && len(old.Endpoints) == 0 {
			c := *old
			pool = &c
		}
		if pool != nil {
			_, host, path := split(old.URI)
			next = next.settle(host, path, pool, now)
		}
	}
	return next, gone
}

// Freshen returns the table as if every endpoint had just been registered: after a time in which
// registrations could not arrive, their age says nothing.
func (t *Table[P, E]) Freshen(now time.Time) *Table[P, E] {
	next := *t
	next.fresh = now
	return &next
}

func (p *Pool[P, E]) index(address string) int {
	return slices.IndexFunc(p.Endpoints, func(e *Endpoint[E]) bool { return e.Address == address })
}

// drop removes an endpoint from a copy of a pool.
func (p *Pool[P, E]) drop(at int) {
	p.Endpoints = slices.Delete(slices.Clone(p.Endpoints), at, at+1)
}

func (t *Table[P, E]) pool(host, path string) *Pool[P, E] {
	n, ok := t.hosts.get(host)
	if !ok {
		return nil
	}
	return n.at(path)
}

// with returns the table with a pool in its place; nil removes it. Counts follow.
func (t *Table[P, E]) with(host, path string, pool *Pool[P, E]) *Table[P, E] {
	next := *t
	if old := t.pool(host, path); old != nil {
		next.routes--
		next.endpoints -= len(old.Endpoints)
	}
	if pool != nil {
		next.routes++
		next.endpoints += len(pool.Endpoints)
	}
	n, had := t.hosts.get(host)
	n = n.with(path, pool)
	star := 0
	if strings.HasPrefix(host, "*.") {
		star = 1
	}
	switch {
	case n != nil:
		next.hosts = t.hosts.with(host, n)
		if !had {
			next.wildcards += star
		}
	case had:
		next.hosts = t.hosts.without(host)
		next.wildcards -= star
	}
	return &next
}
