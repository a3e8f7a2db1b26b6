// Package rig is what the benches stand on: a private PostgreSQL that really syncs (fsync and
// synchronous_commit on), replicas of the BBS as processes of their own with mutual TLS, and clients
// with certificates of their own. Everything is on this machine, below one directory, and gone after
// Close.
package rig

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"muster/bbs/bbsclient"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/pgcluster"
)

const (
	// readyTime bounds the start of a replica.
	readyTime = 60 * time.Second
	// stopTime is how long a replica may take to stop before it is killed.
	stopTime = 10 * time.Second
	// connectAtOnce is how many connections are made at once.
	connectAtOnce = 32
	// database is the name of the database of the replicas.
	database = "bench"
)

// Rig is a PostgreSQL and a certificate authority. One goroutine starts and stops its parts.
type Rig struct {
	dir     string
	bin     string
	cluster *pgcluster.Cluster
	// passphrase encrypts the columns of the BBS.
	passphrase string
	ca         *identity.CA
	bbs        []*Replica
	others     []*Program
	conns      []*grpc.ClientConn
}

// Open starts the PostgreSQL. bin is the directory of the built programs.
func Open(ctx context.Context, bin string) (*Rig, error) {
	// Not below TMPDIR: that may be no real disk, and the name of the socket must stay short.
	dir, err := os.MkdirTemp("/var/tmp", "muster-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the bench: %w", err)
	}
	r := &Rig{dir: dir, bin: bin, passphrase: rand.Text()}
	if err := r.open(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Rig) open(ctx context.Context) (err error) {
	if err := os.Chmod(r.dir, 0o755); err != nil { // PostgreSQL runs as another account
		return err
	}
	if r.ca, err = identity.OpenCA(filepath.Join(r.dir, "certs")); err != nil {
		return err
	}
	if r.cluster, err = pgcluster.Open(ctx, pgcluster.Config{Dir: filepath.Join(r.dir, "pg")}); err != nil {
		return err
	}
	return r.cluster.EnsureDatabase(ctx, database)
}

// Close stops everything and removes the directory.
func (r *Rig) Close() error {
	var errs []error
	for _, c := range r.conns {
		errs = append(errs, c.Close())
	}
	for _, p := range r.others {
		errs = append(errs, p.Stop())
	}
	for _, b := range r.bbs {
		errs = append(errs, b.Stop())
	}
	if r.cluster != nil {
		errs = append(errs, r.cluster.Stop(context.Background()))
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// URL is the database of the replicas.
func (r *Rig) URL() string { return r.cluster.URL(database) }

// Replica is one running BBS process.
type Replica struct {
	Address string // host:port, gRPC with mutual TLS
	Debug   string // host:port, plain HTTP: metrics and profiles
	Diego   string // host:port, HTTP with mutual TLS: routes of Diego's clients
	Program
}

// Replica starts a BBS process and returns when it serves.
func (r *Rig) Replica(ctx context.Context) (*Replica, error) { return r.Configured(ctx, nil) }

// Configured is Replica with some settings that are not the defaults.
func (r *Rig) Configured(ctx context.Context, settings map[string]any) (*Replica, error) {
	files, err := r.ca.Issue(identity.ID{Role: identity.BBS})
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	n := len(r.bbs)
	b := &Replica{Address: ports[0], Debug: ports[1], Diego: ports[2], Program: r.program("bbs", n)}
	all := map[string]any{
		"log_level": "info", "listen_address": b.Address, "debug_address": b.Debug, "database_url": r.URL(),
		"diego":      map[string]string{"listen_address": b.Diego},
		"encryption": map[string]any{"active_key_label": "bench", "keys": map[string]string{"bench": r.passphrase}},
		"tls":        map[string]string{"ca_file": files.CA, "cert_file": files.Cert, "key_file": files.Key},
	}
	maps.Copy(all, settings)
	if err := b.configure(all); err != nil {
		return nil, err
	}
	r.bbs = append(r.bbs, b)
	return b, r.Restart(ctx, b)
}

// Restart starts the process of a replica, which has ended or was never started, where it was, and returns
// when it serves.
func (r *Rig) Restart(ctx context.Context, b *Replica) error {
	if err := b.Start(); err != nil {
		return err
	}
	return r.serving(ctx, b)
}

// Auctioneer returns an auctioneer of a replica, which is not started yet, with some settings that are not
// the defaults. There is one in a rig.
func (r *Rig) Auctioneer(b *Replica, settings map[string]any) (*Program, error) {
	files, err := r.ca.Issue(identity.ID{Role: identity.Auctioneer})
	if err != nil {
		return nil, err
	}
	p := r.program("auctioneer", 0)
	all := map[string]any{
		"log_level": "info", "debug_address": "", "bbs_address": b.Address,
		"tls": map[string]string{"ca_file": files.CA, "cert_file": files.Cert, "key_file": files.Key},
	}
	maps.Copy(all, settings)
	r.others = append(r.others, &p)
	return &p, p.configure(all)
}

// Files returns a certificate of somebody with its key.
func (r *Rig) Files(id identity.ID) (identity.Files, error) { return r.ca.Issue(id) }

// serving waits until a replica answers.
func (r *Rig) serving(ctx context.Context, b *Replica) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	conn, err := r.Dial(b, identity.ID{Role: identity.Client})
	if err != nil {
		return err
	}
	for {
		res, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true))
		if err == nil && res.GetStatus() == healthv1.HealthCheckResponse_SERVING {
			return nil
		}
		select {
		case <-b.ended:
			return fmt.Errorf("the BBS ended; its log:\n%s", b.Log())
		case <-ctx.Done():
			return fmt.Errorf("the BBS does not serve (%v); its log:\n%s", err, b.Log())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// PostgresCPU returns the processor time that the server and its backends have taken so far.
func (r *Rig) PostgresCPU() time.Duration {
	total := cpu(r.cluster.PID(), false) + cpu(r.cluster.PID(), true)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", r.cluster.PID(), r.cluster.PID()))
	if err != nil {
		return total
	}
	for pid := range strings.FieldsSeq(string(children)) {
		n, _ := strconv.Atoi(pid)
		total += cpu(n, false)
	}
	return total
}

// OwnCPU returns the processor time that the bench itself has taken so far.
func OwnCPU() time.Duration { return cpu(os.Getpid(), false) }

// Dial returns a connection of an identity to a replica. It is closed with the rig.
func (r *Rig) Dial(b *Replica, id identity.ID) (*grpc.ClientConn, error) {
	dial, err := r.Dialer(b, id)
	if err != nil {
		return nil, err
	}
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	r.conns = append(r.conns, conn)
	return conn, nil
}

// DiegoTLS returns the TLS configuration of an identity's client of a replica's Diego address.
func (r *Rig) DiegoTLS(id identity.ID) (*tls.Config, error) {
	files, err := r.ca.Issue(id)
	if err != nil {
		return nil, err
	}
	return files.ClientByName()
}

// Dialer returns a function that makes connections of an identity to a replica, for whoever closes them. It
// is safe for concurrent use.
func (r *Rig) Dialer(b *Replica, id identity.ID) (func() (*grpc.ClientConn, error), error) {
	files, err := r.ca.Issue(id)
	if err != nil {
		return nil, err
	}
	tls, err := files.Client(identity.BBS)
	if err != nil {
		return nil, err
	}
	return func() (*grpc.ClientConn, error) {
		// Calls wait for the connection: many are made at once, on a machine that is busy.
		return daemon.DialGRPC(b.Address, tls, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	}, nil
}

// Connect makes all connections that were dialed, a few at a time, so that no handshake of theirs falls
// into what is measured later.
func (r *Rig) Connect(ctx context.Context) error {
	for group := range slices.Chunk(r.conns, connectAtOnce) {
		for _, c := range group {
			c.Connect()
		}
		for _, c := range group {
			for state := c.GetState(); state != connectivity.Ready; state = c.GetState() {
				if !c.WaitForStateChange(ctx, state) {
					return fmt.Errorf("connect to %s: %w", c.Target(), ctx.Err())
				}
			}
		}
	}
	return nil
}

// Clients returns clients of identities, each with a connection of its own.
func (r *Rig) Clients(b *Replica, ids []identity.ID) ([]*bbsclient.Client, error) {
	var all []*bbsclient.Client
	for _, id := range ids {
		conn, err := r.Dial(b, id)
		if err != nil {
			return nil, err
		}
		all = append(all, bbsclient.New(conn))
	}
	return all, nil
}

// Callers returns clients of so many who desire, and of as many cells: the n-th is that of Cell(n).
func (r *Rig) Callers(b *Replica, n int) (desirers, cells []*bbsclient.Client, err error) {
	ids := make([]identity.ID, n)
	for i := range ids {
		ids[i] = identity.ID{Role: identity.Client}
	}
	if desirers, err = r.Clients(b, ids); err != nil {
		return nil, nil, err
	}
	cells, err = r.Clients(b, CellIDs(n))
	return desirers, cells, err
}

// freePorts returns loopback addresses that nobody listens on right now.
func freePorts(n int) ([]string, error) {
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("look for a free port: %w", err)
		}
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	return all, nil
}
