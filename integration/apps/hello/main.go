// Command hello is the sample application: an HTTP server that says who it is and does on request
// what applications do to a platform.
//
//	/            a line with its process, index and instance
//	/env         its environment as JSON
//	/healthz     ok; 503 after /unhealthy
//	/unhealthy   makes /healthz fail from now on
//	/exit?code=N ends the process with code N
//	/sleep?ms=N  says so in its output and answers after N milliseconds
//	/stream?n=N&ms=M  N lines, one every M milliseconds
//	/ws          WebSocket echo
//
// It listens on PORT (8080) and ends gracefully on SIGTERM: requests under way are finished.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	defaultPort = "8080"
	// drainWithin bounds how long requests under way may take after SIGTERM; a cell kills after 10 s.
	drainWithin = 9 * time.Second
	// maxPause and maxLines bound what a request may ask for.
	maxPause = 10 * time.Minute
	maxLines = 1_000_000
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	port := os.Getenv("PORT")
	if port == "" {
		port = defaultPort
	}
	server := &http.Server{Addr: ":" + port, Handler: routes(os.Exit), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	fmt.Printf("hello listens on port %s\n", port)
	select {
	case err := <-failed:
		return fmt.Errorf("listen on port %s: %w", port, err)
	case <-ctx.Done():
	}
	fmt.Println("hello stops")
	drain, cancel := context.WithTimeout(context.Background(), drainWithin)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		return errors.Join(fmt.Errorf("finish requests: %w", err), server.Close())
	}
	return nil
}

// routes returns the handler; exit ends the process.
func routes(exit func(int)) http.Handler {
	var unhealthy atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "hello from %s index %s instance %s\n", os.Getenv("PROCESS_GUID"), os.Getenv("INSTANCE_INDEX"), os.Getenv("INSTANCE_GUID"))
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(os.Environ()) // the client is gone
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if unhealthy.Load() {
			http.Error(w, "unhealthy", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/unhealthy", func(w http.ResponseWriter, _ *http.Request) {
		unhealthy.Store(true)
		fmt.Fprintln(w, "unhealthy from now on")
	})
	mux.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) {
		code, ok := number(w, r, "code", 0, 255)
		if !ok {
			return
		}
		fmt.Fprintf(w, "exit %d\n", code)
		_ = http.NewResponseController(w).Flush()
		exit(code)
	})
	mux.HandleFunc("/sleep", sleep)
	mux.HandleFunc("/stream", stream)
	mux.HandleFunc("/ws", echo)
	return mux
}

func sleep(w http.ResponseWriter, r *http.Request) {
	ms, ok := number(w, r, "ms", 1000, int(maxPause/time.Millisecond))
	fmt.Printf("sleeps for %d ms\n", ms)
	if ok && pause(r.Context(), ms) {
		fmt.Fprintf(w, "slept %d ms\n", ms)
	}
}

func stream(w http.ResponseWriter, r *http.Request) {
	lines, ok := number(w, r, "n", 10, maxLines)
	if !ok {
		return
	}
	ms, ok := number(w, r, "ms", 100, int(maxPause/time.Millisecond))
	if !ok {
		return
	}
	for i := range lines {
		fmt.Fprintf(w, "line %d\n", i)
		if http.NewResponseController(w).Flush() != nil || !pause(r.Context(), ms) {
			return
		}
	}
}

// number reads a query parameter; it answers the request when the parameter is no number from 0 to most.
func number(w http.ResponseWriter, r *http.Request, name string, otherwise, most int) (int, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		http.Error(w, fmt.Sprintf("%s is %q: want 0 to %d", name, text, most), http.StatusBadRequest)
		return 0, false
	}
	return n, true
}

// pause tells whether it lasted to its end.
func pause(ctx context.Context, ms int) bool {
	timer := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
