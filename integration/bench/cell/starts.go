package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"muster/cells/containerd/rawbench"
	"muster/cells/engine"
	"muster/integration/bench/rig"
)

const (
	// warmUps are starts of either kind that are not counted: the first unpacks the image and makes the bridge.
	warmUps = 2
	// askTime bounds one question: a packet that is lost while a network comes up must not cost the second
	// after which TCP sends it again.
	askTime = 50 * time.Millisecond
	// askEvery is the pause between two questions to a single start, askManyEvery when many start at once.
	askEvery     = time.Millisecond
	askManyEvery = 20 * time.Millisecond
)

// starts measures starts, single ones and many at once, of both kinds in turn.
func (b *bench) starts(ctx context.Context, res *result) error {
	var ours, raws []float64
	for i := range b.o.runs + warmUps {
		raw, err := b.startRaw(ctx, 1, askEvery)
		if err != nil {
			return err
		}
		our, err := b.start(ctx, 1, askEvery)
		if err != nil {
			return err
		}
		logf("start %2d: raw %.1f ms, ours %.1f ms", i-warmUps, milliseconds(raw), milliseconds(our))
		if i >= warmUps {
			ours, raws = append(ours, milliseconds(our)), append(raws, milliseconds(raw))
		}
	}
	res.Start, res.RawStart = rounded(rig.Median(ours)), rounded(rig.Median(raws))
	res.StartRatio = rounded(res.Start / res.RawStart)
	n := b.o.parallel
	perSecond := func(took time.Duration) float64 { return rounded(float64(n) / took.Seconds()) }
	ours, raws = nil, nil
	for i := range b.o.rounds {
		raw, err := b.startRaw(ctx, n, askManyEvery)
		if err != nil {
			return err
		}
		our, err := b.start(ctx, n, askManyEvery)
		if err != nil {
			return err
		}
		logf("round %d of %d at once: raw %.1f/s, ours %.1f/s", i, n, perSecond(raw), perSecond(our))
		ours, raws = append(ours, perSecond(our)), append(raws, perSecond(raw))
	}
	res.Parallel, res.RawParallel = rounded(rig.Median(ours)), rounded(rig.Median(raws))
	res.ParallelRatio = rounded(res.Parallel / res.RawParallel)
	return nil
}

// start starts n instances at once, and returns how long it took until all have answered.
func (b *bench) start(ctx context.Context, n int, every time.Duration) (time.Duration, error) {
	work, err := b.desire(ctx, n)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := b.perform(ctx, work); err != nil {
		return 0, err
	}
	asked := map[engine.ID]bool{}
	var answers waiters
	err = until(ctx, fmt.Sprintf("%d processes that were started", n), every, func() (bool, error) {
		ports, err := b.ports()
		for id, port := range ports {
			if !asked[id] {
				asked[id] = true
				answers.Go(func() error { return answers.ask(ctx, port, every) })
			}
		}
		return len(asked) == n, err
	})
	err = errors.Join(err, answers.Wait())
	took := answers.last.Sub(begin)
	if err != nil {
		return 0, err
	}
	if _, err := b.allRunning(ctx, work[0].Key.Process, n); err != nil {
		return 0, err
	}
	return took, b.undesire(ctx, work[0].Key.Process)
}

// startRaw does the same with the plain client.
func (b *bench) startRaw(ctx context.Context, n int, every time.Duration) (time.Duration, error) {
	begin := time.Now()
	var answers waiters
	stops := make([]func(context.Context) error, n)
	for i := range n {
		b.rawN++
		spec := rawbench.Spec{
			ID: fmt.Sprintf("raw-%d", b.rawN), Args: []string{"/bin/hello"},
			Ports: []engine.Port{{Container: appPort, Host: uint16(rawPorts + b.rawN%1000)}},
		}
		answers.Go(func() (err error) {
			if stops[i], _, err = b.raw.Start(ctx, spec); err != nil {
				return err
			}
			return answers.ask(ctx, spec.Ports[0].Host, every)
		})
	}
	err := answers.Wait()
	took := answers.last.Sub(begin)
	var ends waiters
	for _, stop := range stops {
		if stop != nil {
			ends.Go(func() error { return stop(context.WithoutCancel(ctx)) })
		}
	}
	return took, errors.Join(err, ends.Wait())
}

// waiters wait for answers.
type waiters struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error
	last time.Time // when the last answer came
}

// Go runs one of them.
func (w *waiters) Go(wait func() error) {
	w.wg.Go(func() {
		if err := wait(); err != nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.errs = append(w.errs, err)
		}
	})
}

// Wait waits for all of them.
func (w *waiters) Wait() error {
	w.wg.Wait()
	return errors.Join(w.errs...)
}

// ask asks the application behind a host port until it answers.
func (w *waiters) ask(ctx context.Context, port uint16, every time.Duration) error {
	address := fmt.Sprintf("127.0.0.1:%d", port)
	err := until(ctx, "an answer from "+address, every, func() (bool, error) { return answers(address), nil })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = time.Now()
	return err
}

// answers asks once over HTTP.
func answers(address string) bool {
	conn, err := net.DialTimeout("tcp", address, askTime)
	if err != nil {
		return false
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * askTime)); err != nil {
		return false
	}
	if _, err := conn.Write([]byte("GET /healthz HTTP/1.0\r\n\r\n")); err != nil {
		return false
	}
	var first [12]byte
	n, err := conn.Read(first[:])
	return err == nil && string(first[:n]) == "HTTP/1.0 200"
}
