package containerd

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"muster/cells/engine"
)

// maxHostname keeps host names within the bound of DNS labels; Diego takes the end of the handle too.
const maxHostname = 49

// hostname returns the host name of a container.
func hostname(id engine.ID) string {
	name := string(id)
	return strings.TrimLeft(name[max(0, len(name)-maxHostname):], "-")
}

// hostsFile returns /etc/hosts; the address is empty until the network is there.
func hostsFile(address, hostname string) string {
	text := "127.0.0.1 localhost\n"
	if address != "" {
		text += fmt.Sprintf("%s %s\n", address, hostname)
	}
	return text
}

// hostResolvConf is where the cell's own resolvers stand.
const hostResolvConf = "/etc/resolv.conf"

// resolvConf returns /etc/resolv.conf with the given servers, else with those of the cell that can
// be reached from a network namespace of its own.
func resolvConf(servers []string) (string, error) {
	var text strings.Builder
	for _, server := range servers {
		fmt.Fprintf(&text, "nameserver %s\n", server)
	}
	if len(servers) > 0 {
		return text.String(), nil
	}
	host, err := os.ReadFile(hostResolvConf)
	if os.IsNotExist(err) {
		return "", nil // then names resolve on the cell neither
	}
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(host)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "nameserver" {
			if addr, err := netip.ParseAddr(fields[1]); err != nil || addr.IsLoopback() {
				continue
			}
		}
		text.WriteString(strings.TrimRight(line, "\n") + "\n")
	}
	return text.String(), nil
}
