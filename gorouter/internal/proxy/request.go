package proxy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"muster/gorouter/balance"
	"muster/gorouter/http1"
	"muster/gorouter/internal/meter"
)

// MaxAttempts bounds what Config.MaxAttempts may be.
const MaxAttempts = 16

// request is what a connection knows about the request in hand.
type request struct {
	received  time.Time
	asked     time.Time // when the first backend was turned to; zero: none was
	headBytes int
	inHand    bool // the whole body has arrived
	bodyEnd   int  // in conn.in: where the body ends, or the bytes of it that have arrived
	payload   int64
	chunks    http1.Chunks

	backend  *Backend
	tried    [MaxAttempts]*Backend
	attempts int
	status   int
	bytesOut int64
	failure  string // X-Cf-RouterError
	started  bool   // something of the final response was sent
	hung     bool   // the client left
	reusable bool   // the backend's connection is at the start of a message
	refused  error  // why the body, read too late to refuse it at once, is no body
	expect   *expectation
}

func (c *conn) begin(now time.Time) {
	c.request = request{received: now, bodyEnd: c.r}
	c.keep = false
	c.linger = false
	c.rec.ForwardedFor, c.rec.ForwardedProto, c.rec.Referer, c.rec.UserAgent = nil, nil, nil, nil
	newID(&c.id)
}

// newID writes a random UUID.
func newID(id *[36]byte) {
	a, b := rand.Uint64(), rand.Uint64()
	a = a&^0xf000 | 0x4000
	b = b&^(3<<62) | 2<<62
	var raw [16]byte
	for i := range 8 {
		raw[i], raw[8+i] = byte(a>>(56-8*i)), byte(b>>(56-8*i))
	}
	hex.Encode(id[0:8], raw[0:4])
	hex.Encode(id[9:13], raw[4:6])
	hex.Encode(id[14:18], raw[6:8])
	hex.Encode(id[19:23], raw[8:10])
	hex.Encode(id[24:36], raw[10:16])
	id[8], id[13], id[18], id[23] = '-', '-', '-', '-'
}

// handle answers the request that was parsed.
func (c *conn) handle() {
	c.arm(phaseRequest, c.s.cfg.RequestTimeout, c.received)
	c.keep = c.req.KeepAlive && !c.s.draining.Load()
	if err := c.plan(); err != nil {
		c.refuse(err)
		return
	}
	host := http1.Hostname(c.req.Host)
	if len(host) == 0 || string(host) == c.ip {
		c.meter.Add(meter.Rejected, 1)
		c.answer(answer{status: 400, failure: "empty_host", text: "Request had empty Host header", cache: "public,max-age=2"})
		return
	}
	pool := c.s.table.Load().Lookup(host, c.req.Path)
	switch {
	case pool == nil, len(pool.Endpoints) == 0 && !c.s.cfg.EmptyIs503:
		c.meter.Add(meter.Rejected, 1)
		c.answer(answer{status: 404, failure: "unknown_route", cache: "no-cache, no-store",
			text: fmt.Sprintf("Requested route ('%s') does not exist.", host)})
	case len(pool.Endpoints) == 0:
		c.answer(answer{status: 503, failure: "no_endpoints", cache: "public,max-age=2",
			text: fmt.Sprintf("Requested route ('%s') has no available endpoints.", host)})
	case pool.RouteService != "":
		// Passing such a request on without its route service could pass by a check it is there to make.
		c.answer(answer{status: 502, failure: "route_service_unsupported", text: "Support for route services is disabled."})
	default:
		c.forward(pool)
	}
}

// plan finds out how much of the body has arrived with the head.
func (c *conn) plan() error {
	start := c.r + c.headBytes
	have := c.in[start:c.w]
	switch c.req.Body {
	case http1.Sized:
		n := min(c.req.Length, int64(len(have)))
		c.bodyEnd, c.payload, c.inHand = start+int(n), n, n == c.req.Length
	case http1.Chunked:
		n, payload, err := c.chunks.Feed(have)
		if err != nil {
			return err
		}
		c.bodyEnd, c.payload, c.inHand = start+n, payload, c.chunks.Done()
	default:
		c.bodyEnd, c.inHand = start, true
	}
	return nil
}

// choose picks the endpoint for the next attempt.
func (c *conn) choose(pool *Pool) (*Backend, balance.Verdict) {
	start := pool.Link.next.Add(1)
	now := c.received.UnixNano()
	rules := balance.Rules{FailedFor: c.s.cfg.FailedFor, MaxInFlight: c.s.cfg.MaxInFlight}
	at, verdict := balance.Choose(len(pool.Endpoints), start, now, rules, func(i int) balance.State {
		b := pool.Endpoints[i].Link
		s := balance.State{Failed: b.failed.Load(), InFlight: int(b.inFlight.Load())}
		for _, t := range c.tried[:c.attempts] {
			s.Tried = s.Tried || t == b
		}
		return s
	})
	switch verdict {
	case balance.Full, balance.None:
		return nil, verdict
	case balance.Reset:
		for _, e := range pool.Endpoints {
			e.Link.failed.Store(0)
		}
	}
	return pool.Endpoints[at].Link, verdict
}

// forward sends the request to one endpoint after another until one answers or none may be asked.
func (c *conn) forward(pool *Pool) {
	c.asked = time.Now()
	var last error
	for c.attempts < c.s.cfg.MaxAttempts {
		b, verdict := c.choose(pool)
		if b == nil {
			if last == nil && verdict == balance.Full {
				c.meter.Add(meter.BackendExhausted, 1)
				c.answer(answer{status: 503, failure: "Connection Limit Reached",
					text: fmt.Sprintf("Requested route ('%s') has reached the connection limit.", http1.Hostname(c.req.Host))})
				return
			}
			break
		}
		if c.attempts > 0 {
			c.meter.Add(meter.Retries, 1)
		}
		c.tried[c.attempts] = b
		c.attempts++
		c.backend = b
		b.inFlight.Add(1)
		err := c.attempt(b)
		b.inFlight.Add(-1)
		if err == nil {
			return
		}
		last = err
		fail := asFailure(err)
		if fail.mark && !c.hung {
			b.failed.Store(time.Now().UnixNano())
		}
		if !c.hung && c.refused == nil { // those are the client's doing, and stand in the access log
			c.s.log.Warn("backend endpoint failed", "address", b.Address, "app", b.App, "instance_guid", b.InstanceID, "index", b.Index,
				"attempt", c.attempts, "vcap_request_id", string(c.id[:]), "retry", fail.retry, "error", err)
		}
		if !fail.retry || c.started || c.hung || c.stopped.Load() {
			break
		}
	}
	c.fail(last)
}

// attempt asks one endpoint. A connection that was used before may have been closed by the backend in the
// meantime; that says nothing about the backend, so it is asked again over a new one.
func (c *conn) attempt(b *Backend) error {
	for {
		u := c.reuse(b)
		if u == nil {
			var err error
			if u, err = b.dial(); err != nil {
				return dialFailure(err)
			}
		}
		c.up.Store(u)
		if c.stopped.Load() {
			u.c.Close()
		}
		reused := u.reused
		c.meter.Add(meter.Requests, 1)
		err := c.exchange(u)
		c.unwatch()
		c.up.Store(nil)
		if err == nil && c.reusable && !c.stopped.Load() && !c.gone.Load() {
			b.put(u, time.Now())
			return nil
		}
		u.c.Close()
		if err == nil {
			return nil
		}
		var stale *staleError
		if !(reused && errors.As(err, &stale) && !c.hung && !c.stopped.Load()) {
			return err
		}
	}
}

// reuse returns an unused connection to the backend. If the request must not be sent twice, it is one that
// the backend has not closed by now.
func (c *conn) reuse(b *Backend) *upstream {
	safe := c.inHand && c.req.Replayable()
	for {
		u := b.get()
		if u == nil || safe || u.alive() {
			return u
		}
		u.c.Close()
	}
}

// exchange sends the request over one connection and relays the response. An error means that nothing
// of the final response was sent.
func (c *conn) exchange(u *upstream) error {
	c.buildAsk(u.b)
	n, err := u.c.Write(c.ask)
	if err != nil {
		return c.judge(u, u.reason(err), n < len(c.ask))
	}
	if c.inHand {
		c.waiting.Store(waitingNew)
	} else {
		if c.req.Expect {
			c.expect = expect(c.c)
		}
		c.uploading = true
		go c.upload(u)
	}
	err = c.await(u)
	if c.uploading {
		c.expect.end()
		c.endUpload(u)
	}
	if err != nil {
		return c.judge(u, err, false)
	}
	return nil
}

// await reads and relays responses up to the final one.
func (c *conn) await(u *upstream) error {
	for informational := 0; ; informational++ {
		if err := c.readResponse(u); err != nil {
			return err
		}
		switch {
		case c.resp.Status == 101:
			if !c.req.Upgrade || !c.resp.Upgrade {
				return errUnasked
			}
			c.tunnel(u)
			return nil
		case c.resp.Status < 200:
			if informational == maxInformational {
				return errInformational
			}
			if err := c.relayInformational(u); err != nil {
				return err
			}
		default:
			c.relay(u)
			return nil
		}
	}
}

// readResponse reads one head.
func (c *conn) readResponse(u *upstream) error {
	var scan http1.Scanner
	for {
		end, err := scan.End(u.unread(), c.s.cfg.Limits)
		if err != nil {
			return err
		}
		if end > 0 {
			u.head = u.unread()[:end]
			u.r += end
			return c.resp.Parse(u.head, c.s.cfg.Limits, string(c.req.Method) == "HEAD")
		}
		if err := u.fill(c.s.cfg.Limits); err != nil {
			return err
		}
	}
}
