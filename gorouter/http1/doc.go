// Package http1 says what bytes are an HTTP/1.x message: it parses heads and follows chunked bodies,
// and refuses whatever two parsers could read in two ways. It works on bytes somebody else has read,
// keeps slices into them and allocates nothing in the steady state.
//
// Invariants:
//
//  1. Lines end with CR LF; a bare LF or CR, a NUL, or a folded line is refused, as are bytes that the
//     grammar of a token, a target or a value does not hold.
//  2. A body has one length: Content-Length once (in responses: any number of times with the same
//     digits) and decimal, or Transfer-Encoding once and exactly "chunked" and HTTP/1.1. Never both.
//  3. There is one host: a second Host field, or an absolute target that names another host, is refused.
//  4. A field that concerns one connection only is marked Drop, as is each field Connection names,
//     except those the receiver relies on (framing, Host, who the client is).
//  5. Whatever is accepted here, net/http accepts and reads the same way (the fuzz tests compare).
package http1
