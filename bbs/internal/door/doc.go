// Package door answers clients that speak as Diego's do: messages of bbs.v1 over HTTP/1.1 with mutual TLS,
// and streams of server-sent events. It decides nothing about records. Each route of its one table
// (table, in routes.go) is a method of bbs/internal/server, called as gRPC calls it; the door makes of the
// answer what these clients read, and of an error the error inside of a response.
//
//	request ──► route ──► method of the server ──► response, its field 1 the error
//	hub ──► one watch ──► events, encoded once ──► a bounded list for each stream ──► text/event-stream
//
// What clients can rely on:
//
//   - The status of a response is 200, and what went wrong is in its field 1. 404 and 405 are for paths and
//     methods that are not in the table, 503 without a body is for all others until the database is
//     migrated. The type of the content is not looked at.
//   - A request that is cut off, too long or no message is an InvalidRequest.
//   - A stream begins with what is committed after its header was sent. It ends when its client reads too
//     slowly, and when the BBS stops; the client lists again.
//
// Deprecated revisions of routes and events are made from the current ones, in older.go.
package door
