// Package callback tells whoever wanted a task that it is completed: an EDGE between the records and
// somebody else's HTTP server.
//
// A delivery marks the task RESOLVING, which only one of several can do; posts what became of it to its
// CompletionCallbackURL; and deletes the task when the receiver has answered. Any step may fail: then the
// task stays as it is, until convergence makes it COMPLETED again and submits it anew. So a completion
// is told at least once, unless the receiver does not answer until the task is forgotten, and a
// receiver may be told twice.
//
// A Pool works for one term of the lease: its calls carry the fence of that term, and whatever it is
// doing ends with the context of the term.
//
// # Which answer means what
//
//	2xx, 303                            told
//	other 4xx, other 3xx                told: asking again would get the same answer. It is logged.
//	301, 302, 307, 308                  posted again to where it points, up to MaxRedirects in all
//	408, 429, 5xx                       tried again
//	no answer: refused, closed, silent  tried again
//	no trust in the certificate         not now: whoever can mend it needs longer than a few seconds
//
// Diego takes 500, 502, 429 and all redirects for an end, and so loses the completion when a proxy or
// the receiver is broken. All tries together end before the task is kicked, so that no two
// processes tell of it at the same time.
package callback
