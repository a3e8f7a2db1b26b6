package cli

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"muster/bbs"
	"muster/bbs/bbsclient"
	"muster/bbs/lrp"
	"muster/cells"
	"muster/cells/inmem"
	"muster/integration/apps/image"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/pgtest"
	"muster/rep"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"muster": func() { os.Exit(Main(context.Background(), OS(), os.Args[1:])) },
	})
}

// TestScripts runs the scripts of testdata, each against a BBS and a database of its own.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"cell":  cellCommand,
			"place": placeCommand,
			"fail":  failCommand,
			"rep":   repCommand,
		},
	})
}

func setup(env *testscript.Env) error {
	t := env.T().(testing.TB)
	certs := filepath.Join(env.WorkDir, "certs")
	ca, err := identity.OpenCA(certs)
	if err != nil {
		return err
	}
	cfg := bbs.Defaults()
	if cfg.TLS, err = ca.Issue(identity.ID{Role: identity.BBS}); err != nil {
		return err
	}
	operator, err := ca.Issue(identity.ID{Role: identity.Operator})
	if err != nil {
		return err
	}
	for _, id := range []identity.ID{theCell, {Role: identity.Auctioneer}} {
		if _, err := ca.Issue(id); err != nil {
			return err
		}
	}
	ready := make(chan net.Addr, 1)
	cfg.ListenAddress, cfg.DebugAddress = "127.0.0.1:0", ""
	cfg.Encryption = bbs.Encryption{ActiveKeyLabel: "k", Keys: map[string]daemon.Secret{"k": "a passphrase"}}
	cfg.DatabaseURL, cfg.Ready = daemon.Secret(pgtest.Database(t, nil)), func(a net.Addr) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- bbs.Run(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), cfg) }()
	env.Defer(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the BBS ended with %v", err)
		}
	})
	select {
	case addr := <-ready:
		env.Setenv("MUSTER_BBS", addr.String())
	case err := <-done:
		return err
	}
	env.Setenv("MUSTER_CA", operator.CA)
	env.Setenv("MUSTER_CERT", operator.Cert)
	env.Setenv("MUSTER_KEY", operator.Key)
	env.Setenv("MUSTER_STATE_DIR", filepath.Join(env.WorkDir, "nostack"))
	for arch, name := range map[string]string{"amd64": "app.tar", "arm64": "arm.tar"} {
		img, err := image.FromFiles(image.Base(), image.Config{Architecture: arch, Command: []string{"/bin/app"}})
		if err != nil {
			return err
		}
		if err := image.WriteArchive(filepath.Join(env.WorkDir, name), img); err != nil {
			return err
		}
	}
	return nil
}

// theCell is cell c1.
var theCell = identity.ID{Role: identity.Rep, Cell: "c1"}

// as calls do with a client that is somebody.
func as(ts *testscript.TestScript, id identity.ID, do func(context.Context, *bbsclient.Client) error) {
	files := identity.FilesOf(ts.MkAbs("certs"), id)
	tlsConfig, err := files.Client(identity.BBS)
	ts.Check(err)
	conn, err := daemon.DialGRPC(ts.Getenv("MUSTER_BBS"), tlsConfig)
	ts.Check(err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ts.Check(do(ctx, bbsclient.New(conn)))
}

// cellCommand announces cell c1.
func cellCommand(ts *testscript.TestScript, _ bool, _ []string) {
	as(ts, theCell, func(ctx context.Context, c *bbsclient.Client) error {
		return c.Heartbeat(ctx, cells.Presence{
			Cell: "c1", RepURL: "https://127.0.0.1:1", Zone: "z1",
			Capacity:        cells.Resources{MemoryMB: 1024, DiskMB: 2048, Containers: 10},
			RootFSProviders: map[string]cells.Provider{"oci-archive": {}},
		}, time.Minute)
	})
}

// repCommand runs the rep of cell c1, on an engine in memory, until the script ends.
func repCommand(ts *testscript.TestScript, _ bool, _ []string) {
	cfg := rep.Defaults()
	cfg.TLS = identity.FilesOf(ts.MkAbs("certs"), theCell)
	cfg.CellID, cfg.Zone, cfg.DebugAddress = "c1", "z1", ""
	cfg.ListenAddress, cfg.ExternalAddress, cfg.BBSAddress = "127.0.0.1:0", "127.0.0.1", ts.Getenv("MUSTER_BBS")
	cfg.MemoryMB, cfg.DiskMB, cfg.MaxContainers = "1024", "4096", 10
	cfg.Engine, cfg.Containerd.StateDir = inmem.NewHost(nil).Engine(), ts.MkAbs("cell") // where downloads are kept
	ts.Check(cfg.Validate())
	ready := make(chan net.Addr, 1)
	cfg.Ready = func(a net.Addr) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rep.Run(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), cfg) }()
	ts.Defer(func() { cancel(); <-done })
	select {
	case <-ready:
	case err := <-done:
		done <- err
		ts.Fatalf("the rep ended: %v", err)
	}
	as(ts, identity.ID{Role: identity.Operator}, func(ctx context.Context, c *bbsclient.Client) error {
		watch, err := c.Watch(ctx, 0, bbsclient.WatchFilter{})
		for err == nil {
			var events []bbsclient.Event
			events, _, err = watch.Recv()
			if slices.ContainsFunc(events, func(ev bbsclient.Event) bool { return ev.Cell != nil && ev.Cell.After != nil }) {
				return nil
			}
		}
		return err
	})
}

// placeCommand makes instance INDEX of NAME run on cell c1.
func placeCommand(ts *testscript.TestScript, _ bool, args []string) {
	index, err := strconv.Atoi(args[1])
	ts.Check(err)
	ev := lrp.Event{
		Name: lrp.Claim,
		Key:  lrp.Key{Slot: lrp.Slot{Process: lrp.ProcessGUID(args[0]), Index: int32(index)}, Domain: "muster"},
		By:   lrp.InstanceKey{Instance: lrp.InstanceGUID("i-" + args[1]), Cell: "c1"},
	}
	as(ts, theCell, func(ctx context.Context, c *bbsclient.Client) error {
		if err := c.Apply(ctx, ev); err != nil {
			return err
		}
		ev.Name, ev.Routable, ev.AvailabilityZone = lrp.Start, true, "z1"
		ev.NetInfo = lrp.NetInfo{Address: "10.0.0.1", InstanceAddress: "10.255.1.2", Ports: []lrp.PortMapping{{ContainerPort: 8080, HostPort: 61001}}}
		return c.Apply(ctx, ev)
	})
}

// failCommand says of instance INDEX of NAME that cell c1 lacks 64 MB of memory for it.
func failCommand(ts *testscript.TestScript, _ bool, args []string) {
	index, err := strconv.Atoi(args[1])
	ts.Check(err)
	as(ts, identity.ID{Role: identity.Auctioneer}, func(ctx context.Context, c *bbsclient.Client) error {
		return c.Apply(ctx, lrp.Event{
			Name: lrp.Fail, Key: lrp.Key{Slot: lrp.Slot{Process: lrp.ProcessGUID(args[0]), Index: int32(index)}, Domain: "muster"},
			Reason: "insufficient resources: memory",
			Explanation: &lrp.Explanation{
				Cells: 3, Away: 1, Tags: 2, Memory: 1, Closest: lrp.Shortfall{Cell: "c1", Zone: "z1", MemoryMB: 64},
				Remedy: "64 MB less memory, or 64 MB of memory freed on c1",
			},
		})
	})
}
