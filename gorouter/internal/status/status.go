// Package status answers load balancers and operators about the router: whether it is well, and which
// routes it has.
package status

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"

	"muster/gorouter/internal/proxy"
)

type endpoint struct {
	Address      string            `json:"address"`
	Zone         string            `json:"availability_zone"`
	Protocol     string            `json:"protocol"`
	TLS          bool              `json:"tls"`
	TTL          int               `json:"ttl"`
	RouteService string            `json:"route_service_url,omitempty"`
	Tags         map[string]string `json:"tags"`
	Segment      string            `json:"isolation_segment,omitempty"`
	InstanceID   string            `json:"private_instance_id,omitempty"`
	ServerName   string            `json:"server_cert_domain_san,omitempty"`
	Algorithm    string            `json:"load_balancing_algorithm,omitempty"`
}

// Handler answers /health (200 while healthy says so, else 503),
// /is-process-alive-do-not-use-for-loadbalancing (always 200) and, to clients on the same machine, /routes.
func Handler(healthy func() bool, table func() *proxy.Table) http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, ok bool) {
		w.Header().Set("Cache-Control", "private, max-age=0")
		w.Header().Set("Expires", "0")
		w.Header().Set("Connection", "close")
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	}
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { answer(w, healthy()) })
	mux.HandleFunc("/is-process-alive-do-not-use-for-loadbalancing", func(w http.ResponseWriter, _ *http.Request) { answer(w, true) })
	mux.HandleFunc("/routes", func(w http.ResponseWriter, r *http.Request) {
		if !local(r.RemoteAddr) {
			http.Error(w, "routes are shown to clients on the router's machine only", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Connection", "close")
		// An error is the client's: it left.
		_ = json.NewEncoder(w).Encode(list(table()))
	})
	return mux
}

func local(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func list(t *proxy.Table) map[string][]endpoint {
	out := make(map[string][]endpoint, t.Routes())
	for p := range t.All() {
		es := make([]endpoint, 0, len(p.Endpoints))
		for _, e := range p.Endpoints {
			es = append(es, endpoint{
				Address: e.Address, Zone: e.Zone, Protocol: e.Protocol, TLS: e.TLS, TTL: int(e.StaleAfter.Seconds()),
				RouteService: p.RouteService, Tags: e.Tags, Segment: e.Segment, InstanceID: e.InstanceID,
				ServerName: e.ServerName, Algorithm: e.Algorithm,
			})
		}
		out[p.URI] = es
	}
	return out
}
