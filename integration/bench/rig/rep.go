package rig

import (
	"fmt"
	"maps"
	"path/filepath"

	"google.golang.org/grpc"

	"muster/bbs/lrp"
	"muster/internal/daemon"
	"muster/internal/identity"
)

// Rep is one rep process.
type Rep struct {
	Address string // host:port, gRPC with mutual TLS
	Debug   string // host:port, plain HTTP: metrics and profiles
	Program
	rig *Rig
}

// Rep returns the rep of a cell, which reports to a replica and is not started yet, with some settings that
// are not the defaults. It is stopped with the rig; its containers are not.
func (r *Rig) Rep(b *Replica, cell lrp.CellID, settings map[string]any) (*Rep, error) {
	files, err := r.ca.Issue(identity.ID{Role: identity.Rep, Cell: string(cell)})
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	p := &Rep{Address: ports[0], Debug: ports[1], Program: r.program("rep", len(r.others)), rig: r}
	all := map[string]any{
		"log_level": "info", "debug_address": p.Debug, "cell_id": cell, "zone": "z1",
		"listen_address": p.Address, "external_address": "127.0.0.1", "bbs_address": b.Address,
		"tls": map[string]string{"ca_file": files.CA, "cert_file": files.Cert, "key_file": files.Key},
	}
	maps.Copy(all, settings)
	r.others = append(r.others, &p.Program)
	return p, p.configure(all)
}

// Dial returns a connection of an auctioneer to the rep. It is closed with the rig; calls wait for a rep that
// starts.
func (p *Rep) Dial() (*grpc.ClientConn, error) {
	files, err := p.rig.ca.Issue(identity.ID{Role: identity.Auctioneer})
	if err != nil {
		return nil, err
	}
	tls, err := files.Client(identity.Rep)
	if err != nil {
		return nil, err
	}
	conn, err := daemon.DialGRPC(p.Address, tls, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return nil, fmt.Errorf("connect to the rep: %w", err)
	}
	p.rig.conns = append(p.rig.conns, conn)
	return conn, nil
}

// PID is the process that runs now, or ran last.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Binary returns the path of one of our programs.
func (r *Rig) Binary(name string) string { return filepath.Join(r.bin, name) }

// Path returns a path below the directory of the rig.
func (r *Rig) Path(name string) string { return filepath.Join(r.dir, name) }
