package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// tls returns how servers are verified and what they are shown.
func (c Config) tls() (*tls.Config, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("CAs of the system: %w", err)
	}
	for _, name := range c.CAFiles {
		pem, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("ca_files: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_files: %s holds no certificate", name)
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	if c.CertFile == "" || c.KeyFile == "" {
		return config, nil
	}
	pair := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file: %w", err)
		}
		return &pair, nil
	}
	if _, err := pair(nil); err != nil {
		return nil, err
	}
	config.GetClientCertificate = pair
	return config, nil
}

// client returns what talks to servers: HTTP/1.1, a new connection for each request, nothing decoded.
func (c Config) client() (*http.Client, error) {
	config, err := c.tls()
	if err != nil {
		return nil, err
	}
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, ConnectTimeout)
			defer cancel()
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			stalled, _ := ctx.Value(stalledKey{}).(context.CancelCauseFunc)
			return &lively{Conn: conn, stalled: stalled}, nil
		},
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    ConnectTimeout,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	return &http.Client{Transport: located{transport}, CheckRedirect: follow}, nil
}

// located refuses a redirect to what is no URL before package http does: its error would repeat the text, which
// may hold a signature.
type located struct{ next *http.Transport }

var errLocation = errors.New("the redirect is to no URL")

// RoundTrip implements http.RoundTripper.
func (l located) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(req)
	if err != nil || resp.StatusCode/100 != 3 {
		return resp, err
	}
	if _, err := resp.Location(); err != nil && !errors.Is(err, http.ErrNoLocation) {
		resp.Body.Close()
		return nil, errLocation
	}
	return resp, nil
}

var errRedirects = fmt.Errorf("more than %d redirects", maxRedirects)

// follow lets a request be sent on as it is, without a trace of where it came from: that may hold a
// signature. One that would lose its method and its body is not sent on.
func follow(next *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errRedirects
	}
	if next.Method != via[0].Method {
		return http.ErrUseLastResponse
	}
	next.Header.Del("Referer")
	return nil
}

// send sends a request. What may be over with the next attempt is marked so.
func (f *Fetcher) send(req *http.Request) (*http.Response, error) {
	resp, err := f.client.Do(req)
	if err == nil {
		return resp, nil
	}
	err = withoutURL(err)
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) || errors.Is(err, errRedirects) || errors.Is(err, errLocation) {
		return nil, err
	}
	return nil, &transient{explain(req.Context(), err)}
}

// explain returns why a transfer ended: for a bound that was met, or for err.
func explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// stalledKey is the key of the function that ends an attempt whose connection is silent.
type stalledKey struct{}

// lively is a connection that ends, and its attempt with it, when no byte has come or gone for StallTimeout.
type lively struct {
	net.Conn
	stalled context.CancelCauseFunc // nil: nobody is told
}

func (l *lively) Read(p []byte) (int, error) {
	if err := l.SetDeadline(time.Now().Add(StallTimeout)); err != nil {
		return 0, err
	}
	n, err := l.Conn.Read(p)
	return n, l.tell(err)
}

// maxPiece is the most bytes that are written before it counts as life, so that one slow but steady write
// of much is not taken for silence.
const maxPiece = 16 << 10

func (l *lively) Write(p []byte) (written int, err error) {
	for first := true; first || len(p) > 0; first = false {
		if err := l.SetDeadline(time.Now().Add(StallTimeout)); err != nil {
			return written, err
		}
		n, err := l.Conn.Write(p[:min(len(p), maxPiece)])
		written += n
		if err != nil {
			return written, l.tell(err)
		}
		p = p[n:]
	}
	return written, nil
}

// tell ends the attempt if the error is that of silence: what the end of the connection looks like to package
// http depends on who sees it first.
func (l *lively) tell(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && l.stalled != nil {
		l.stalled(errStalled)
	}
	return err
}
