package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// drainTime is how long an HTTP server waits for requests in hand when it stops.
const drainTime = 2 * time.Second

// Debug returns a part that serves /healthz, /metrics and /debug/pprof. healthy returns nil when the
// daemon is, and otherwise why not. An empty address serves nothing.
func Debug(address string, metrics prometheus.Gatherer, healthy func() error) func(context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := healthy(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("/metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return func(ctx context.Context) error {
		if address == "" {
			<-ctx.Done()
			return nil
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("listen on debug_address: %w", err)
		}
		return ServeHTTP(ctx, l, mux)
	}
}

// ReadHeaderTimeout is how long the head of a request may take to arrive.
const ReadHeaderTimeout = 5 * time.Second

// ServeHTTP serves on a listener until ctx ends, and then lets requests in hand finish for a moment.
func ServeHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	return RunHTTP(ctx, l, &http.Server{Handler: h, ReadHeaderTimeout: ReadHeaderTimeout})
}

// RunHTTP is ServeHTTP with a server that is made already.
func RunHTTP(ctx context.Context, l net.Listener, s *http.Server) error {
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := s.Shutdown(stop); err != nil {
		s.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
