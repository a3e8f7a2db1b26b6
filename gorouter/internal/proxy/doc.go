// Package proxy is the router's data path: one goroutine for each client connection reads a head,
// finds the route, chooses an endpoint, writes the head with its fields edited, and relays the answer,
// all in buffers that belong to the connection. Nothing is allocated for an ordinary request.
//
//	client ──► conn.serve ──► request.go: route, attempts ──► upstream.go: pooled connection ──► backend
//	                              │  upload.go: a body that is not in hand yet (second goroutine)
//	client ◄── respond.go ◄───────┘  tunnel.go: after 101
//
// No deadline is set on a socket for an ordinary request. A connection notes in one atomic word by
// when its current phase must end, and a sweeper looks at all words twenty times a second. The same
// sweeper sets a goroutine to watch the client of a request that has taken a while, so that a backend is
// let go as soon as its client is gone.
package proxy
