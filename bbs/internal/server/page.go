package server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/internal/daemon"
	bbsv1 "muster/proto/bbs/v1"
)

// Limits of lists. The numbers of records are in the comments of bbs.v1, too.
const (
	// maxPage is the largest page of small records, and maxWholePage that of records with recipes.
	maxPage      = 10_000
	maxWholePage = 1_000
	// maxPageBytes ends a page before its largest number of records, but never before the first one.
	maxPageBytes = 8 << 20
	// chunkRows is how many rows are read at once for a page: they are held in memory before it is
	// known how large they are.
	chunkRows = 500
	// listPages is how many of the largest pages a list that is not asked for in pages reads at once: up to
	// so many records it shows one moment. Beyond that it is read as pages are, so that a list that is too
	// large for a message does not have to fit into memory to be refused.
	listPages = 10
	// maxListBytes is the largest list that is not asked for in pages. A message carries a little more.
	maxListBytes = daemon.MaxMessageBytes - 1<<20
	// recordOverhead is what a record costs in a message beside its own bytes, at most.
	recordOverhead = 8
	// maxGUIDs and maxPrefixes bound how many records a list can name.
	maxGUIDs    = 10_000
	maxPrefixes = 1_000
)

// pageRequest is a request of a list.
type pageRequest interface {
	proto.Message
	GetPageSize() int32
	GetPageToken() string
}

// listing is how one kind of list is read and answered.
type listing[T any, M proto.Message] struct {
	most   int // largest page
	read   func(store.Page) ([]T, store.Mark, error)
	key    func(T) string // what Page.After takes to go on after a record
	encode func(T) M
}

// answer is what a list answers.
type answer[M any] struct {
	records  []M
	revision uint64
	next     string
}

// list reads one page, or everything when no page is asked for.
func list[T any, M proto.Message](ctx context.Context, r pageRequest, l listing[T, M]) (answer[M], error) {
	at, err := openToken(ctx, r)
	if err != nil {
		return answer[M]{}, err
	}
	if r.GetPageSize() < 0 {
		return answer[M]{}, invalid("page_size", "must be at least 0", fmt.Sprint(r.GetPageSize()))
	}
	if r.GetPageSize() == 0 {
		return l.all(at)
	}
	return l.page(ctx, r, at)
}

// all answers everything after a position.
func (l listing[T, M]) all(at token) (answer[M], error) {
	var out answer[M]
	size := 0
	for {
		rows, mark, err := l.read(store.Page{After: at.after, Limit: listPages * l.most})
		if err != nil {
			return answer[M]{}, err
		}
		at.revision = at.revisionOr(mark.Revision)
		out.records = slices.Grow(out.records, len(rows))
		for _, row := range rows {
			m := l.encode(row)
			if size += proto.Size(m) + recordOverhead; size > maxListBytes {
				return answer[M]{}, status.Errorf(codes.ResourceExhausted,
					"the list is larger than a message of %d bytes: ask for it in pages, with page_size up to %d and page_token",
					maxListBytes, l.most)
			}
			out.records = append(out.records, m)
		}
		if mark.After == "" { // the last ones
			out.revision = at.revision
			return out, nil
		}
		at.after = mark.After
	}
}

// page answers the next page after a position.
func (l listing[T, M]) page(ctx context.Context, r pageRequest, at token) (answer[M], error) {
	var out answer[M]
	limit, size := min(int(r.GetPageSize()), l.most), 0
	for len(out.records) < limit {
		rows, mark, err := l.read(store.Page{After: at.after, Limit: min(chunkRows, limit-len(out.records))})
		if err != nil {
			return answer[M]{}, err
		}
		at.revision = at.revisionOr(mark.Revision)
		for _, row := range rows {
			m := l.encode(row)
			if size += proto.Size(m) + recordOverhead; size > maxPageBytes && len(out.records) > 0 {
				return l.end(ctx, r, out, at)
			}
			out.records = append(out.records, m)
			at.after = l.key(row)
		}
		if mark.After == "" { // the last one
			out.revision = at.revision
			return out, nil
		}
	}
	return l.end(ctx, r, out, at)
}

// end ends a page that more may follow.
func (l listing[T, M]) end(ctx context.Context, r pageRequest, out answer[M], at token) (answer[M], error) {
	out.revision, out.next = at.revision, at.text(ctx, r)
	return out, nil
}

// token says where a list goes on. Callers see an opaque text.
type token struct {
	revision uint64 // of the first page; 0: there was none yet
	after    string
}

// tokenFormat is the first byte of a token: one of another release may look different.
const tokenFormat = 1

// sumBytes is how much of the digest of a request its tokens carry: enough to notice mistakes. Nothing
// is gained by a forgery: a token gives access to nothing.
const sumBytes = 8

func (t token) revisionOr(newest uint64) uint64 {
	if t.revision == 0 {
		return newest
	}
	return t.revision
}

// text returns the token as callers see it.
func (t token) text(ctx context.Context, r pageRequest) string {
	b := append([]byte{tokenFormat}, requestSum(ctx, r)...)
	b = binary.AppendUvarint(b, t.revision)
	return base64.RawURLEncoding.EncodeToString(append(b, t.after...))
}

// openToken reads the token of a request; of the first page, an empty one.
func openToken(ctx context.Context, r pageRequest) (token, error) {
	if r.GetPageToken() == "" {
		return token{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(r.GetPageToken())
	if err != nil || len(b) < 1+sumBytes || b[0] != tokenFormat {
		return token{}, invalid("page_token", "is not a next_page_token of this list", r.GetPageToken())
	}
	if string(b[1:1+sumBytes]) != string(requestSum(ctx, r)) {
		return token{}, invalid("page_token", "belongs to a list with other filters: repeat them on each page", "")
	}
	b = b[1+sumBytes:]
	revision, n := binary.Uvarint(b)
	after := ""
	if n > 0 {
		after = string(b[n:])
	}
	if after == "" || strings.ToValidUTF8(after, "") != after || strings.Contains(after, "\x00") {
		return token{}, invalid("page_token", "is damaged", r.GetPageToken())
	}
	return token{revision, after}, nil
}

// requestSum tells lists with different calls or filters apart.
func requestSum(ctx context.Context, r pageRequest) []byte {
	method, _ := grpc.Method(ctx)
	sum := digest(method, r, "page_size", "page_token")
	return sum[:sumBytes]
}

// digest is the same for equal requests. The named fields do not count.
func digest(method string, r proto.Message, without ...string) [sha256.Size]byte {
	m := proto.Clone(r).ProtoReflect()
	for _, name := range without {
		if fd := m.Descriptor().Fields().ByTextName(name); fd != nil {
			m.Clear(fd)
		}
	}
	// What came off the wire can be encoded.
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
	return sha256.Sum256(append([]byte(method+"\x00"), b...))
}

// invalid names a field that is wrong, and its value.
func invalid(field, problem, value string) error {
	const shown = 64 // bytes
	if len(value) > shown {
		value = strings.ToValidUTF8(value[:shown], "") + "…"
	}
	return &lrp.Invalid{Fields: []lrp.FieldError{{Field: field, Problem: problem, Value: value}}}
}

// missing names a field that is required.
func missing(field, remedy string) error { return invalid(field, "is required: "+remedy, "") }

// atMost checks the length of a list in a request.
func atMost(field string, n, most int) error {
	if n > most {
		return invalid(field, fmt.Sprintf("must have at most %d elements", most), fmt.Sprintf("%d elements", n))
	}
	return nil
}

// named is a short list that is read whole and then cut into pages by name.
func named[T any](all []T, revision uint64, key func(T) string) func(store.Page) ([]T, store.Mark, error) {
	return func(p store.Page) ([]T, store.Mark, error) {
		at, rest := store.Mark{Revision: revision}, all
		for len(rest) > 0 && p.After != "" && key(rest[0]) <= p.After {
			rest = rest[1:]
		}
		if p.Limit > 0 && len(rest) > p.Limit {
			rest = rest[:p.Limit]
			at.After = key(rest[p.Limit-1])
		}
		return rest, at, nil
	}
}

var (
	_ pageRequest = (*bbsv1.ActualLRPsRequest)(nil)
	_ pageRequest = (*bbsv1.ActualLRPsByProcessGuidsRequest)(nil)
	_ pageRequest = (*bbsv1.DesiredLRPsRequest)(nil)
	_ pageRequest = (*bbsv1.TasksRequest)(nil)
	_ pageRequest = (*bbsv1.DomainsRequest)(nil)
	_ pageRequest = (*bbsv1.CellsRequest)(nil)
)
