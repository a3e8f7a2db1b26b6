package consul

import (
	"fmt"
	"net"
	"net/netip"
)

// AddressOf returns the host:port to register for a listener at host:port.
func (c *Config) AddressOf(listener string) (string, error) {
	host, port, err := net.SplitHostPort(listener)
	if err != nil {
		return "", fmt.Errorf("address %q of the listener: want host:port", listener)
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case c.Advertise != "":
		host = c.Advertise
	case host == "" || err == nil && ip.IsUnspecified():
		if host, err = firstAddress(); err != nil {
			return "", err
		}
	}
	return net.JoinHostPort(host, port), nil
}

// firstAddress returns the first address of this machine that others may reach, loopback if it has no other.
func firstAddress() (string, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("look for an address to register: %w: set consul.advertise", err)
	}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			return p.Addr().String(), nil
		}
	}
	return "127.0.0.1", nil
}
