package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// RequestsKept is how long the ids of requests are remembered, at least.
const RequestsKept = time.Hour

// rememberedState is what is remembered of a request.
type rememberedState struct {
	digest [32]byte
	fresh  bool // of this batch
}

func (w *world) remember(id requestID, digest [32]byte) {
	w.noteRequest(id, &rememberedState{digest, true})
}

func (w *world) noteRequest(id requestID, r *rememberedState) {
	if w.requests == nil {
		w.requests = map[requestID]*rememberedState{}
	}
	w.requests[id] = r
}

func compareIDs(a, b requestID) int {
	if c := strings.Compare(a.id, b.id); c != 0 {
		return c
	}
	return int(a.item) - int(b.item)
}

func (w *world) readRequests(rows pgx.Rows) error {
	var id requestID
	var digest []byte
	_, err := pgx.ForEachRow(rows, []any{&id.id, &id.item, &digest}, func() error {
		if len(digest) != 32 {
			return fmt.Errorf("digest of request %q has %d bytes", id.id, len(digest))
		}
		w.noteRequest(id, &rememberedState{digest: [32]byte(digest)})
		return nil
	})
	return err
}

func (p *plan) planRequests(w *world) {
	if len(w.requests) == 0 {
		return
	}
	p.insertRequests = make(columns, 3)
	for _, id := range slices.SortedFunc(maps.Keys(w.requests), compareIDs) {
		if r := w.requests[id]; r.fresh {
			row(p.insertRequests, id.id, id.item, r.digest[:])
		}
	}
}

// pruneRequests forgets old requests.
func (s *Store) pruneRequests(ctx context.Context) error {
	for {
		tag, err := s.Pools.Read.Exec(ctx, s.sql["prune_requests"], RequestsKept.Milliseconds(), prunePortion)
		if err != nil {
			return unavailable("forget old requests", err)
		}
		if tag.RowsAffected() < prunePortion {
			return nil
		}
	}
}
