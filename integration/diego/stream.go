package diego

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Stream is an open stream of events. One goroutine reads it.
type Stream struct {
	Response *http.Response
	lines    *bufio.Reader
}

// Event is one event of a stream.
type Event struct {
	ID   string
	Name string
	Data Message
}

// Stream opens a stream and returns when it stands. It ends with ctx; Close it.
func (c *Client) Stream(ctx context.Context, method, path string, body Message) (*Stream, error) {
	r, err := c.request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	res, err := c.HTTP.Do(r)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		return nil, fmt.Errorf("status %d: %s", res.StatusCode, text)
	}
	return &Stream{res, bufio.NewReaderSize(res.Body, 64<<10)}, nil
}

// Close hangs up.
func (s *Stream) Close() { s.Response.Body.Close() }

// Next waits for the next event; io.EOF: the server ended the stream.
func (s *Stream) Next() (Event, error) {
	var ev Event
	for _, part := range []struct {
		name string
		into *string
	}{{"id: ", &ev.ID}, {"event: ", &ev.Name}, {"data: ", nil}, {"", nil}} {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return ev, err
		}
		text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), part.name)
		switch {
		case !ok || part.name == "" && text != "":
			return ev, fmt.Errorf("line %q of an event: want %q", line, part.name)
		case part.into != nil:
			*part.into = text
		case part.name != "":
			if ev.Data, err = base64.StdEncoding.DecodeString(text); err != nil {
				return ev, err
			}
		}
	}
	return ev, nil
}
