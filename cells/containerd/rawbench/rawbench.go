// Package rawbench starts containers with the plain containerd client and nothing else: make the
// container and its task, attach its network with CNI, start it, one after the other. It is the
// measure that the engine's starts are held against, and is used by benchmarks only.
package rawbench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	gocni "github.com/containerd/go-cni"
	"github.com/containerd/platforms"

	"muster/cells/containerd"
	"muster/cells/engine"
	"muster/cells/portmap"
)

// Bench starts containers of one image. It uses the configuration of an engine for the addresses of
// containerd and CNI, the namespace and the bridge; an engine must not use the same at the same time.
type Bench struct {
	cfg    containerd.Config
	client *client.Client
	image  client.Image
	cni    gocni.CNI
	ports  *portmap.Mapper
}

// Open imports the image of an OCI archive, oci-archive:///PATH, and unpacks it.
func Open(ctx context.Context, cfg containerd.Config, rootFS string) (*Bench, error) {
	path, ok := strings.CutPrefix(rootFS, "oci-archive://")
	if !ok {
		return nil, fmt.Errorf("raw benchmark: image %s: want oci-archive:///PATH", rootFS)
	}
	c, err := client.New(cfg.Address, client.WithDefaultRuntime(cfg.Runtime))
	if err != nil {
		return nil, fmt.Errorf("raw benchmark: %w", err)
	}
	b := &Bench{cfg: cfg, client: c}
	if err := b.prepare(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("raw benchmark: %w", err), c.Close())
	}
	return b, nil
}

func (b *Bench) prepare(ctx context.Context, path string) error {
	list, err := b.cfg.ConfList()
	if err != nil {
		return err
	}
	if b.ports, err = b.cfg.PortMapper(); err != nil {
		return err
	}
	if b.cni, err = gocni.New(gocni.WithPluginDir([]string{b.cfg.CNIBinDir}), gocni.WithInterfacePrefix("eth"), gocni.WithConfListBytes(list)); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(b.cfg.StateDir, "ipam"), 0o711); err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	ctx = b.scope(ctx)
	platform := platforms.DefaultStrict()
	imported, err := b.client.Import(ctx, file, client.WithIndexName("raw-benchmark"), client.WithImportPlatform(platform))
	if err != nil {
		return err
	}
	b.image = client.NewImageWithPlatform(b.client, imported[0], platform)
	return b.image.Unpack(ctx, b.cfg.Snapshotter)
}

func (b *Bench) scope(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, b.cfg.Namespace)
}

// Spec says what to start.
type Spec struct {
	ID    string
	Args  []string // program and arguments
	Ports []engine.Port
}

// Start makes and starts a container. It returns how long that took, and what removes it again.
func (b *Bench) Start(ctx context.Context, spec Spec) (stop func(context.Context) error, took time.Duration, err error) {
	began := time.Now()
	scoped := b.scope(ctx)
	container, err := b.client.NewContainer(scoped, spec.ID,
		client.WithSnapshotter(b.cfg.Snapshotter), client.WithNewSnapshot(spec.ID, b.image),
		client.WithNewSpec(oci.WithImageConfig(b.image), oci.WithProcessArgs(spec.Args...)))
	if err != nil {
		return nil, 0, fmt.Errorf("raw container %s: %w", spec.ID, err)
	}
	task, err := container.NewTask(scoped, cio.NullIO)
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("raw container %s: %w", spec.ID, err), container.Delete(scoped, client.WithSnapshotCleanup))
	}
	netns := fmt.Sprintf("/proc/%d/ns/net", task.Pid())
	stop = func(ctx context.Context) error {
		ctx = b.scope(ctx)
		err := errors.Join(b.ports.Unmap(engine.ID(spec.ID)), b.cni.Remove(ctx, spec.ID, netns))
		_, killed := task.Delete(ctx, client.WithProcessKill)
		return errors.Join(err, killed, container.Delete(ctx, client.WithSnapshotCleanup))
	}
	if err = b.connect(ctx, spec, netns); err == nil {
		err = task.Start(scoped)
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("raw container %s: %w", spec.ID, err), stop(ctx))
	}
	return stop, time.Since(began), nil
}

// connect gives a container its network.
func (b *Bench) connect(ctx context.Context, spec Spec, netns string) error {
	got, err := b.cni.Setup(ctx, spec.ID, netns)
	if err != nil {
		return err
	}
	for _, config := range got.Interfaces["eth0"].IPConfigs {
		if address, ok := netip.AddrFromSlice(config.IP); ok && address.Unmap().Is4() {
			return b.ports.Map(engine.ID(spec.ID), address.Unmap(), spec.Ports)
		}
	}
	return errors.New("the CNI plugins gave it no IPv4 address")
}

// Run starts one container, removes it and returns how long the start took.
func (b *Bench) Run(ctx context.Context, spec Spec) (time.Duration, error) {
	stop, took, err := b.Start(ctx, spec)
	if err != nil {
		return 0, err
	}
	return took, stop(ctx)
}

// Close removes image, namespace and bridge. All containers must have been stopped.
func (b *Bench) Close(ctx context.Context) error {
	e, err := containerd.New(b.cfg)
	if err != nil {
		return errors.Join(err, b.client.Close())
	}
	return errors.Join(e.RemoveAll(ctx), e.Close(), b.client.Close())
}
