// Package proxy is how a cell has TLS terminated in front of its containers. A process of its own, cell-proxy,
// listens on the ports that are there for TLS, answers with the certificate of the container, and passes the
// bytes on to the container's port. It outlives restarts of the rep, and hands its sockets over to its
// successor when it is upgraded, so that no connection is refused or cut.
//
// This package has the words (Container, Listener), the client, and what starts the process when it is not
// there (Open, Keep). Package server is the process.
//
// Who removes a container tells the proxy first, and waits for the answer: only then nothing can reach the
// address of that container with its certificate any more.
package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"muster/bbs/lrp"
	"muster/cells/ports"
)

const (
	// MaxListeners bounds the listeners of one container: two for each port and two for the default one.
	MaxListeners = 2*ports.Max + 2
	// MaxContainers bounds the containers of one proxy.
	MaxContainers = 10000
	// maxID bounds the name of a container, in bytes.
	maxID = 64
	// maxProtocols bounds the protocols that a listener offers.
	maxProtocols = 8
)

// Container is what the proxy does for one container.
type Container struct {
	ID string `json:"id"`
	// Netns is the path of the container's network namespace. Connections to the container are made inside, so
	// they can never reach another one that has got its address. Empty: the proxy's own.
	Netns     string     `json:"netns,omitempty"`
	Listeners []Listener `json:"listeners"`
}

// Listener is one port with TLS.
type Listener struct {
	// Address is IP:port to listen on; Inside tells that it is one of the container, not of the cell.
	Address string `json:"address"`
	Inside  bool   `json:"inside,omitempty"`
	// Target is the container's IP:port.
	Target string `json:"target"`
	// Certificate is a PEM file with a key and a certificate. It is read again when it was replaced; without a
	// usable one every handshake fails.
	Certificate string `json:"certificate"`
	// Protocols are offered by ALPN, the best first. A client that knows none of them gets none.
	Protocols []string `json:"protocols,omitempty"`
	// VerifyClients asks for the certificate of a client that the proxy is configured to trust.
	VerifyClients bool `json:"verify_clients,omitempty"`
}

// Check returns everything that is wrong.
func (c Container) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.ID) == 0 || len(c.ID) > maxID || strings.HasPrefix(c.ID, ".") || strings.ContainsAny(c.ID, "/\x00") {
		bad("id %.80q: want a file name of 1 to %d bytes", c.ID, maxID)
	}
	if c.Netns != "" && !filepath.IsAbs(c.Netns) {
		bad("netns %q: want an absolute path", c.Netns)
	}
	if len(c.Listeners) > MaxListeners {
		bad("listeners: %d of them: at most %d", len(c.Listeners), MaxListeners)
	}
	seen := map[Socket]bool{}
	for i, l := range c.Listeners {
		if seen[l.Socket()] {
			bad("listeners[%d].address %s is there twice", i, l.Address)
		}
		seen[l.Socket()] = true
		for name, a := range map[string]string{"address": l.Address, "target": l.Target} {
			if p, err := netip.ParseAddrPort(a); err != nil || p.Port() == 0 {
				bad("listeners[%d].%s %q: want IP:port", i, name, a)
			}
		}
		if !filepath.IsAbs(l.Certificate) {
			bad("listeners[%d].certificate %q: want an absolute path", i, l.Certificate)
		}
		if len(l.Protocols) > maxProtocols {
			bad("listeners[%d].protocols: %d of them: at most %d", i, len(l.Protocols), maxProtocols)
		}
		for _, p := range l.Protocols {
			if p == "" || len(p) > 255 {
				bad("listeners[%d].protocols %.80q: want 1 to 255 bytes each", i, p)
			}
		}
		if l.Inside && c.Netns == "" {
			bad("listeners[%d].inside without netns", i)
		}
	}
	return errors.Join(errs...)
}

// Socket is what a listener listens on; it tells the listeners of a container apart.
type Socket struct {
	Address string
	Inside  bool
}

// Socket returns what l listens on.
func (l Listener) Socket() Socket { return Socket{l.Address, l.Inside} }

// Place is where a container is, and what its listeners have in common.
type Place struct {
	ID      string
	Netns   string // empty: it has no ports of its own that the proxy could listen on
	Address string // of the container
	Cell    string // address of the cell to listen on; empty: all
	// Instance and Internal are the files with the certificate for routers and with the one for other containers.
	Instance, Internal string
	// HTTP2 offers h2 beside http/1.1 to routers; the app gets what they agree on.
	HTTP2 bool
	// VerifyClients asks routers for their certificates.
	VerifyClients bool
}

// For returns what the proxy is to do for a container with these ports.
func For(p Place, mappings []lrp.PortMapping) Container {
	const all = "0.0.0.0"
	cell := p.Cell
	if cell == "" {
		cell = all
	}
	c := Container{ID: p.ID, Netns: p.Netns, Listeners: []Listener{}}
	for _, m := range mappings {
		l := Listener{Target: join(p.Address, m.ContainerPort), Certificate: p.Instance, VerifyClients: p.VerifyClients}
		if p.HTTP2 {
			l.Protocols = []string{"h2", "http/1.1"}
		}
		if m.HostTLSProxyPort != 0 {
			l.Address = join(cell, m.HostTLSProxyPort)
			c.Listeners = append(c.Listeners, l)
		}
		if m.ContainerTLSProxyPort != 0 && p.Netns != "" {
			l.Address, l.Inside = join(all, m.ContainerTLSProxyPort), true
			if m.ContainerTLSProxyPort == ports.ContainerTLS {
				l.Certificate, l.Protocols, l.VerifyClients = p.Internal, nil, false
			}
			c.Listeners = append(c.Listeners, l)
		}
	}
	return c
}

func join(host string, port uint32) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%d", host, port)
}
