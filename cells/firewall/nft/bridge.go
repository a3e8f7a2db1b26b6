package nft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// isolate keeps the frames of a port from the other isolated ports of its bridge, and makes the cell
// answer ARP for what is behind these, so that packets for them take the way through the cell.
func (f *Firewall) isolate(port string) error {
	conf := filepath.Join("/proc/sys/net/ipv4/conf", f.cfg.Bridge)
	neigh := filepath.Join("/proc/sys/net/ipv4/neigh", f.cfg.Bridge)
	return errors.Join(
		write(filepath.Join(conf, "proxy_arp_pvlan"), "1"),
		write(filepath.Join(neigh, "proxy_delay"), "0"), // else answers wait for up to 0.8 s
		write(filepath.Join("/sys/class/net", port, "brport/isolated"), "1"),
	)
}

// write sets a switch of the kernel; one that is set already is only read.
func write(path, value string) error {
	if text, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(text)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("isolate containers: %w", err)
	}
	return nil
}
