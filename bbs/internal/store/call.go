package store

import "errors"

// Call says what goes with a call that writes, beside what it is about.
type Call struct {
	// TraceID is the id of the request, for events and logs; may be empty.
	TraceID string
	// RequestID makes a creating call safe to repeat: a call with the id of one that succeeded has no
	// effect and gets the same answer, as long as it asks for the same. Empty: not remembered.
	RequestID string
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
