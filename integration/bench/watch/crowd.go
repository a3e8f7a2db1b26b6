package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"muster/bbs/lrp"
	"muster/integration/bench/rig"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

// crowd is all the watchers. Between rounds they are away, and what is committed then is not theirs to
// see: each round begins where the log stands.
type crowd struct {
	b        *bench
	watchers []*watcher
	everyone *party // somebody who may see everything
	resumes  atomic.Int64

	leaving context.CancelFunc
	gone    sync.WaitGroup
	until   atomic.Uint64 // once set: go when everything up to here was seen

	rounds []span
}

// span is the part of the log that one round was about: after the first revision, up to the second.
type span struct{ after, upTo uint64 }

// watcher is one of them. What it got is checked in the end.
type watcher struct {
	*party
	filter *bbsv1.WatchRequest
	dice   *rand.Rand
	at     uint64 // resume after
	// processes are those it watched, by round; empty unless it watches one.
	processes []string
	got       []uint64
	err       error
}

func newCrowd(b *bench) (*crowd, error) {
	c := &crowd{b: b}
	everyone, err := b.party(identity.ID{Role: identity.Auctioneer})
	if err != nil {
		return nil, err
	}
	c.everyone = everyone
	for i := range b.o.watchers {
		w := &watcher{filter: &bbsv1.WatchRequest{}, dice: rand.New(rand.NewPCG(uint64(i), 7)), party: everyone}
		switch {
		case i < 2: // everything
		case i%50 == 4:
			w.filter.ProcessGuid = "set in each round"
		default:
			w.filter.CellId, w.party = string(rig.Cell(i)), b.cells[i]
			switch i % 50 {
			case 2:
				w.filter.Domain = string(rig.Domain)
			case 3:
				w.filter.Domain = "another" // of which there is nothing
			}
		}
		c.watchers = append(c.watchers, w)
	}
	return c, nil
}

// revision asks where the log stands.
func (c *crowd) revision(ctx context.Context) (uint64, error) {
	res, err := bbsv1.NewBBSServiceClient(c.everyone.conns[1]).Domains(ctx, &bbsv1.DomainsRequest{})
	if err != nil {
		return 0, fmt.Errorf("ask where the log stands: %w", err)
	}
	return res.GetRevision(), nil
}

// watch makes everybody watch what comes from now on, and returns once they are connected.
func (c *crowd) watch(ctx context.Context, processes []lrp.ProcessGUID) error {
	now, err := c.revision(ctx)
	if err != nil {
		return err
	}
	c.rounds = append(c.rounds, span{after: now})
	c.until.Store(0)
	ctx, c.leaving = context.WithCancel(ctx)
	var opened sync.WaitGroup
	for i, w := range c.watchers {
		if w.filter.ProcessGuid != "" {
			w.filter.ProcessGuid = string(processes[i%len(processes)])
		}
		w.processes = append(w.processes, w.filter.ProcessGuid)
		w.at = now
		opened.Add(1)
		c.gone.Go(func() { w.err = errors.Join(w.err, c.live(ctx, w, sync.OnceFunc(opened.Done))) })
	}
	opened.Wait()
	return nil
}

// leave waits until everybody has seen what was committed, and ends the watches.
func (c *crowd) leave(ctx context.Context) error {
	now, err := c.revision(ctx)
	if err != nil {
		return err
	}
	c.rounds[len(c.rounds)-1].upTo = now
	c.until.Store(now)
	t := time.AfterFunc(settleTime, c.leaving)
	c.gone.Wait()
	if !t.Stop() {
		return fmt.Errorf("watchers have not seen what was committed within %v", settleTime)
	}
	c.leaving()
	return nil
}

// live watches, now here, now there, until all of the round was seen. opened is called once the first
// connection stands.
func (c *crowd) live(ctx context.Context, w *watcher, opened func()) error {
	defer opened()
	for first := true; ctx.Err() == nil && !c.done(w); first = false {
		if !first {
			c.resumes.Add(1)
		}
		err := c.stay(ctx, w, opened)
		switch status.Code(err) {
		case codes.OK, codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Canceled:
		default:
			return err
		}
	}
	return nil
}

func (c *crowd) done(w *watcher) bool {
	until := c.until.Load()
	return until != 0 && w.at >= until
}

// connection returns a connection to a replica at random, mostly one that is there, and what to do with it
// afterwards.
func (c *crowd) connection(w *watcher) (conn *grpc.ClientConn, after func() error, err error) {
	replica := w.dice.IntN(len(w.conns))
	if w.dice.IntN(staysPerConnection) > 0 {
		return w.conns[replica], func() error { return nil }, nil
	}
	if conn, err = w.dial[replica](); err != nil {
		return nil, nil, err
	}
	return conn, conn.Close, nil
}

// stay watches one replica for a while.
func (c *crowd) stay(ctx context.Context, w *watcher, opened func()) error {
	// Whoever leaves at random leaves at any moment as likely as at any other.
	ctx, cancel := context.WithTimeout(ctx, time.Duration(w.dice.ExpFloat64()*float64(c.b.o.stay)))
	defer cancel()
	conn, after, err := c.connection(w)
	if err != nil {
		return err
	}
	defer after()
	request := &bbsv1.WatchRequest{AfterRevision: w.at, CellId: w.filter.CellId, Domain: w.filter.Domain, ProcessGuid: w.filter.ProcessGuid}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, bbsv1.BBSService_Watch_FullMethodName, grpc.ForceCodecV2(codec{}))
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(request), stream.CloseSend()); err != nil {
		return err
	}
	if _, err := stream.Header(); err != nil {
		return err
	}
	opened()
	for {
		var m message
		if err := stream.RecvMsg(&m); err != nil {
			return err
		}
		w.got = append(w.got, m.events...)
		w.at = m.revision
		if c.done(w) {
			return nil
		}
	}
}

// check compares what everybody got with the log.
func (c *crowd) check(ctx context.Context) (lost, repeated int, err error) {
	entries, err := c.log(ctx)
	if err != nil {
		return 0, 0, err
	}
	for i, w := range c.watchers {
		if w.err != nil {
			return 0, 0, fmt.Errorf("watcher %d: %w", i, w.err)
		}
		l, r := w.compare(entries)
		lost, repeated = lost+l, repeated+r
	}
	return lost, repeated, nil
}

// compare counts what a watcher did not get, and what it got twice, out of order, or should not have got.
func (w *watcher) compare(entries []entry) (lost, wrong int) {
	seen := map[uint64]int{}
	last := uint64(0)
	for _, revision := range w.got {
		if revision <= last {
			wrong++
		}
		last = revision
		seen[revision]++
	}
	due := 0
	for _, e := range entries {
		if !e.concerns(w.filter, w.processes[e.round]) {
			continue
		}
		due++
		if seen[e.revision] == 0 {
			lost++
		}
	}
	return lost, wrong + len(seen) - (due - lost) // what is left was none of its business
}

// codec counts changes without decoding them: the watchers are to cost as little as they can, because
// they run on the machine that is measured.
type codec struct{}

// message is what is read of a WatchResponse: its revision and those of its changes.
type message struct {
	events   []uint64
	revision uint64
}

func (m *message) decode(b []byte) error {
	return fields(b, func(n protowire.Number, value uint64, sub []byte) error {
		switch n {
		case 1:
			revision := uint64(0)
			err := fields(sub, func(n protowire.Number, value uint64, _ []byte) error {
				if n == 1 {
					revision = value
				}
				return nil
			})
			m.events = append(m.events, revision)
			return err
		case 2:
			m.revision = value
		}
		return nil
	})
}

// fields visits the fields of an encoded message.
func fields(b []byte, visit func(n protowire.Number, value uint64, sub []byte) error) error {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		var value uint64
		var sub []byte
		switch kind {
		case protowire.VarintType:
			value, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			sub, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(n, kind, b)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := visit(n, value, sub); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}
