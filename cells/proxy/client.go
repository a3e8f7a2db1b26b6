package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"
)

// The files of a proxy's directory.
const (
	LockFile      = "lock"
	ControlFile   = "control.sock"
	HandoverFile  = "handover.sock"
	ContainersDir = "containers"
	LogFile       = "log"
)

// MaxSocketPath is what fits into the address of a Unix socket, in bytes.
const MaxSocketPath = 106

const (
	// callTimeout bounds a call. The proxy does nothing that takes long.
	callTimeout = 10 * time.Second
	// repeatEvery is how often a call is repeated that got no answer: the process is being started again.
	repeatEvery = 20 * time.Millisecond
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 20

// Self is what a proxy says about itself.
type Self struct {
	Version string   `json:"version"`
	PID     int      `json:"pid"`
	Args    []string `json:"args"` // of its command line, without -takeover
}

// Status is a container as the proxy has it.
type Status struct {
	Container
	Connections int `json:"connections"`
	// Problems are listeners that could not be opened, by their address; they are tried again and again.
	Problems map[string]string `json:"problems,omitempty"`
}

// Client talks to the proxy of a directory. Its methods may be called concurrently. Set, Remove and List wait for
// a process that is being started or replaced, up to 10 s.
type Client struct {
	dir  string
	http *http.Client
}

// NewClient returns a client; it does not connect.
func NewClient(dir string) *Client {
	socket := filepath.Join(dir, ControlFile)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	// A connection for each call: one that was kept could lead to a process that has handed over.
	return &Client{dir: dir, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Set makes the proxy do what c says for its container, and nothing else any more. When it returns, all
// listeners are open. What stays the same is left alone: calling it again changes nothing. A listener that
// cannot be opened is an error, and then nothing has changed.
func (c *Client) Set(ctx context.Context, container Container) error {
	if err := container.Check(); err != nil {
		return fmt.Errorf("proxy for container %s: %w", container.ID, err)
	}
	return c.insist(ctx, http.MethodPut, "/v1/containers/"+url.PathEscape(container.ID), container, nil)
}

// Remove closes all listeners and connections of a container; one that is not known is no error. When it
// returns, nothing reaches the container through the proxy any more.
func (c *Client) Remove(ctx context.Context, id string) error {
	return c.insist(ctx, http.MethodDelete, "/v1/containers/"+url.PathEscape(id), nil, nil)
}

// List returns all containers, in the order of their IDs.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	var all []Status
	err := c.insist(ctx, http.MethodGet, "/v1/containers", nil, &all)
	return all, err
}

// Self returns who answers.
func (c *Client) Self(ctx context.Context) (Self, error) {
	var s Self
	err := c.call(ctx, http.MethodGet, "/v1/self", nil, &s)
	return s, err
}

// Await returns when the process that answers now has ended or handed over, or when ctx ends.
func (c *Client) Await(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://proxy/v1/alive", nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("proxy in %s: %w", c.dir, err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // its end, in whatever way, is the news
	return ctx.Err()
}

// insist repeats a call until it is answered, for up to callTimeout; all calls may be repeated.
func (c *Client) insist(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for {
		err := c.call(ctx, method, path, in, out)
		var refused *refusal
		if err == nil || errors.As(err, &refused) {
			return err
		}
		select {
		case <-time.After(repeatEvery):
		case <-ctx.Done():
			return err
		}
	}
}

// refusal is an answer that is an error.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	failed := func(err error) error { return fmt.Errorf("proxy in %s: %s %s: %w", c.dir, method, path, err) }
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return failed(err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://proxy"+path, body)
	if err != nil {
		return failed(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return failed(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return failed(err)
	case resp.StatusCode >= 300:
		return failed(&refusal{string(bytes.TrimSpace(text))})
	case out != nil:
		if err := json.Unmarshal(text, out); err != nil {
			return failed(err)
		}
	}
	return nil
}
