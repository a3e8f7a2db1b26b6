package bbs

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/internal/identity"
	"muster/internal/pgcluster"
)

// durable starts a PostgreSQL with fsync on, and returns a database of it.
func durable(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("/tmp", "bbsbench-")
	must(b, err)
	must(b, os.Chmod(dir, 0o755))
	b.Cleanup(func() { os.RemoveAll(dir) })
	c, err := pgcluster.Open(b.Context(), pgcluster.Config{Dir: dir})
	must(b, err)
	b.Cleanup(func() { c.Stop(context.Background()) })
	must(b, c.EnsureDatabase(b.Context(), "bench"))
	return c.URL("bench")
}

// connections is how many gRPC connections the callers share, as reps and clients would.
const connections = 8

// BenchmarkTransitions measures calls a second through mTLS gRPC with fsync on: each caller desires
// processes of one instance, then claims and starts them. Client, server and PostgreSQL share the
// machine.
func BenchmarkTransitions(b *testing.B) {
	for _, callers := range []int{32, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			w := newWorld(b, durable(b))
			address, _ := w.replica(w.config())
			var clients, reps []*bbsclient.Client
			for range connections {
				clients = append(clients, w.client(address, identity.Client))
				reps = append(reps, w.cell(address, "c1"))
			}
			var serial atomic.Int64
			parallel := func(name string, call func(caller int, p string) error) {
				start := time.Now()
				var wg sync.WaitGroup
				serial.Store(0)
				for c := range callers {
					wg.Go(func() {
						for {
							i := serial.Add(1)
							if i > int64(b.N) {
								return
							}
							if err := call(c, fmt.Sprintf("p%d", i)); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), name+"/s")
			}
			b.ResetTimer()
			ctx := b.Context()
			by := func(p string) lrp.InstanceKey {
				return lrp.InstanceKey{Instance: lrp.InstanceGUID("i-" + p), Cell: "c1"}
			}
			parallel("desire", func(c int, p string) error { return clients[c%connections].Desire(ctx, app(p, 1)) })
			parallel("claim", func(c int, p string) error { return reps[c%connections].Apply(ctx, claim(p, 0, by(p))) })
			parallel("start", func(c int, p string) error { return reps[c%connections].Apply(ctx, start(p, 0, by(p))) })
		})
	}
}

// BenchmarkEventLatency measures how long after the answer to a start a watch has its event (often
// before: then it counts as 0), and how long the call itself takes. Median and 99th percentile.
func BenchmarkEventLatency(b *testing.B) {
	w := newWorld(b, durable(b))
	address, _ := w.replica(w.config())
	client, rep := w.client(address, identity.Client), w.cell(address, "c1")
	must(b, client.Desire(b.Context(), app("p", 1)))
	ctx := b.Context()
	by := lrp.InstanceKey{Instance: "i", Cell: "c1"}
	must(b, rep.Apply(ctx, claim("p", 0, by)))
	_, revision, err := client.Actuals(ctx, bbsclient.ActualFilter{})
	must(b, err)
	watch, err := w.client(address, identity.Auctioneer).Watch(ctx, revision, bbsclient.WatchFilter{})
	must(b, err)
	arrived := make(chan time.Time, 1)
	go func() {
		for {
			events, _, err := watch.Recv()
			if err != nil {
				return
			}
			for range events {
				arrived <- time.Now()
			}
		}
	}()
	var calls, lags []time.Duration
	b.ResetTimer()
	for i := range b.N {
		ev := start("p", 0, by)
		ev.NetInfo.Address = fmt.Sprintf("10.0.%d.%d", i>>8&255, i&255)
		begin := time.Now()
		must(b, rep.Apply(ctx, ev))
		answered := time.Now()
		got := <-arrived
		calls = append(calls, answered.Sub(begin))
		lags = append(lags, max(0, got.Sub(answered)))
	}
	b.ReportMetric(quantile(calls, 0.5), "call-p50-µs")
	b.ReportMetric(quantile(calls, 0.99), "call-p99-µs")
	b.ReportMetric(quantile(lags, 0.5), "event-after-answer-p50-µs")
	b.ReportMetric(quantile(lags, 0.99), "event-after-answer-p99-µs")
}

func quantile(d []time.Duration, q float64) float64 {
	slices.Sort(d)
	return float64(d[min(len(d)-1, int(q*float64(len(d))))].Microseconds())
}
