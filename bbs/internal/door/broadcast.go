package door

import (
	"context"
	"encoding/base64"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"muster/bbs/internal/hub"
	"muster/bbs/internal/refusal"
	"muster/bbs/internal/store"
	"muster/bbs/lrp"
)

// Limits of streams.
const (
	// maxStreams is how many streams are open at once. Up: more memory, and more to write for each change;
	// down: clients are sent away with 503, and come again.
	maxStreams = 10_000
	// maxPending and maxPendingBytes are how many events, and how large, a stream may leave unwritten
	// before it is ended: those of a few large processes that are desired at once. Events are shared by all
	// streams, so that these are the bounds for all together, but for those that lag differently.
	maxPending      = 16_384
	maxPendingBytes = 64 << 20
)

// errTooMany says that maxStreams are open.
func errTooMany() error {
	return refusal.Unavailable(codes.Unavailable, fmt.Sprintf("%d streams are open, as many as may be", maxStreams), time.Second)
}

// frame is an event as it is written, but for its number. Streams share it.
type frame struct {
	told
	revision uint64
	text     []byte // nil until a stream is to have it
}

// encode makes the text.
func (f *frame) encode() error {
	if f.text != nil {
		return nil
	}
	payload, err := proto.Marshal(f.payload())
	if err != nil {
		return fmt.Errorf("encode %s at revision %d: %w", f.name, f.revision, err)
	}
	text := append(make([]byte, 0, len(f.name)+base64.StdEncoding.EncodedLen(len(payload))+len("event: \ndata: \n\n")), "event: "...)
	text = append(append(text, f.name...), "\ndata: "...)
	f.text = append(base64.StdEncoding.AppendEncode(text, payload), "\n\n"...)
	return nil
}

// place is where streams are kept: by what they are about, and by their cell, if they have one.
type place struct {
	kind kind
	cell lrp.CellID
}

// broadcast gives what one watch sees to any number of streams. The watch is open only while there are
// any, so that nobody pays for streams that are not there.
type broadcast struct {
	hub    *hub.Hub
	wanted chan struct{} // capacity 1: a stream has come

	mu      sync.Mutex
	streams map[place]map[*stream]struct{}
	open    int
	// begin is where the watch begins that follows for the first stream.
	begin     uint64
	following bool
	closed    bool
}

func newBroadcast(h *hub.Hub) *broadcast {
	return &broadcast{hub: h, wanted: make(chan struct{}, 1), streams: map[place]map[*stream]struct{}{}}
}

// stream is what one client is still to be told.
type stream struct {
	place
	silent bool          // it hears of no DesiredLRPs
	after  uint64        // it hears of what comes after that revision
	ready  chan struct{} // capacity 1: there is something to take

	// Under the lock of the broadcast:
	pending []*frame
	bytes   int
	ended   error // why nothing more comes
}

// join opens a stream that hears of everything from now on; leave it.
func (b *broadcast) join(p place, silent bool) (*stream, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, hub.ErrClosed
	case b.open >= maxStreams:
		return nil, errTooMany()
	}
	s := &stream{place: p, silent: silent, after: b.hub.Newest(), ready: make(chan struct{}, 1)}
	if !b.following {
		b.following, b.begin = true, s.after
		signal(b.wanted)
	}
	if b.streams[p] == nil {
		b.streams[p] = map[*stream]struct{}{}
	}
	b.streams[p][s] = struct{}{}
	b.open++
	return s, nil
}

// leave closes a stream.
func (b *broadcast) leave(s *stream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.streams[s.place][s]; !there {
		return
	}
	b.open--
	if delete(b.streams[s.place], s); len(b.streams[s.place]) == 0 {
		delete(b.streams, s.place)
	}
}

// count returns how many streams are open.
func (b *broadcast) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// take returns what is to be written. With an error nothing comes after it.
func (b *broadcast) take(s *stream) ([]*frame, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := s.pending
	s.pending, s.bytes = nil, 0
	return list, s.ended
}

// run follows the log whenever there are streams, until ctx ends; then all streams end.
func (b *broadcast) run(ctx context.Context) error {
	defer b.end(hub.ErrClosed, true)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.wanted:
		}
		if err := b.follow(ctx); err != nil {
			b.end(err, false) // clients come again, and list
		}
	}
}

// follow tells streams what happens until there are none, or the watch ends.
func (b *broadcast) follow(ctx context.Context) error {
	b.mu.Lock()
	begin := b.begin
	b.mu.Unlock()
	w, err := b.hub.Watch(ctx, begin, hub.Filter{})
	if err != nil {
		return err
	}
	defer w.Close()
	var t teller
	for {
		records, _, err := w.Next(ctx)
		if err != nil {
			return err
		}
		for _, r := range records {
			b.offer(t.frames(r))
		}
		if b.idle() {
			return nil
		}
	}
}

// frames makes the events that an entry of the log tells.
func (t *teller) frames(r *store.Record) []*frame {
	var list []*frame
	for _, e := range t.tell(r.Event()) {
		list = append(list, &frame{told: e, revision: r.Revision})
	}
	return list
}

// offer puts events on the lists of the streams that they are for.
func (b *broadcast) offer(frames []*frame) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range frames {
		if f.cells == nil { // for all of these kinds, whatever their cell
			for p, list := range b.streams {
				if f.to&p.kind != 0 {
					f.offer(list)
				}
			}
			continue
		}
		for _, k := range [...]kind{instances, slots, tasks} {
			if f.to&k == 0 {
				continue
			}
			f.offer(b.streams[place{k, ""}])
			for i, cell := range f.cells {
				if cell != "" && (i == 0 || cell != f.cells[0]) {
					f.offer(b.streams[place{k, cell}])
				}
			}
		}
	}
}

// offer puts an event on lists. The caller holds the lock of the broadcast.
func (f *frame) offer(list map[*stream]struct{}) {
	for s := range list {
		if s.ended != nil || f.revision <= s.after || s.silent && f.cells == nil {
			continue
		}
		switch err := f.encode(); {
		case err != nil:
			s.ended = err
		case len(s.pending) >= maxPending || s.bytes+len(f.text) > maxPendingBytes:
			s.ended = hub.ErrSlow // after what it has
		default:
			s.pending, s.bytes = append(s.pending, f), s.bytes+len(f.text)
		}
		signal(s.ready)
	}
}

// idle tells whether there are no streams; then nobody follows any more.
func (b *broadcast) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.following = b.open > 0
	return !b.following
}

// end ends all streams after what they have. for ever: none opens any more.
func (b *broadcast) end(why error, forever bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = b.closed || forever
	for _, list := range b.streams {
		for s := range list {
			if s.ended == nil {
				s.ended = why
			}
			signal(s.ready)
		}
	}
	b.following = false
}

// signal puts a token into a channel of capacity 1, unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
