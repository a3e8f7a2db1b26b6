package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"sync"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	containerdlog "github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/singleflight"

	"muster/cells/engine"
	"muster/cells/firewall"
)

const (
	// reconnectWithin bounds the back-off of the connection to containerd, so that an engine is
	// back soon after a restart of containerd.
	reconnectWithin = 2 * time.Second
	// callTimeout bounds what must not hang with a context that cannot be cancelled: making a task
	// and undoing a failed Create.
	callTimeout = 2 * time.Minute
	// maxLabelBytes is containerd's bound on a label's key and value together.
	maxLabelBytes = 4096
)

// Engine runs containers. All methods may be called concurrently.
type Engine struct {
	cfg      Config
	log      *slog.Logger
	client   *client.Client
	platform platforms.MatchComparer
	network  *network
	guard    *guard
	paths    paths
	watch    *watcher
	quiet    *containerdlog.Entry

	fetches singleflight.Group
	mu      sync.Mutex
	images  map[string]*image // by image key; at most maxCachedImages

	versions          sync.Mutex
	directoryVersions map[string]string // of preloaded directories, by path

	disks     disks
	diskEvery time.Duration // diskEvery; tests look more often

	installing sync.Once // of the init
	installErr error

	leases        sync.Mutex // held while old leases are dropped
	leasesDropped bool

	lock *os.File // see Own

	life   context.Context // ends with Close; fetches run in it, for they serve several callers
	end    context.CancelFunc
	active sync.WaitGroup // fetches
}

var _ engine.Engine = (*Engine)(nil)

// New returns an engine. It does not talk to containerd yet; see Ping.
func New(cfg Config) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("containerd engine: %w", err)
	}
	c, err := client.New(cfg.Address, client.WithTimeout(reconnectWithin), client.WithDefaultRuntime(cfg.Runtime))
	if err != nil {
		return nil, fmt.Errorf("containerd at %s: %w", cfg.Address, err)
	}
	watch, err := newWatcher()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	net, err := newNetwork(cfg)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("containerd engine: %w", err), c.Close(), watch.close())
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		cfg: cfg, log: log, client: c, platform: platforms.DefaultStrict(), network: net, guard: newGuard(cfg),
		paths: paths{cfg.StateDir}, watch: watch, quiet: quietLogger(), images: map[string]*image{}, directoryVersions: map[string]string{},
		diskEvery: diskEvery,
	}
	e.life, e.end = context.WithCancel(e.scope(context.Background()))
	return e, nil
}

// Close ends fetches under way and the connection. Containers go on.
func (e *Engine) Close() error {
	e.end()
	e.active.Wait()
	err := errors.Join(e.client.Close(), e.watch.close())
	if e.lock != nil {
		err = errors.Join(err, e.lock.Close())
	}
	return err
}

// Ping tells whether containerd answers.
func (e *Engine) Ping(ctx context.Context) error {
	serving, err := e.client.IsServing(ctx)
	if err != nil {
		return fmt.Errorf("containerd at %s does not answer: %w", e.cfg.Address, err)
	}
	if !serving {
		return fmt.Errorf("containerd at %s is not serving", e.cfg.Address)
	}
	return nil
}

// scope makes calls with ctx concern our namespace, and keeps the client library from writing its
// own log to stderr: what matters of it comes back as errors.
func (e *Engine) scope(ctx context.Context) context.Context {
	return containerdlog.WithLogger(namespaces.WithNamespace(ctx, e.cfg.Namespace), e.quiet)
}

// quietLogger returns a logger of containerd's kind that writes nothing.
func quietLogger() *containerdlog.Entry {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logrus.NewEntry(logger)
}

func (e *Engine) snapshots() snapshots.Snapshotter {
	return e.client.SnapshotService(e.cfg.Snapshotter)
}

// step tells Config.Step how long a step took; use: defer e.step(id, "snapshot")().
func (e *Engine) step(id engine.ID, name string) func() {
	if e.cfg.Step == nil {
		return func() {}
	}
	began := time.Now()
	return func() { e.cfg.Step(id, name, time.Since(began)) }
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9](-?[A-Za-z0-9])*$`)

// maxID is the bound of engine.ID, in characters.
const maxID = 64

// checkSpec refuses what containerd or the kernel would refuse later and less clearly.
func checkSpec(spec engine.Spec) error {
	if len(spec.ID) > maxID || !idPattern.MatchString(string(spec.ID)) {
		return fmt.Errorf("container ID %q: want 1 to %d letters, digits and single - between them", spec.ID, maxID)
	}
	for key, value := range spec.Labels {
		if len(key)+len(value) > maxLabelBytes {
			return fmt.Errorf("container %s: label %q has %d bytes with its key, more than %d", spec.ID, key, len(key)+len(value), maxLabelBytes)
		}
	}
	if spec.Program.Action == nil {
		return fmt.Errorf("container %s: its program has no action", spec.ID)
	}
	for name, limit := range map[string]int32{"memory": spec.Limits.MemoryMB, "disk": spec.Limits.DiskMB, "pids": spec.Limits.MaxPids} {
		if limit < 0 {
			return fmt.Errorf("container %s: the %s limit is %d: want 0 (none) or more", spec.ID, name, limit)
		}
	}
	if err := engine.CheckMounts(spec.Mounts); err != nil {
		return fmt.Errorf("container %s: %w", spec.ID, err)
	}
	if err := firewall.Check(spec.Egress); err != nil {
		return fmt.Errorf("container %s: %w", spec.ID, err)
	}
	return nil
}
