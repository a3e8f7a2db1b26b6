// Package subscribe takes route messages from NATS and takes part in the greeting: it says router.start
// whenever it has a connection anew, and answers router.greet, so that whoever has routes sends them.
package subscribe

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Limits of the subscription.
const (
	// Pending bounds messages that wait to be taken in; more are dropped and counted.
	Pending = 131072
	// Batch bounds the messages that are handed over together.
	Batch = 1024

	reconnectWait = 250 * time.Millisecond
	pingEvery     = 20 * time.Second
	tickEvery     = 250 * time.Millisecond
)

// Subjects of the protocol.
const (
	register   = "router.register"
	unregister = "router.unregister"
	greet      = "router.greet"
	start      = "router.start"
)

// Greeting is what a router says about itself.
type Greeting struct {
	ID    string   `json:"id"`
	Hosts []string `json:"hosts"`
	// RegisterSeconds is how often routes are to be sent again, PruneSeconds how long one lives without.
	RegisterSeconds int `json:"minimumRegisterIntervalInSeconds"`
	PruneSeconds    int `json:"pruneThresholdInSeconds"`
}

// Message is a route message.
type Message struct {
	Remove  bool
	Payload []byte
}

// Config says where to subscribe and whom to tell. The functions are called by one goroutine.
type Config struct {
	URLs     []string
	TLS      *tls.Config // nil: none
	Greeting Greeting
	// Connected is told when router.start was sent, Messages what has arrived, in order. Tick is called
	// several times a second, with whether there is a connection.
	Connected func()
	Messages  func([]Message)
	Tick      func(connected bool)
	// Dropped is told when messages had to be dropped.
	Dropped func()
}

// Run subscribes until ctx ends. NATS may be away at first, and at any time: it is looked for, for ever.
func Run(ctx context.Context, log *slog.Logger, cfg Config) error {
	hello, err := json.Marshal(cfg.Greeting)
	if err != nil {
		return fmt.Errorf("encode greeting: %w", err)
	}
	connected := make(chan struct{}, 1)
	closed := make(chan struct{})
	dropped := make(chan struct{}, 1)
	signal := func(c chan struct{}) {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	opts := []nats.Option{
		nats.Name("gorouter"), nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait), nats.PingInterval(pingEvery),
		nats.RetryOnFailedConnect(true), nats.ReconnectBufSize(-1),
		nats.IgnoreAuthErrorAbort(), // a server that refuses now may be set right
		nats.ConnectHandler(func(*nats.Conn) { signal(connected) }),
		nats.ReconnectHandler(func(*nats.Conn) { signal(connected) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if ctx.Err() == nil {
				log.Warn("NATS connection lost: routing from memory, pruning suspended", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Error("NATS reports an error", "error", err)
			if errors.Is(err, nats.ErrSlowConsumer) {
				signal(dropped)
			}
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }),
	}
	if cfg.TLS != nil {
		opts = append(opts, nats.Secure(cfg.TLS))
	}
	nc, err := nats.Connect(strings.Join(cfg.URLs, ","), opts...)
	if err != nil {
		return fmt.Errorf("connect to NATS %v: %w", cfg.URLs, err)
	}
	defer func() { nc.Close(); <-closed }()
	// One channel for all subjects: what was published in an order arrives in it.
	in := make(chan *nats.Msg, Pending)
	for _, subject := range []string{register, unregister, greet} {
		if _, err := nc.ChanSubscribe(subject, in); err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
	}
	l := loop{log: log, cfg: cfg, nc: nc, hello: hello, in: in}
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-connected:
			l.greetAll()
		case <-dropped:
			cfg.Dropped()
		case m := <-in:
			l.take(m)
		case <-tick.C:
			cfg.Tick(nc.IsConnected())
		}
	}
}

type loop struct {
	log   *slog.Logger
	cfg   Config
	nc    *nats.Conn
	hello []byte
	in    chan *nats.Msg
	batch []Message
}

// greetAll makes everybody who has routes send them. Subscriptions are with the server first.
func (l *loop) greetAll() {
	if err := l.nc.Flush(); err != nil {
		l.log.Warn("flush NATS subscriptions", "error", err) // the next connection greets again
		return
	}
	if err := l.nc.Publish(start, l.hello); err != nil {
		l.log.Warn("publish router.start", "error", err)
		return
	}
	l.log.Info("connected to NATS", "url", l.nc.ConnectedUrlRedacted())
	l.cfg.Connected()
}

// take hands over a message and those that wait behind it.
func (l *loop) take(m *nats.Msg) {
	l.batch = l.batch[:0]
	for {
		switch m.Subject {
		case greet:
			if m.Reply != "" {
				if err := l.nc.Publish(m.Reply, l.hello); err != nil {
					l.log.Warn("answer router.greet", "error", err)
				}
			}
		default:
			l.batch = append(l.batch, Message{Remove: m.Subject == unregister, Payload: m.Data})
		}
		if len(l.batch) == Batch {
			break
		}
		select {
		case m = <-l.in:
			continue
		default:
		}
		break
	}
	if len(l.batch) > 0 {
		l.cfg.Messages(l.batch)
	}
}
