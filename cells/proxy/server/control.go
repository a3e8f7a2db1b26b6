package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"muster/cells/proxy"
	"muster/cells/proxy/internal/handover"
	"muster/internal/daemon"
)

// maxBody bounds the body of a call, in bytes.
const maxBody = 4 << 20

// finishTimeout is how long calls in hand may take when no more are answered.
const finishTimeout = 2 * time.Second

// controls answers calls.
type controls struct {
	p   *assembled
	end <-chan struct{} // closed when no more calls are answered

	mu sync.Mutex // orders what is kept as what is done
}

// handler returns the routes.
func (c *controls) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/self", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, proxy.Self{Version: daemon.Version, PID: os.Getpid(), Args: arguments()})
	})
	mux.HandleFunc("GET /v1/alive", c.alive)
	mux.HandleFunc("GET /v1/containers", func(w http.ResponseWriter, _ *http.Request) { reply(w, c.p.relay.List()) })
	mux.HandleFunc("PUT /v1/containers/{id}", c.set)
	mux.HandleFunc("DELETE /v1/containers/{id}", c.remove)
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.p.metrics, promhttp.HandlerOpts{}))
	return mux
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // fails only when the caller is gone
}

// alive is answered at once, and its answer ends with the process, or when it has a successor.
func (c *controls) alive(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).Flush()
	select {
	case <-c.end:
	case <-r.Context().Done():
	}
}

func (c *controls) set(w http.ResponseWriter, r *http.Request) {
	var want proxy.Container
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&want); err != nil {
		http.Error(w, fmt.Sprintf("read the container: %v", err), http.StatusBadRequest)
		return
	}
	if err := want.Check(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if want.ID != r.PathValue("id") {
		http.Error(w, fmt.Sprintf("id %q of the path is not %q of the body", r.PathValue("id"), want.ID), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.p.relay.Set(want)
	if err == nil {
		err = c.p.state.Save(want)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

func (c *controls) remove(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if err := (proxy.Container{ID: id}).Check(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// First what is done: whatever comes then, nothing reaches the container any more.
	c.p.relay.Remove(id)
	if err := c.p.state.Delete(id); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// serve answers calls, and successors, until ctx ends or one has taken over.
func (p *assembled) serve(ctx context.Context) error {
	asked := make(chan *net.UnixConn)
	go func() {
		defer close(asked)
		for {
			c, err := p.held.successor.AcceptUnix()
			if err != nil {
				return // closed
			}
			select {
			case asked <- c:
			case <-ctx.Done():
				c.Close()
				return
			}
		}
	}()
	defer func() {
		p.held.successor.Close()
		for c := range asked {
			c.Close()
		}
	}()
	for {
		successor, err := p.answer(ctx, asked)
		if err != nil || successor == nil {
			return err
		}
		err = p.handOver(successor)
		successor.Close()
		if err == nil {
			p.log.Info("handed over")
			return errHandedOver
		}
		p.log.Error("handover failed; going on", "error", err)
	}
}

// answer answers calls until ctx ends or a successor asks, which it returns. The control socket stays open.
func (p *assembled) answer(ctx context.Context, asked <-chan *net.UnixConn) (*net.UnixConn, error) {
	socket, err := duplicate(p.held.control)
	if err != nil {
		return nil, err
	}
	end := make(chan struct{})
	c := &controls{p: p, end: end}
	calls := &http.Server{Handler: c.handler(), ReadHeaderTimeout: daemon.ReadHeaderTimeout}
	done := make(chan error, 1)
	go func() { done <- calls.Serve(socket) }()
	var successor *net.UnixConn
	select {
	case <-ctx.Done():
	case successor = <-asked:
	case err = <-done:
		close(end)
		return nil, failed("control socket", err)
	}
	close(end)
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	_ = calls.Shutdown(finish)
	<-done
	// What was accepted last is known to the server only now.
	if calls.Shutdown(finish) != nil {
		calls.Close()
	}
	return successor, nil
}

// duplicate returns another listener of the same socket.
func duplicate(l *net.UnixListener) (*net.UnixListener, error) {
	f, err := l.File()
	if err != nil {
		return nil, failed("control socket", err)
	}
	return listenerOf(f)
}

// handOver passes everything on and returns when the successor is ready.
func (p *assembled) handOver(c *net.UnixConn) error {
	if err := c.SetWriteDeadline(time.Now().Add(handoverTimeout)); err != nil {
		return err
	}
	errs := []error{
		handover.Send(c, proxy.LockFile, p.held.lock),
		handover.Send(c, proxy.ControlFile, p.held.control),
		handover.Send(c, proxy.HandoverFile, p.held.successor),
		p.relay.PassOn(func(name string, l *net.TCPListener) error { return handover.Send(c, name, l) }),
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return handover.End(c, handoverTimeout)
}
