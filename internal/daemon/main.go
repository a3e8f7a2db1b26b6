package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// Common is the part of the configuration that all daemons have; embed it without a json tag.
type Common struct {
	LogLevel string `json:"log_level" help:"debug, info, warn or error; debug costs a line for every call"`
	// Debug answers anybody who can reach it: keep it on loopback.
	DebugAddress string `json:"debug_address" help:"host:port for /healthz, /metrics and /debug/pprof, plain HTTP; empty: none"`
}

// Config is a pointer to a daemon's configuration.
type Config interface {
	// Validate returns every problem at once, each naming the field, its value and the bound.
	Validate() error
	// Base returns the common part.
	Base() *Common
}

// Base returns the common part.
func (c *Common) Base() *Common { return c }

// Problems returns what is wrong with the common part.
func (c *Common) Problems() []error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return []error{fmt.Errorf("log_level %q: want debug, info, warn or error", c.LogLevel)}
	}
	return nil
}

// Main is the body of a daemon's main function: it reads the configuration, runs the daemon until it
// ends or SIGTERM or SIGINT arrives, prints one error, and returns the exit status.
func Main[C Config](name string, cfg C, run func(context.Context, *slog.Logger, C) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := start(ctx, name, os.Args[1:], cfg, os.Stderr, os.Stdout, run)
	switch {
	case err == nil, errors.Is(err, errPrinted):
		return 0
	default:
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
}

func start[C Config](ctx context.Context, name string, args []string, cfg C, logs, out io.Writer, run func(context.Context, *slog.Logger, C) error) error {
	if err := load(name, args, cfg, out); err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	log := NewLogger(logs, name, cfg.Base().LogLevel)
	slog.SetDefault(log) // for libraries that log by themselves
	log.Info("starting", "pid", os.Getpid(), "version", Version)
	err := run(ctx, log, cfg)
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	log.Info("stopped")
	return nil
}

// NewLogger returns the JSON logger of a component.
func NewLogger(w io.Writer, component, level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelInfo
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l})).With("component", component)
}
