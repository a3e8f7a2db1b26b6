// Package probe makes the health checks of instances: one probe (this file) and the schedules of
// startup, liveness and readiness (Schedule). Probes are made by the cell, to the address of the
// container, so they cost the instance nothing and outlive a restart of the rep.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"muster/bbs/lrp"
)

// maxRedirects is how many redirects a probe follows.
const maxRedirects = 10

// Dial opens a connection; net.Dialer.DialContext is one.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// target is one check of one container.
type target struct {
	check   lrp.Check
	address string // of the container
	timeout time.Duration
	dial    Dial
}

// probe returns nil when the check passes, and otherwise an error with the text that the owner of the
// instance is shown.
func (t target) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	if t.check.TCP != nil {
		return t.probeTCP(ctx)
	}
	return t.probeHTTP(ctx)
}

func (t target) probeTCP(ctx context.Context) error {
	address := net.JoinHostPort(t.address, fmt.Sprint(t.check.TCP.Port))
	conn, err := t.dial(ctx, "tcp", address)
	switch {
	case err == nil:
		conn.Close() // a check that connects has passed, however the connection ends
		return nil
	case timedOut(err):
		return fmt.Errorf("failed to make TCP connection to %s: timed out after %.2f seconds", address, t.timeout.Seconds())
	default:
		return fmt.Errorf("failed to make TCP connection to %s: %w", address, err)
	}
}

func (t target) probeHTTP(ctx context.Context) error {
	path := t.check.HTTP.Path
	if path == "" {
		path = "/"
	}
	failed := func(why string) error {
		return fmt.Errorf("failed to make HTTP request to '%s' on port %d: %s", path, t.check.HTTP.Port, why)
	}
	begin := time.Now()
	status, err := t.get(ctx, path)
	switch {
	case timedOut(err):
		return failed(fmt.Sprintf("timed out after %.2f seconds", t.timeout.Seconds()))
	case err != nil:
		return failed("connection refused") // Diego's word for every failure that is not a timeout
	case status != http.StatusOK:
		return failed(fmt.Sprintf("received status code %d in %dms", status, time.Since(begin).Milliseconds()))
	}
	return nil
}

func (t target) get(ctx context.Context, path string) (int, error) {
	transport := &http.Transport{
		DialContext:       t.dialContainer,
		DisableKeepAlives: true,
		// The default of 10 MiB, times all probes under way, is more than a cell should give for health.
		MaxResponseHeaderBytes: maxHeader,
		// An https redirect of the container to itself: its certificate says nothing about its health.
		TLSClientConfig: insecureTLS(),
	}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("stopped after %d redirects", maxRedirects)
		}
		return nil
	}}
	url := "http://" + net.JoinHostPort(t.address, fmt.Sprint(t.check.HTTP.Port)) + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("User-Agent", "diego-healthcheck")
	req.Header.Set("X-Forwarded-Proto", "https")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	// The status decides. The body is drained, at most maxBody, for servers that mind an early end.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody))
	return resp.StatusCode, nil
}

// maxHeader is the longest header of an answer, in bytes.
const maxHeader = 1 << 20

// maxBody is how much of the body of an answer is read, in bytes.
const maxBody = 1 << 20

// errElsewhere keeps redirects inside the container: the cell can reach what the instance must not.
var errElsewhere = errors.New("redirect out of the container")

func (t target) dialContainer(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", address, err)
	}
	if host != t.address && host != "localhost" && host != "127.0.0.1" {
		return nil, errElsewhere
	}
	return t.dial(ctx, network, net.JoinHostPort(t.address, port))
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}
