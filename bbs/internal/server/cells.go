package server

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"muster/bbs/internal/store"
	"muster/bbs/internal/wire"
	"muster/bbs/lrp"
	"muster/cells"
	bbsv1 "muster/proto/bbs/v1"
)

// Domains lists the fresh domains.
func (s *Server) Domains(ctx context.Context, r *bbsv1.DomainsRequest) (*bbsv1.DomainsResponse, error) {
	var names []string
	a, err := list(ctx, r, listing[lrp.Domain, *wrapperspb.StringValue]{
		most: maxPage, key: func(d lrp.Domain) string { return string(d) },
		read: func(p store.Page) ([]lrp.Domain, store.Mark, error) {
			all, revision, err := s.store().Domains(ctx)
			if err != nil {
				return nil, store.Mark{}, err
			}
			return named(all, revision, func(d lrp.Domain) string { return string(d) })(p)
		},
		encode: func(d lrp.Domain) *wrapperspb.StringValue { return wrapperspb.String(string(d)) },
	})
	if err != nil {
		return nil, err
	}
	for _, m := range a.records {
		names = append(names, m.GetValue())
	}
	return &bbsv1.DomainsResponse{Domains: names, Revision: a.revision, NextPageToken: a.next}, nil
}

// UpsertDomain declares a domain fresh.
func (s *Server) UpsertDomain(ctx context.Context, r *bbsv1.UpsertDomainRequest) (*bbsv1.UpsertDomainResponse, error) {
	if wrong := lrp.NameErrors("domain", r.GetDomain(), true); len(wrong) > 0 {
		return nil, &lrp.Invalid{Fields: wrong}
	}
	if err := s.store().UpsertDomain(ctx, lrp.Domain(r.GetDomain()), time.Duration(r.GetTtl())*time.Second); err != nil {
		return nil, err
	}
	return &bbsv1.UpsertDomainResponse{}, nil
}

// Cells lists the cells that are present.
func (s *Server) Cells(ctx context.Context, r *bbsv1.CellsRequest) (*bbsv1.CellsResponse, error) {
	key := func(p cells.Presence) string { return string(p.Cell) }
	a, err := list(ctx, r, listing[cells.Presence, *bbsv1.CellPresence]{
		most: maxPage, key: key, encode: wire.EncodePresence,
		read: func(p store.Page) ([]cells.Presence, store.Mark, error) {
			all, revision, err := s.store().Cells(ctx)
			if err != nil {
				return nil, store.Mark{}, err
			}
			return named(all, revision, key)(p)
		},
	})
	if err != nil {
		return nil, err
	}
	return &bbsv1.CellsResponse{Cells: a.records, Revision: a.revision, NextPageToken: a.next}, nil
}

// Heartbeat notes a sign of life of a cell.
func (s *Server) Heartbeat(ctx context.Context, r *bbsv1.HeartbeatRequest) (*bbsv1.HeartbeatResponse, error) {
	p, ttl := wire.DecodePresence(r.GetPresence()), time.Duration(r.GetTtlMs())*time.Millisecond
	if r.GetTtlMs() < minHeartbeatTTL.Milliseconds() || r.GetTtlMs() > maxHeartbeatTTL.Milliseconds() {
		return nil, invalid("ttl_ms",
			fmt.Sprintf("must be %d to %d milliseconds", minHeartbeatTTL.Milliseconds(), maxHeartbeatTTL.Milliseconds()),
			fmt.Sprint(r.GetTtlMs()))
	}
	if err := s.store().Heartbeat(ctx, p, ttl, call(ctx)); err != nil {
		return nil, err
	}
	return &bbsv1.HeartbeatResponse{}, nil
}

// Ping answers: whether the database is there was checked before.
func (s *Server) Ping(context.Context, *bbsv1.PingRequest) (*bbsv1.PingResponse, error) {
	return &bbsv1.PingResponse{Available: true}, nil
}
