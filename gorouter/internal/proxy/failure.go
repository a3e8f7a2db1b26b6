package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"muster/gorouter/http1"
)

// maxInformational bounds the 1xx responses to one request.
const maxInformational = 32

var (
	errUnasked       = errors.New("backend switched protocols without being asked to")
	errInformational = fmt.Errorf("backend sent more than %d informational responses", maxInformational)
	errNoEndpoints   = errors.New("No endpoints available")
	errTimeout       = errors.New("context deadline exceeded")
	errClientGone    = errors.New("context canceled")
)

// failure is an attempt that got no response, and what follows from it.
type failure struct {
	err    error
	status int
	retry  bool // another endpoint may be asked
	mark   bool // this one is left alone for a while
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// staleError is a failure of a connection that the backend may just have closed because it was idle.
type staleError struct{ failure }

func (s *staleError) Error() string { return s.err.Error() }

// Unwrap shows the failure in it.
func (s *staleError) Unwrap() error { return &s.failure }

func asFailure(err error) failure {
	var f *failure
	if errors.As(err, &f) {
		return *f
	}
	return failure{err: err, status: 502}
}

// dialFailure classifies a connection that could not be made: nothing was sent, so anybody may be asked.
func dialFailure(err error) error {
	f := &failure{err: err, status: 502, retry: true, mark: true}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ENOBUFS) {
		f.retry, f.mark = false, false // the router lacks something, not the backend
		return f
	}
	var hostname x509.HostnameError
	var record tls.RecordHeaderError
	var verification *tls.CertificateVerificationError
	var alert tls.AlertError
	switch {
	case errors.As(err, &record):
		f.status = 525
	case errors.As(err, &hostname):
		f.status = 503
	case errors.As(err, &verification):
		f.status = 526
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls:"):
		f.status = 525
		if refusesOurs(err) {
			f.status = 496
		}
	}
	return f
}

// refusesOurs tells whether a backend wants another certificate of the router than it got.
func refusesOurs(err error) bool {
	text := err.Error()
	return strings.Contains(text, "remote error: tls:") && slices.ContainsFunc(
		[]string{"bad certificate", "unknown certificate", "expired certificate", "certificate required"},
		func(about string) bool { return strings.Contains(text, about) })
}

// judge says what follows from an error after the request was, at least in part, written: unsent says
// that its head was not written as a whole.
func (c *conn) judge(u *upstream, err error, unsent bool) error {
	if c.gone.Load() {
		c.hung = true
		return &failure{err: errClientGone, status: 499}
	}
	if c.refused != nil {
		return &failure{err: c.refused, status: 400}
	}
	if c.stopped.Load() {
		return &failure{err: errTimeout, status: 502}
	}
	if c.started {
		return &failure{err: err, status: 502}
	}
	var refused *http1.Error
	if errors.As(err, &refused) {
		return &failure{err: fmt.Errorf("backend's response: %w", err), status: 502}
	}
	if !u.reused && u.w == 0 && refusesOurs(err) {
		// With TLS 1.3 the router's handshake is over before the backend has looked at its certificate.
		return &failure{err: err, status: 496, retry: c.inHand, mark: true}
	}
	f := failure{err: err, status: 502}
	closed := errors.Is(err, io.EOF)
	reset := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	f.mark = reset && !u.reused
	silent := u.w == 0 || unsent
	if !silent || !(closed || reset || unsent) || !(c.inHand || unsent) {
		return &f
	}
	replayable := c.req.Replayable()
	f.retry = unsent || closed && replayable
	if u.reused && (unsent || replayable || c.req.Body == http1.NoBody) {
		return &staleError{f}
	}
	return &f
}

// errorText is what X-Cf-RouterError says about an error: one line, whatever the error was.
func errorText(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return ' '
		}
		return r
	}, err.Error())
}
