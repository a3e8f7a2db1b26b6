package door

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"muster/bbs/internal/hub"
	"muster/bbs/internal/server"
	"muster/internal/daemon"
	"muster/internal/identity"
	bbsv1 "muster/proto/bbs/v1"
)

// Limits of requests.
const (
	// maxBodyBytes is the largest body that is read: what a message over gRPC may have.
	maxBodyBytes = daemon.MaxMessageBytes
	// firstBytes is how much room a body gets before any of it is there.
	firstBytes = 64 << 10
	// bodyTime is how long a body may take to arrive: the largest one at 2 MiB a second.
	bodyTime = 30 * time.Second
	// idleTime is how long a connection may be without a request. Clients give theirs up sooner: a call on one
	// that was just closed is one that they make twice.
	idleTime = 15 * time.Minute
	// maxHeadBytes is the largest head of a request.
	maxHeadBytes = 64 << 10
	// answerBytes is how much of an answer may take writeTime to be written.
	answerBytes = 1 << 20
	// keptBytes is the largest buffer that is kept for later requests.
	keptBytes = 256 << 10
)

// The names of headers. They are written as net/http keeps them.
const (
	traceHeader  = "X-Vcap-Request-Id"
	typeHeader   = "Content-Type"
	lengthHeader = "Content-Length"
)

// contentType is what every response with a message is.
var contentType = []string{"application/x-protobuf"}

// Options are what a door is made of.
type Options struct {
	Log    *slog.Logger
	Server *server.Server // answers; not Ready: 503
	Hub    *hub.Hub       // tells streams what happens, once Run runs
	Gate   *identity.Gate // says who calls
}

// Door serves Diego's clients. Serve answers them, Run tells streams what happens; both are needed.
type Door struct {
	Options
	calls     map[string]*callRoute
	streams   map[string]streamRoute
	broadcast *broadcast
	stopping  chan struct{} // closed when Serve ends
	buffers   sync.Pool     // of *buffer
}

// callRoute is a route that is ready to be called.
type callRoute struct {
	route
	full string // the method's name with that of the service
	call server.Call
}

// New returns a door.
func New(o Options) (*Door, error) {
	d := &Door{
		Options: o, calls: map[string]*callRoute{}, streams: map[string]streamRoute{}, broadcast: newBroadcast(o.Hub),
		stopping: make(chan struct{}),
		buffers:  sync.Pool{New: func() any { return &buffer{in: make([]byte, 0, firstBytes)} }},
	}
	for _, r := range table() {
		call, err := o.Server.Call(r.method)
		if err != nil {
			return nil, fmt.Errorf("route %s: %w", r.path, err)
		}
		d.calls[r.path] = &callRoute{r, "/" + bbsv1.BBSService_ServiceDesc.ServiceName + "/" + r.method, call}
	}
	for _, r := range streams() {
		d.streams[r.path] = r
	}
	return d, nil
}

// Run tells streams what happens, until ctx ends; then all streams end. The hub must have been started.
func (d *Door) Run(ctx context.Context) error { return d.broadcast.run(ctx) }

// Streams returns how many streams are open.
func (d *Door) Streams() int { return d.broadcast.count() }

// Serve answers on a listener until ctx ends; streams are ended then, and calls in hand get a moment to
// finish.
func (d *Door) Serve(ctx context.Context, l net.Listener) error {
	config := d.Gate.TLS()
	config.NextProtos = []string{"http/1.1"}
	defer context.AfterFunc(ctx, func() { close(d.stopping) })()
	return daemon.RunHTTP(ctx, tls.NewListener(l, config), &http.Server{
		Handler: d, ReadHeaderTimeout: daemon.ReadHeaderTimeout, IdleTimeout: idleTime, MaxHeaderBytes: maxHeadBytes,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, &peer{gate: d.Gate})
		},
		ErrorLog: slog.NewLogLogger(d.Log.Handler(), slog.LevelInfo), // handshakes that failed, with the reason
	})
}

// ServeHTTP implements http.Handler.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call, isCall := d.calls[r.URL.Path]
	stream, isStream := d.streams[r.URL.Path]
	verb := http.MethodPost
	if isStream {
		verb = stream.verb
	}
	switch {
	case !isCall && !isStream:
		http.NotFound(w, r)
	case r.Method != verb:
		w.Header().Set("Allow", verb)
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
	case !d.Server.Ready():
		w.WriteHeader(http.StatusServiceUnavailable)
	case isStream:
		d.stream(w, r, stream)
	default:
		d.answer(w, r, call)
	}
}

// buffer is what a call needs while it lasts.
type buffer struct{ in, out []byte }

// answer makes a call and writes its response.
func (d *Door) answer(w http.ResponseWriter, r *http.Request, c *callRoute) {
	buf := d.buffers.Get().(*buffer)
	defer d.keep(buf)
	var err error
	buf.in = buf.in[:0]
	// Of somebody unknown nothing is read: the call says what is wrong.
	if _, unknown := r.Context().Value(peerKey{}).(*peer).identity(r); unknown == nil {
		buf.in, err = readBody(w, r, buf.in)
	}
	if err == nil {
		buf.out, err = c.respond(d.context(w, r, c.full), buf)
	}
	if err != nil {
		buf.out = c.form.appendFailure(buf.out[:0], err)
	}
	h := w.Header()
	h[typeHeader] = contentType
	h[lengthHeader] = []string{strconv.Itoa(len(buf.out))}
	writeAnswer(w, buf.out)
}

// writeAnswer writes a response. Whoever is gone needs none, and whoever does not read it is not waited for.
func writeAnswer(w http.ResponseWriter, b []byte) {
	control := http.NewResponseController(w)
	for {
		n := min(len(b), answerBytes)
		if control.SetWriteDeadline(time.Now().Add(writeTime)) != nil {
			return
		}
		if _, err := w.Write(b[:n]); err != nil {
			return
		}
		if b = b[n:]; len(b) == 0 {
			return
		}
	}
}

// keep returns a buffer to the pool, unless it grew large.
func (d *Door) keep(buf *buffer) {
	if cap(buf.in) <= keptBytes && cap(buf.out) <= keptBytes {
		d.buffers.Put(buf)
	}
}

// readBody appends the body of a request. A body that ends early, is too long or takes too long is errUnread.
func readBody(w http.ResponseWriter, r *http.Request, b []byte) ([]byte, error) {
	if r.ContentLength > maxBodyBytes {
		return b, errUnread
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		return b, errUnread
	}
	defer func() { _ = control.SetReadDeadline(time.Time{}) }() // a stream is read from for ever
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case len(b) > maxBodyBytes:
			return b, errUnread
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return b, errUnread
		}
	}
}

// respond makes a call and returns the encoded response.
func (c *callRoute) respond(ctx context.Context, buf *buffer) ([]byte, error) {
	var request proto.Message
	res, err := c.call(ctx, func(m proto.Message) error {
		request = m
		if c.form.read != nil {
			return c.form.read(buf.in, m)
		}
		server.Read(buf.in, m)
		return nil
	})
	if tooLarge(err, request) {
		return c.inPages(ctx, buf, request)
	}
	if err == nil && c.form.answer != nil {
		res, err = c.form.answer(request, res)
	}
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{}.MarshalAppend(buf.out[:0], res)
}

// context returns the context of a call or a stream: who calls, and under which id.
func (d *Door) context(w http.ResponseWriter, r *http.Request, method string) context.Context {
	id, err := r.Context().Value(peerKey{}).(*peer).identity(r)
	trace := ""
	if v := r.Header[traceHeader]; len(v) > 0 {
		trace = v[0]
	}
	ctx := identity.NewContext(r.Context(), id, err)
	return server.NewContext(ctx, method, trace, func(trace string) { w.Header()[traceHeader] = []string{trace} })
}

// peerKey is the key of the peer in the context of a connection.
type peerKey struct{}

// peer is who is at the other end of a connection, found out once.
type peer struct {
	gate *identity.Gate
	once sync.Once
	id   identity.ID
	err  error
}

func (p *peer) identity(r *http.Request) (identity.ID, error) {
	p.once.Do(func() {
		if p.err = errors.New("peer is not authenticated by a certificate"); r.TLS != nil {
			p.id, p.err = p.gate.Of(r.TLS.PeerCertificates)
		}
	})
	return p.id, p.err
}

var _ http.Handler = (*Door)(nil)
