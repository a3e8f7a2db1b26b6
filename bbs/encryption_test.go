package bbs

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"muster/bbs/internal/store"
	"muster/bbs/lrp"
	"muster/internal/daemon"
	"muster/internal/identity"
	"muster/internal/pgtest"
)

// keys is a configuration that seals with the first label and knows all. Each passphrase is made of its
// label.
func keys(labels ...string) Encryption {
	e := Encryption{ActiveKeyLabel: labels[0], Keys: map[string]daemon.Secret{}}
	for _, l := range labels {
		e.Keys[l] = daemon.Secret("passphrase of " + l)
	}
	return e
}

// lines passes on the messages of a log.
type lines struct {
	slog.Handler
	seen chan string
}

func (l lines) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "label" {
			l.seen <- r.Message + " " + a.Value.String()
		}
		return true
	})
	return nil
}

// A key is replaced by restarts, as docs/encryption.md says; a start without the key that is needed is
// refused (bbs reference §19 "encryption").
func TestKeyIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, pgtest.Database(t, nil))
	cfg := w.config()
	cfg.Encryption = keys("old")
	address, stop := w.replica(cfg)
	d := app("p", 1)
	must(t, w.client(address, identity.Client).Desire(t.Context(), d))
	stop()

	cfg = w.config()
	cfg.Encryption = keys("new")
	err := Run(t.Context(), quiet(), cfg)
	if !errors.Is(err, store.ErrRefused) || !strings.Contains(err.Error(), `"old"`) {
		t.Errorf("without the old key: %v, want a refusal that names it", err)
	}
	cfg.Encryption = keys("old")
	cfg.Encryption.Keys["old"] = "something else"
	if err := Run(t.Context(), quiet(), cfg); !errors.Is(err, store.ErrRefused) || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("with a wrong passphrase: %v, want a refusal", err)
	}

	cfg.Encryption = keys("new", "old")
	ctx, cancel := context.WithCancel(t.Context())
	log := lines{quiet().Handler(), make(chan string, 100)}
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, slog.New(log), cfg) }()
	for retired := false; !retired; {
		select {
		case line := <-log.seen:
			retired = line == "encryption key retired: it can be removed from encryption.keys old"
		case err := <-ended:
			t.Fatalf("the replica ended: %v", err)
		}
	}
	cancel()
	<-ended

	cfg = w.config()
	cfg.Encryption = keys("new")
	address, _ = w.replica(cfg)
	got, err := w.client(address, identity.Client).Desired(t.Context(), "p")
	if err != nil || got.Process != lrp.ProcessGUID("p") || string(got.Routes["cf-router"]) != string(d.Routes["cf-router"]) {
		t.Errorf("with the new key only: %+v, %v", got, err)
	}
}

// Problems of the keys are named with all others, and passphrases are never printed.
func TestEncryptionConfig(t *testing.T) {
	t.Parallel()
	c := Defaults()
	err := c.Validate()
	if err == nil || !strings.Contains(err.Error(), "encryption: keys is empty") || !strings.Contains(err.Error(), "database_url") {
		t.Errorf("without keys: %v, want them named beside the other problems", err)
	}
	c.Encryption = keys("k")
	text, err := yaml.Marshal(c)
	if err != nil || strings.Contains(string(text), "passphrase of") || !strings.Contains(string(text), "active_key_label: k") {
		t.Errorf("printed: %v\n%s", err, text)
	}
}
