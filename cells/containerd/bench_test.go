package containerd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"muster/bbs/lrp"
	"muster/cells/containerd"
	"muster/cells/containerd/rawbench"
	"muster/cells/engine"
	"muster/cells/step"
	"muster/integration/apps/image"
	"muster/internal/privatecontainerd"
)

// BenchmarkStart compares starts by the engine with starts by the plain client, in turn so that both
// meet the same noise, and reports medians in milliseconds.
func BenchmarkStart(b *testing.B) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "muster")
	must(b, err)
	b.Cleanup(func() { must(b, os.RemoveAll(dir)) })
	daemon, err := privatecontainerd.Open(ctx, privatecontainerd.Config{Dir: filepath.Join(dir, "c")})
	must(b, err)
	b.Cleanup(func() { must(b, privatecontainerd.Stop(ctx, filepath.Join(dir, "c"))) })

	init := filepath.Join(dir, "muster-init")
	must(b, image.Compile(ctx, "muster/cells/guest/cmd/muster-init", init))
	archive := filepath.Join(dir, "hello.tar")
	must(b, image.Hello(ctx, archive))
	config := func(n int) containerd.Config {
		cfg := containerd.Defaults()
		cfg.Address, cfg.ImageDir, cfg.InitPath = daemon.Address, dir, init
		cfg.Namespace, cfg.Bridge = fmt.Sprintf("bench-%d", n), fmt.Sprintf("mbench%d", n)
		cfg.StateDir, cfg.CgroupParent = filepath.Join(dir, cfg.Namespace), "/muster-bench/"+cfg.Namespace
		cfg.Subnet = fmt.Sprintf("10.99.%d.0/24", n)
		return cfg
	}
	raw, err := rawbench.Open(ctx, config(1), "oci-archive://"+archive)
	must(b, err)
	b.Cleanup(func() { must(b, raw.Close(ctx)) })
	steps := map[string][]time.Duration{}
	cfg := config(2)
	cfg.Step = collect(steps)
	e, err := containerd.New(cfg)
	must(b, err)
	b.Cleanup(func() { must(b, e.RemoveAll(ctx)); must(b, e.Close()) })

	var raws, engines, destroys []time.Duration
	for n := 0; b.Loop(); n++ {
		took, err := raw.Run(ctx, rawbench.Spec{
			ID: fmt.Sprint("raw-", n), Args: []string{"/bin/hello"}, Ports: []engine.Port{{Container: 8080, Host: uint16(40000 + n)}},
		})
		must(b, err)
		raws = append(raws, took)
		id := engine.ID(fmt.Sprint("engine-", n))
		began := time.Now()
		_, err = e.Create(ctx, engine.Spec{
			ID: id, RootFS: "oci-archive://" + archive, Program: step.Program{Action: &lrp.Action{Run: &lrp.RunAction{Path: "/bin/hello", User: "app"}}, LogBytes: -1},
			Limits: engine.Limits{MemoryMB: 64, MaxPids: 100}, Ports: []engine.Port{{Container: 8080, Host: uint16(41000 + n)}},
		})
		must(b, err)
		must(b, e.Start(ctx, id))
		engines = append(engines, time.Since(began))
		began = time.Now()
		must(b, e.Destroy(ctx, id))
		destroys = append(destroys, time.Since(began))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(engines[0])/float64(time.Millisecond), "ms-first")
	report := func(name string, took []time.Duration) { b.ReportMetric(milliseconds(took), "ms-"+name) }
	report("raw", raws)
	report("engine", engines[min(1, len(engines)-1):])
	report("destroy", destroys)
	for step, took := range steps {
		report("step:"+step, took)
	}
}

// collect returns a Config.Step that keeps what it is told.
func collect(steps map[string][]time.Duration) func(engine.ID, string, time.Duration) {
	var mu sync.Mutex
	return func(_ engine.ID, step string, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		steps[step] = append(steps[step], took)
	}
}

// milliseconds returns the median.
func milliseconds(took []time.Duration) float64 {
	slices.Sort(took)
	return float64(took[len(took)/2]) / float64(time.Millisecond)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
