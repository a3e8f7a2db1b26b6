// Package publish tells routers over NATS what the table says, and learns from them how often they
// want to hear it: it greets until a router answers, and notices routers that start.
//
// Messages leave on one connection in the order of the calls. While NATS is away they are dropped,
// not kept: when it is back, everything is said again, and old words after new ones would do harm.
package publish

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"muster/route-emitter/table"
)

// Subjects of the greeting.
const (
	subjectGreet = "router.greet"
	subjectStart = "router.start"
)

// Limits of the connection and the greeting.
const (
	reconnectWait   = 100 * time.Millisecond
	reconnectJitter = 100 * time.Millisecond
	pingInterval    = 5 * time.Second
	connectTimeout  = 2 * time.Second
	// greetPause and maxGreetPause bound the wait between greetings that nobody answers.
	greetPause    = time.Second
	maxGreetPause = 15 * time.Second
	// answerQueue bounds the answers of routers that wait to be read; more are dropped, since one
	// is as good as another.
	answerQueue = 64
	// DefaultInterval is how often everything is said before a router has said how often.
	DefaultInterval = 20 * time.Second
	minInterval     = time.Second
	maxInterval     = 10 * time.Minute
)

// Options say where NATS is.
type Options struct {
	Addresses          []string // host:port
	Username, Password string
	TLS                *tls.Config // nil: none
	// Jitter is the share of the interval, 0 to 1, within which a router that started is answered,
	// at a random moment.
	Jitter float64
	Log    *slog.Logger
}

// Conn is a connection to NATS that is made anew for ever. It may be used concurrently.
type Conn struct {
	Options
	nc        *nats.Conn
	inbox     string
	answers   chan answer
	connected chan struct{}
	greeted   atomic.Bool
}

// answer is what a router says about itself.
type answer struct {
	private  bool // to our greeting, not to all
	interval time.Duration
}

// Connect starts to connect and returns; NATS need not be there yet.
func Connect(o Options) (*Conn, error) {
	c := &Conn{Options: o, inbox: nats.NewInbox(), answers: make(chan answer, answerQueue), connected: make(chan struct{}, 1)}
	opts := []nats.Option{
		nats.Name("route-emitter"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectJitter, reconnectJitter), nats.Timeout(connectTimeout),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2), nats.ReconnectBufSize(-1),
		nats.IgnoreAuthErrorAbort(), // a server that refuses now may be set right
		nats.ConnectHandler(func(nc *nats.Conn) { c.isConnected(nc, "connected to NATS") }),
		nats.ReconnectHandler(func(nc *nats.Conn) { c.isConnected(nc, "connected to NATS again") }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.Log.Warn("lost NATS", "error", err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { c.Log.Warn("NATS reports an error", "error", err) }),
	}
	scheme := "nats://"
	if o.TLS != nil {
		scheme = "tls://"
		opts = append(opts, nats.Secure(o.TLS))
	}
	if o.Username != "" {
		opts = append(opts, nats.UserInfo(o.Username, o.Password))
	}
	var urls []string
	for _, a := range o.Addresses {
		urls = append(urls, scheme+a)
	}
	nc, err := nats.Connect(strings.Join(urls, ","), opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	c.nc = nc
	for subject, private := range map[string]bool{subjectStart: false, c.inbox: true} {
		if _, err := nc.Subscribe(subject, func(m *nats.Msg) { c.heard(m, private) }); err != nil {
			nc.Close()
			return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
		}
	}
	return c, nil
}

func (c *Conn) isConnected(nc *nats.Conn, what string) {
	c.Log.Info(what, "url", nc.ConnectedUrlRedacted())
	select {
	case c.connected <- struct{}{}:
	default: // one is noted already
	}
}

// heard reads what a router says about itself. Only the interval counts; nonsense is ignored.
func (c *Conn) heard(m *nats.Msg, private bool) {
	var body struct {
		Interval float64 `json:"minimumRegisterIntervalInSeconds"`
	}
	if err := json.Unmarshal(m.Data, &body); err != nil {
		c.Log.Warn("a router says what cannot be read", "subject", m.Subject, "error", err)
		return
	}
	seconds := min(max(body.Interval, minInterval.Seconds()), maxInterval.Seconds())
	select {
	case c.answers <- answer{private, time.Duration(seconds * float64(time.Second))}:
	default:
	}
}

// Close ends the connection.
func (c *Conn) Close() { c.nc.Close() }

// Connected tells whether NATS is there.
func (c *Conn) Connected() bool { return c.nc.IsConnected() }

// Publish sends messages in order; they leave at once. An error means that some or all did not.
func (c *Conn) Publish(ms []table.Message) error {
	var errs []error
	for _, m := range ms {
		body, err := json.Marshal(m.Body)
		if err != nil {
			errs = append(errs, fmt.Errorf("encode a route of %s: %w", m.Body.App, err))
			continue
		}
		if err := c.nc.Publish(string(m.Kind), body); err != nil {
			return errors.Join(append(errs, fmt.Errorf("publish: %w", err))...)
		}
	}
	return errors.Join(errs...)
}

// Run greets routers, and calls broadcast whenever everything is to be said: in the interval that
// routers ask for, when one starts, and when NATS is back. It returns when ctx ends.
func (c *Conn) Run(ctx context.Context, broadcast func()) error {
	interval, pause := DefaultInterval, greetPause
	tick := time.NewTicker(interval)
	defer tick.Stop()
	greet := time.NewTimer(0)
	defer greet.Stop()
	starting := false           // a router has started, and others may
	started := time.NewTimer(0) // when it is to be answered, together with them
	<-started.C
	defer started.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			broadcast()
		case <-started.C:
			starting = false
			broadcast()
			tick.Reset(interval)
		case <-c.connected:
			c.greeted.Store(false) // routers may have changed
			interval, pause = DefaultInterval, greetPause
			greet.Reset(0)
			broadcast()
			tick.Reset(interval)
		case <-greet.C:
			if c.greeted.Load() {
				break
			}
			if err := c.nc.PublishRequest(subjectGreet, c.inbox, nil); err != nil {
				c.Log.Debug("routers cannot be greeted", "error", err)
			}
			greet.Reset(pause)
			pause = min(pause*3/2, maxGreetPause)
		case a := <-c.answers:
			next := min(interval, a.interval) // routers may differ: none must forget a route
			if !c.greeted.Swap(true) {
				c.Log.Info("a router answered", "interval", a.interval)
				next = a.interval
			}
			// Routers that start one after another put off neither what is said now and then nor the answer.
			if next != interval {
				interval = next
				tick.Reset(interval)
			}
			if !a.private && !starting {
				starting = true
				started.Reset(time.Duration(rand.Float64() * c.Jitter * float64(interval)))
			}
		}
	}
}
