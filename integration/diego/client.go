package diego

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
)

// maxIdle is how many idle connections a client keeps.
const maxIdle = 1024

// Client calls routes. It is safe for concurrent use.
type Client struct {
	URL   string // https://HOST:PORT
	HTTP  *http.Client
	Trace string // X-Vcap-Request-Id of each call; may be empty
}

// New returns a client of an address, host:port, that keeps its connections as Diego's does.
func New(address string, config *tls.Config) *Client {
	return &Client{URL: "https://" + address, HTTP: &http.Client{Transport: &http.Transport{
		TLSClientConfig: config, MaxIdleConns: maxIdle, MaxIdleConnsPerHost: maxIdle,
	}}}
}

// WithTrace returns a client whose calls have an id.
func (c *Client) WithTrace(id string) *Client {
	return &Client{URL: c.URL, HTTP: c.HTTP, Trace: id}
}

// Response is the answer to a call.
type Response struct {
	Status int
	Header http.Header
	Body   Message
}

// request makes a request as Diego's clients do.
func (c *Client) request(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("X-Vcap-Request-Id", c.Trace)
	return r, nil
}

// Call posts a message and returns the answer, whatever it is; the error is that of the transport.
func (c *Client) Call(ctx context.Context, path string, body Message) (*Response, error) {
	r, err := c.request(ctx, http.MethodPost, path, body)
	if err != nil {
		return nil, err
	}
	res, err := c.HTTP.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", path, err)
	}
	return &Response{res.StatusCode, res.Header, text}, nil
}

// Error is the error inside of a response.
type Error struct {
	Type    int64
	Message string
}

// The types of errors.
const (
	UnknownError           = 0
	InvalidRequest         = 4
	InvalidStateTransition = 9
	ResourceConflict       = 11
	ResourceExists         = 12
	ResourceNotFound       = 13
	CannotBeClaimed        = 15
	CannotBeStarted        = 16
	CannotBeCrashed        = 17
	CannotBeFailed         = 18
	CannotBeRemoved        = 19
	RunningOnDifferentCell = 24
	Deserialize            = 27
)

// contentType is what every message is sent as.
const contentType = "application/x-protobuf"

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("error of type %d: %s", e.Type, e.Message) }

// Err returns the error inside of a response; nil: there is none.
func (r *Response) Err() error {
	if r.Status != http.StatusOK {
		return fmt.Errorf("status %d: %s", r.Status, r.Body)
	}
	if t := r.Header.Get("Content-Type"); t != contentType {
		return fmt.Errorf("content type %q", t)
	}
	for _, v := range r.Body.values() {
		if v.field == 1 && v.bytes != nil { // that of a ping is a number
			return &Error{v.bytes.NumberAt(1), v.bytes.TextAt(2)}
		}
	}
	return nil
}

// Do calls a route and returns the response, or the error inside of it.
func (c *Client) Do(ctx context.Context, path string, body Message) (Message, error) {
	res, err := c.Call(ctx, path, body)
	if err != nil {
		return nil, err
	}
	return res.Body, res.Err()
}
