package door

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"muster/bbs/internal/hub"
	"muster/bbs/internal/server"
	"muster/bbs/lrp"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

// Limits of writing.
const (
	// writeTime is how long one portion of a stream or of an answer may take to be written: then its client
	// has stopped reading.
	writeTime = 10 * time.Second
	// portionBytes is how much of a stream is written at once, unless a single event is larger.
	portionBytes = 8 << 10
)

// stream answers with events, until the client is gone or reads too slowly, or the BBS stops.
func (d *Door) stream(w http.ResponseWriter, r *http.Request, route streamRoute) {
	request := &bbsv1.EventsByCellId{}
	body, err := readBody(w, r, nil)
	if err == nil && route.kind != tasks { // those are about no cell, whatever is asked for
		server.Read(body, request)
		err = server.Readable(request)
	}
	if err != nil {
		http.Error(w, invalidText, http.StatusInternalServerError)
		return
	}
	ctx := d.context(w, r, bbsv1.BBSService_Watch_FullMethodName)
	began := false
	err = d.Server.Stream(ctx, &bbsv1.WatchRequest{CellId: request.GetCellId()}, func(ctx context.Context) error {
		id, err := identity.FromContext(ctx)
		if err != nil {
			return err
		}
		// A cell learns of no other's processes.
		s, err := d.broadcast.join(place{route.kind, lrp.CellID(request.GetCellId())}, id.Role == identity.Rep)
		if err != nil {
			return err
		}
		defer d.broadcast.leave(s)
		began = true
		return d.write(ctx, w, s)
	})
	switch {
	case began:
		d.ended(r, err)
	case status.Code(err) == codes.Unavailable:
		w.WriteHeader(http.StatusServiceUnavailable)
	case status.Code(err) == codes.PermissionDenied, status.Code(err) == codes.Unauthenticated:
		http.Error(w, status.Convert(err).Message(), http.StatusForbidden)
	default:
		http.Error(w, status.Convert(err).Message(), http.StatusInternalServerError)
	}
}

// ended tells the log of the end of a stream: whose client is too slow loses it, which an operator wants to
// know; others come and go.
func (d *Door) ended(r *http.Request, err error) {
	level, message := slog.LevelDebug, "a stream ended"
	if errors.Is(err, hub.ErrSlow) || errors.Is(err, os.ErrDeadlineExceeded) {
		level, message = slog.LevelWarn, "a stream was cut off: its client reads too slowly"
	}
	d.Log.Log(r.Context(), level, message, "path", r.URL.Path, "client", r.RemoteAddr, "error", err)
}

// write writes what a stream is told.
func (d *Door) write(ctx context.Context, w http.ResponseWriter, s *stream) error {
	h := w.Header()
	h.Set(typeHeader, "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Connection", "keep-alive")
	out := &portions{w: w, control: http.NewResponseController(w)}
	// The client is told at once that the stream stands, also when there is nothing to see yet.
	w.WriteHeader(http.StatusOK)
	if err := out.flush(); err != nil {
		return err
	}
	// The end of the stream is written after this returns, and may take as long: the last limit is past when
	// nothing has happened for a while.
	defer func() { _ = out.control.SetWriteDeadline(time.Now().Add(writeTime)) }()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.stopping:
			return nil
		case <-s.ready:
		}
		frames, ended := d.broadcast.take(s)
		for _, f := range frames {
			if err := out.add(f); err != nil {
				return err
			}
		}
		if err := out.flush(); err != nil {
			return err
		}
		if ended != nil {
			return ended
		}
	}
}

// portions writes events, several at once, and numbers them from 0.
type portions struct {
	w       http.ResponseWriter
	control *http.ResponseController
	next    uint64
	b       []byte
}

func (p *portions) add(f *frame) error {
	p.b = strconv.AppendUint(append(p.b, "id: "...), p.next, 10)
	p.b = append(append(p.b, '\n'), f.text...)
	p.next++
	if len(p.b) < portionBytes {
		return nil
	}
	return p.flush()
}

// flush writes what was added. A client that does not read for writeTime makes it fail.
func (p *portions) flush() error {
	if err := p.control.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	if _, err := p.w.Write(p.b); err != nil {
		return err
	}
	if cap(p.b) > 2*portionBytes {
		p.b = nil
	}
	p.b = p.b[:0]
	return p.control.Flush()
}
