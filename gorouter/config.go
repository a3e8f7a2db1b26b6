package gorouter

import (
	"errors"
	"fmt"
	"net"
	"time"

	"muster/gorouter/internal/proxy"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/lease"
)

// Config is the router's configuration.
type Config struct {
	daemon.Common
	lease.Config
	HTTPAddress   string `json:"http_address" help:"host:port for the apps' clients, plain HTTP"`
	StatusAddress string `json:"status_address" help:"host:port for /health, and for /routes, which answers clients on this machine only"`

	NATSURLs      []string       `json:"nats_urls" help:"NATS servers, nats://host:port each; all are tried, for ever"`
	NATSPlaintext bool           `json:"nats_plaintext" help:"talk to NATS without TLS; for trusted networks: whoever can publish there can take over every route"`
	TLS           identity.Files `json:"tls"`

	RegisterInterval   daemon.Duration `json:"register_interval" help:"how often emitters are asked to send their routes again, 1s to 1h; shorter repairs sooner and costs messages"`
	StaleThreshold     daemon.Duration `json:"stale_threshold" help:"how long an endpoint without TLS lives without being registered again; at least twice register_interval; longer survives more lost messages, shorter forgets the dead sooner"`
	TLSStaleFactor     int             `json:"tls_stale_factor" help:"times stale_threshold is how long an endpoint with TLS lives, 1 to 1000; more is safe, as its certificate is verified, and less forgets lost unregistrations sooner"`
	PruneInterval      daemon.Duration `json:"prune_interval" help:"how often stale endpoints are looked for, 1s to 1h"`
	StartResponseDelay daemon.Duration `json:"start_response_delay" help:"how long routes may arrive after the first greeting before clients are accepted, up to 1m; shorter starts sooner and answers 404 for routes that are late"`
	EmptyPool503       bool            `json:"empty_pool_response_code_503" help:"answer 503 rather than 404 for a known route without endpoints"`
	EmptyPoolTimeout   daemon.Duration `json:"empty_pool_timeout" help:"how long a route stays known after its last endpoint went, up to 1h; 0 forgets it at once"`

	MaxAttempts         int             `json:"max_attempts" help:"endpoints one request is sent to when they do not answer, 1 to 16; more hides more failures and makes the last error later"`
	MaxConns            int             `json:"max_conns" help:"requests one endpoint has in hand at once, 0: any number; fewer protects slow apps and answers 503 sooner"`
	MaxIdleConns        int             `json:"max_idle_conns" help:"unused connections kept for one endpoint, 0: a new one for each request; more saves connects and holds memory, about 10 KB each"`
	EndpointRetryAfter  daemon.Duration `json:"endpoint_retry_after" help:"how long an endpoint is left alone after a failure, up to 10m"`
	EndpointDialTimeout daemon.Duration `json:"endpoint_dial_timeout" help:"how long connecting to an endpoint may take, 1ms to 1m; shorter moves on sooner and gives up on slow networks"`
	TLSHandshakeTimeout daemon.Duration `json:"tls_handshake_timeout" help:"how long the TLS handshake with an endpoint may take, 1ms to 1m"`
	BackendCAFile       string          `json:"backend_ca_file" help:"PEM file with CAs trusted for endpoints with TLS, beside the system's"`
	BackendCertFile     string          `json:"backend_cert_file" help:"PEM file with the router's certificate for endpoints with TLS that ask for one; read again when it changes; empty: none"`
	BackendKeyFile      string          `json:"backend_key_file" help:"PEM file with the key of backend_cert_file"`
	RequestTimeout      daemon.Duration `json:"request_timeout" help:"how long a request may take from its head to the end of the response, upgraded connections excepted; 0: for ever"`
	ReadHeaderTimeout   daemon.Duration `json:"read_header_timeout" help:"how long a client may take to send a head it has begun, up to 10m, 0: for ever; longer lets slow clients hold connections"`
	FrontendIdleTimeout daemon.Duration `json:"frontend_idle_timeout" help:"how long a client's connection may be unused, 0: for ever"`
	BackendIdleTimeout  daemon.Duration `json:"backend_idle_timeout" help:"how long a connection to an endpoint may be unused, 1s to 1h; longer than the app's own limit makes more requests meet a closed connection"`
	MaxHeaderBytes      int             `json:"max_header_bytes" help:"bytes of a request's or response's head, 1024 to 1048576; larger heads get 431, or 502"`
	MaxHeaders          int             `json:"max_headers" help:"fields of a head, 1 to 10000"`
	ForceHTTPS          bool            `json:"force_forwarded_proto_https" help:"always tell apps that clients use https; for a TLS terminator in front"`
	SanitizeProto       bool            `json:"sanitize_forwarded_proto" help:"overwrite the X-Forwarded-Proto of clients"`
	AccessLog           string          `json:"access_log" help:"file for the access log, - for standard output, empty for none"`
	DrainWait           daemon.Duration `json:"drain_wait" help:"after SIGUSR1, how long /health says 503 while requests are still accepted, up to 10m"`
	DrainTimeout        daemon.Duration `json:"drain_timeout" help:"how long requests in hand may go on when the router stops, up to 1h; shorter cuts long downloads and WebSockets"`

	// Drain, when it can be received from, makes the router drain and end; main links it to SIGUSR1.
	Drain <-chan struct{} `json:"-"`
	// Ready is told the address once clients are accepted.
	Ready func(http, status net.Addr) `json:"-"`
}

// Defaults returns the configuration before files and flags.
func Defaults() *Config {
	return &Config{
		Common:      daemon.Common{LogLevel: "info", DebugAddress: "127.0.0.1:17002"},
		Config:      lease.Defaults(),
		HTTPAddress: ":8081", StatusAddress: "127.0.0.1:8082", NATSURLs: []string{"nats://127.0.0.1:4222"},
		RegisterInterval: daemon.Duration(20 * time.Second), StaleThreshold: daemon.Duration(2 * time.Minute), TLSStaleFactor: 10,
		PruneInterval: daemon.Duration(30 * time.Second), StartResponseDelay: daemon.Duration(5 * time.Second), EmptyPool503: true,
		MaxAttempts: 3, MaxConns: 500, MaxIdleConns: 100, EndpointRetryAfter: daemon.Duration(30 * time.Second),
		EndpointDialTimeout: daemon.Duration(5 * time.Second), TLSHandshakeTimeout: daemon.Duration(10 * time.Second),
		RequestTimeout: daemon.Duration(15 * time.Minute), ReadHeaderTimeout: daemon.Duration(30 * time.Second),
		FrontendIdleTimeout: daemon.Duration(15 * time.Minute), BackendIdleTimeout: daemon.Duration(90 * time.Second),
		MaxHeaderBytes: 1 << 20, MaxHeaders: 256, AccessLog: "-",
		DrainWait: daemon.Duration(20 * time.Second), DrainTimeout: daemon.Duration(30 * time.Second),
	}
}

// Validate returns every problem at once.
func (c *Config) Validate() error {
	errs := append(c.Problems(), c.LeaseProblems()...)
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	address := func(name, value string) {
		if _, _, err := net.SplitHostPort(value); err != nil {
			bad("%s %q: want host:port", name, value)
		}
	}
	address("http_address", c.HTTPAddress)
	address("status_address", c.StatusAddress)
	if len(c.NATSURLs) == 0 {
		bad("nats_urls is empty: name at least one server, such as nats://127.0.0.1:4222")
	}
	if !c.NATSPlaintext {
		errs = append(errs, c.TLS.Problems("tls_")...)
	}
	if (c.BackendCertFile == "") != (c.BackendKeyFile == "") {
		bad("backend_cert_file %q and backend_key_file %q: name both or neither", c.BackendCertFile, c.BackendKeyFile)
	}
	within := func(name string, v daemon.Duration, low, high time.Duration) {
		if d := time.Duration(v); d < low || d > high {
			bad("%s %v: want %v to %v", name, d, low, high)
		}
	}
	within("register_interval", c.RegisterInterval, time.Second, time.Hour)
	within("stale_threshold", c.StaleThreshold, 2*time.Duration(c.RegisterInterval), 24*time.Hour)
	within("prune_interval", c.PruneInterval, time.Second, time.Hour)
	within("start_response_delay", c.StartResponseDelay, 0, time.Minute)
	within("empty_pool_timeout", c.EmptyPoolTimeout, 0, time.Hour)
	within("endpoint_retry_after", c.EndpointRetryAfter, 0, 10*time.Minute)
	within("endpoint_dial_timeout", c.EndpointDialTimeout, time.Millisecond, time.Minute)
	within("tls_handshake_timeout", c.TLSHandshakeTimeout, time.Millisecond, time.Minute)
	within("request_timeout", c.RequestTimeout, 0, 24*time.Hour)
	within("read_header_timeout", c.ReadHeaderTimeout, 0, 10*time.Minute)
	within("frontend_idle_timeout", c.FrontendIdleTimeout, 0, 24*time.Hour)
	within("backend_idle_timeout", c.BackendIdleTimeout, time.Second, time.Hour)
	within("drain_wait", c.DrainWait, 0, 10*time.Minute)
	within("drain_timeout", c.DrainTimeout, 0, time.Hour)
	number := func(name string, v, low, high int) {
		if v < low || v > high {
			bad("%s %d: want %d to %d", name, v, low, high)
		}
	}
	number("tls_stale_factor", c.TLSStaleFactor, 1, 1000)
	number("max_attempts", c.MaxAttempts, 1, proxy.MaxAttempts)
	number("max_conns", c.MaxConns, 0, 1<<20)
	number("max_idle_conns", c.MaxIdleConns, 0, 1<<16)
	number("max_header_bytes", c.MaxHeaderBytes, 1024, 1<<20)
	number("max_headers", c.MaxHeaders, 1, 10000)
	return errors.Join(errs...)
}
