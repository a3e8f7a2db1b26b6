package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/cells/containerd"
	"muster/cells/containerd/rawbench"
	"muster/cells/engine"
	"muster/integration/apps/image"
	"muster/integration/bench/rig"
	"muster/internal/identity"
	"muster/internal/privatecontainerd"
	"muster/rep/repclient"
)

// What the bench uses of the machine; nothing of it is shared with another stack.
const (
	cellID    = "cbench"
	bridge    = "mcbench"
	subnet    = "10.251.0.0/22"
	rawBridge = "mcbenchraw"
	rawSubnet = "10.251.8.0/22"
	portRange = "25000-25999"
	rawPorts  = 26000
	appPort   = 8080
	memoryMB  = 64
)

const (
	// patience bounds every wait.
	patience = 2 * time.Minute
	// lookEvery is the pause between two looks at something that cannot tell us.
	lookEvery = time.Millisecond
)

// bench is a cell under measurement, and what it is measured against.
type bench struct {
	o      options
	rig    *rig.Rig
	daemon *privatecontainerd.Daemon
	dir    string // of containerd
	rootFS string
	bbs    *bbsclient.Client
	rep    *rig.Rep
	cell   *repclient.Client
	cfg    containerd.Config // of the rep's engine
	raw    *rawbench.Bench
	made   int // processes that were desired
	rawN   int // raw containers that were started
}

func open(ctx context.Context, o options) (b *bench, err error) {
	bin, err := filepath.Abs(o.bin) // as the paths of an engine must be
	if err != nil {
		return nil, err
	}
	r, err := rig.Open(ctx, bin)
	if err != nil {
		return nil, err
	}
	b = &bench{o: o, rig: r, dir: r.Path("c")}
	if err := b.build(ctx); err != nil {
		return nil, errors.Join(err, b.close(context.WithoutCancel(ctx)))
	}
	return b, nil
}

func (b *bench) build(ctx context.Context) (err error) {
	if b.daemon, err = privatecontainerd.Open(ctx, privatecontainerd.Config{Dir: b.dir}); err != nil {
		return err
	}
	images := b.rig.Path("images")
	if err := os.Mkdir(images, 0o755); err != nil {
		return err
	}
	archive := filepath.Join(images, "hello.tar")
	if err := image.FromBinary(b.rig.Binary("hello"), archive); err != nil {
		return err
	}
	b.rootFS = "oci-archive://" + archive
	b.cfg = b.engine(cellID, bridge, subnet)
	if b.raw, err = rawbench.Open(ctx, b.engine(cellID+"-raw", rawBridge, rawSubnet), b.rootFS); err != nil {
		return err
	}
	replica, err := b.rig.Replica(ctx)
	if err != nil {
		return err
	}
	clients, err := b.rig.Clients(replica, []identity.ID{{Role: identity.Operator}})
	if err != nil {
		return err
	}
	b.bbs = clients[0]
	if b.rep, err = b.rig.Rep(replica, cellID, b.settings()); err != nil {
		return err
	}
	conn, err := b.rep.Dial()
	if err != nil {
		return err
	}
	b.cell = repclient.New(conn)
	return b.rep.Start()
}

// engine returns where an engine works.
func (b *bench) engine(name, bridge, subnet string) containerd.Config {
	cfg := containerd.Defaults()
	cfg.Address, cfg.ImageDir = b.daemon.Address, b.rig.Path("images")
	cfg.Namespace, cfg.StateDir, cfg.CgroupParent = name, b.rig.Path(name), "/muster-bench/"+name
	cfg.Bridge, cfg.Subnet, cfg.InitPath = bridge, subnet, b.rig.Binary("muster-init")
	return cfg
}

// settings are what the rep has not by default. Health checks have the default interval.
func (b *bench) settings() map[string]any {
	c := b.cfg
	return map[string]any{
		"memory_mb": "20000", "disk_mb": "20000", "port_range": portRange,
		"containerd": map[string]any{
			"address": c.Address, "namespace": c.Namespace, "state_dir": c.StateDir, "image_dir": c.ImageDir,
			"cgroup_parent": c.CgroupParent, "bridge": c.Bridge, "subnet": c.Subnet,
		},
	}
}

// close removes everything.
func (b *bench) close(ctx context.Context) error {
	var errs []error
	if b.rep != nil {
		errs = append(errs, b.rep.Kill(), b.removeAll(ctx))
	}
	if b.raw != nil {
		errs = append(errs, b.raw.Close(ctx))
	}
	errs = append(errs, privatecontainerd.Stop(ctx, b.dir))
	return errors.Join(append(errs, b.rig.Close())...)
}

// removeAll removes what the rep's engine made.
func (b *bench) removeAll(ctx context.Context) error {
	e, err := containerd.New(b.cfg)
	if err != nil {
		return err
	}
	return errors.Join(e.RemoveAll(ctx), e.Close())
}

// desire wants instances of a new process and returns the work that it makes.
func (b *bench) desire(ctx context.Context, n int) ([]cells.Instance, error) {
	d := lrp.Desired{
		Process: rig.Process("cell", b.made), Domain: rig.Domain, Instances: int32(n), RootFS: b.rootFS, MemoryMB: memoryMB, DiskMB: 64,
		MetricTags: map[string]lrp.MetricTag{"source_id": {Static: "bench"}},
		RunInfo: lrp.RunInfo{
			Action: &lrp.Action{Run: &lrp.RunAction{Path: "/bin/hello", User: "app"}},
			Ports:  []uint32{appPort}, LogSource: "APP",
			Check: &lrp.CheckDefinition{Checks: []lrp.Check{{HTTP: &lrp.HTTPCheck{Port: appPort, Path: "/healthz"}}}},
		},
	}
	b.made++
	if err := b.bbs.Desire(ctx, d); err != nil {
		return nil, err
	}
	var work []cells.Instance
	for i := range n {
		work = append(work, cells.Instance{
			Key:       lrp.Key{Slot: lrp.Slot{Process: d.Process, Index: int32(i)}, Domain: d.Domain},
			Resources: cells.Resources{MemoryMB: d.MemoryMB, DiskMB: d.DiskMB, Containers: 1}, RootFS: d.RootFS,
		})
	}
	return work, nil
}

// perform gives work to the cell.
func (b *bench) perform(ctx context.Context, work []cells.Instance) error {
	refused, err := b.cell.Perform(ctx, cellID, work, nil)
	if err == nil && len(refused) > 0 {
		err = fmt.Errorf("the cell refused %d of %d instances: %s", len(refused), len(work), refused[0].Reason)
	}
	return err
}

// undesire removes a process and waits until the cell has nothing any more.
func (b *bench) undesire(ctx context.Context, p lrp.ProcessGUID) error {
	if err := b.bbs.RemoveDesired(ctx, p); err != nil {
		return err
	}
	return until(ctx, "an empty cell", 10*lookEvery, func() (bool, error) {
		s, err := b.cell.State(ctx)
		return len(s.Instances) == 0, err
	})
}

// allRunning waits until so many instances run, as the BBS says.
func (b *bench) allRunning(ctx context.Context, p lrp.ProcessGUID, n int) ([]lrp.Actual, error) {
	var found []lrp.Actual
	err := until(ctx, fmt.Sprintf("%d instances that run", n), 100*lookEvery, func() (bool, error) {
		all, _, err := b.bbs.Actuals(ctx, bbsclient.ActualFilter{Process: p})
		running := 0
		for _, a := range all {
			if a.CrashCount > 0 {
				return false, fmt.Errorf("instance %d crashed: %s", a.Index, a.CrashReason)
			}
			if a.State == lrp.Running {
				running++
			}
		}
		found = all
		return running == n, err
	})
	return found, err
}

// ports returns the host ports of the containers whose process the engine has begun to start: it notes both
// in the directory of the container.
func (b *bench) ports() (map[engine.ID]uint16, error) {
	started, err := filepath.Glob(filepath.Join(b.cfg.StateDir, "containers", "*", "started"))
	if err != nil {
		return nil, err
	}
	found := map[engine.ID]uint16{}
	for _, file := range started {
		dir := filepath.Dir(file)
		var spec struct {
			Ports []engine.Port `json:"ports"`
		}
		text, err := os.ReadFile(filepath.Join(dir, "spec.json"))
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &spec); err != nil {
			return nil, err
		}
		if len(spec.Ports) != 1 {
			return nil, fmt.Errorf("container %s has the ports %v, want one", filepath.Base(dir), spec.Ports)
		}
		found[engine.ID(filepath.Base(dir))] = spec.Ports[0].Host
	}
	return found, nil
}

// until looks at something until it is so.
func until(ctx context.Context, what string, every time.Duration, so func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		done, err := so()
		if done || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("never seen: %s: %w", what, ctx.Err())
		}
	}
}
