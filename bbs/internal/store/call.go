package store

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"muster/bbs/lrp"
)

// MaxRequestIDBytes is the longest id of a request.
const MaxRequestIDBytes = 255

// Call says what goes with a call that writes, beside what it is about.
type Call struct {
	// TraceID is the id of the request, for events and logs; may be empty.
	TraceID string
	// RequestID makes a creating call safe to repeat: a call with the id of one that succeeded has no
	// effect and gets the same answer, as long as it asks for the same. Empty: not remembered. Calls
	// that create nothing ignore it. Most of them say what is, and saying so again changes nothing; what a
	// repeated Reject, Complete, Fail or Crash does is in docs/differences.md.
	RequestID string
	// RequestDigest says what is asked for: equal requests have equal digests. It has a meaning with a
	// RequestID only.
	RequestDigest [32]byte
	// ValidateOnly asks for the answer without the effect.
	ValidateOnly bool
	// Fence is the lease under which the call is made; zero: none.
	Fence Fence
}

// Fence names a lease and carries its token. Tokens grow with each holder, and a call with a token
// older than the newest that was seen is refused with ErrFenced.
type Fence struct {
	Lease string
	Token uint64
}

// ErrFenced says that somebody else holds the lease by now. The call had no effect.
var ErrFenced = errors.New("the lease was lost: somebody else holds it")

// requestID names a creating call, or one of the items of one.
type requestID struct {
	id   string
	item int32
}

// validate refuses what no column can hold, before any other call has to wait for it.
func (c *Call) validate() error {
	if c.RequestID != "" && (len(c.RequestID) > MaxRequestIDBytes || !utf8.ValidString(c.RequestID) || strings.ContainsRune(c.RequestID, 0)) {
		return requestIDError(fmt.Sprintf("%d bytes, want up to %d of UTF-8 without zeros", len(c.RequestID), MaxRequestIDBytes))
	}
	if c.Fence.Token > math.MaxInt64 {
		return fmt.Errorf("token %d of lease %q is larger than %d", c.Fence.Token, c.Fence.Lease, int64(math.MaxInt64))
	}
	return nil
}

func requestIDError(problem string) error {
	return &lrp.Invalid{Fields: []lrp.FieldError{{Field: "request_id", Problem: problem}}}
}
