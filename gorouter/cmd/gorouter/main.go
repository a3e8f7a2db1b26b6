// Command gorouter is the HTTP router. SIGUSR1 makes it drain: it says it is unwell, goes on for
// drain_wait, and then finishes the requests in hand and ends.
package main

import (
	"os"
	"os/signal"
	"syscall"

	"muster/gorouter"
	"muster/internal/daemon"
)

func main() {
	cfg := gorouter.Defaults()
	usr1, drain := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(usr1, syscall.SIGUSR1)
	go func() { <-usr1; close(drain) }()
	cfg.Drain = drain
	os.Exit(daemon.Main("gorouter", cfg, gorouter.Run))
}
